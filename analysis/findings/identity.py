"""What was studied, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.study.choice import facts_of
from mpt.words import counted

from ..results.names import (
    METHODS,
    PARTITION_LABELS,
    gym_label,
    in_order,
    method_label,
    partition_label,
)
from ..results.sections import Section
from .finding import listed

if TYPE_CHECKING:
    from mpt.store.records import StudyRecord

_SAID = ("gym", "data seeds", "train seed", "precision", "downstream learning rates")


def identity(section: Section) -> list[str]:
    """Return sentences: what was compared on what, with which seeds and recipe."""
    cells = [point for cell in section.cells for point in cell.points]
    backbones = sorted({cell.place.backbone.rstrip("/").rsplit("/", 1)[-1] for cell in cells})
    methods = [*in_order({c.place.method.partition(" ")[0] for c in cells}, METHODS)]
    roles = []
    for role, words in (("target", "target tasks"), ("validation", "validation tasks (search)")):
        own = [point for cell in section.select(role=role) for point in cell.points]
        names = in_order((cell.place.partition for cell in own), PARTITION_LABELS)
        parts = [partition_label(name) for name in names]
        if own:
            roles.append(f"{counted(len(own), 'point')} on {words} of {listed(parts)}")
    facts = facts_of(section.studies[0])
    the_gym = "the gym" if facts["gym"] == "gym" else gym_label(facts["gym"])
    seeds = sorted({cell.upstream_seed for cell in cells if cell.steps > 0})
    others = [f"{name} {value}" for name, value in facts.items() if name not in _SAID]
    upstream = ", ".join(map(str, seeds)) or "none"
    sentences = [
        f"{listed([method_label(name) for name in methods])} against plain prompt tuning (PT) on "
        f"{listed(backbones)} and {the_gym}: {listed(roles)}.",
        f"Data seeds {facts['data seeds']}; upstream seeds {upstream}; "
        f"downstream learning rates {facts['downstream learning rates']}; {facts['precision']}"
        + (f"; {'; '.join(others)}" if others else "")
        + ".",
    ]
    if section.smoke:
        sentences.append("Of a smoke run: it shows that the path works, its numbers mean nothing.")
    return [*sentences, *_left_out(section)]


def _left_out(section: Section) -> list[str]:
    """Return a sentence about what studies left out, each part once with whom it is about."""
    studies = section.studies
    parts: dict[str, list[StudyRecord]] = {}
    for study in studies:
        for part in (study.partial or "").removeprefix("partial: ").split("; "):
            parts.setdefault(part, []).append(study)
    parts.pop("", None)
    if not parts:
        return []
    told = [f"{part}{_whose(own, studies)}" for part, own in parts.items()]
    # what all studies lack stands first
    told.sort(key=lambda text: text.endswith(")"))
    text = f"Partial (§): {'; '.join(told)}."
    if any(part.endswith("missing") for part in parts):
        text += " The gym has no files of missing tasks (python -m mpt.gym doctor names them)."
    if any(part.endswith("chosen") for part in parts):
        text += " Chosen tasks are those that the study's file names."
    if not section.smoke:
        text += " Numbers are of these tasks alone: compare them with each other."
    return [text]


def _whose(own: Sequence[StudyRecord], every: Sequence[StudyRecord]) -> str:
    if len(own) == len(every):
        return ""
    for role, words in (("target", "replay"), ("validation", "search")):
        if [one.key for one in own] == [one.key for one in every if one.role == role]:
            return f" ({words})"
    names = in_order((one.partition for one in own), PARTITION_LABELS)
    return f" (on {listed([partition_label(name) for name in names])})"
