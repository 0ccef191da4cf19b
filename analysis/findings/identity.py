"""What was studied, in words."""

from __future__ import annotations

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
from .settings import upstream_seed

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
    seeds = sorted({upstream_seed(cell) for cell in cells if cell.steps > 0})
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
    partial = dict.fromkeys(
        s.partial.removeprefix("partial: ") for s in section.studies if s.partial
    )
    return [*sentences, *(f"Partial: {text}." for text in partial)]
