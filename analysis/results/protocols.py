"""What studies may share a table, and in words what tells them apart.

Studies of one protocol (`StudyRecord.protocol`) differ in place and backbone alone. A study that
left tasks out never shares a table with one that did not: partial studies are a group of their
own. So is everything else that differs: gym, seeds, number format, recipe, smoke size, and the
version of the code that scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from mpt.errors import UsageError
from mpt.metrics import SCORE_CODE
from mpt.store.records import StudyRecord

ID_DIGITS = 8
"""Digits of a key that stand for it in what people read and type."""
SHOWN = 4
"""Differences that a line names; of more it says how many."""


def group_of(study: StudyRecord) -> tuple[str, bool]:
    """Return what studies that may share a table have in common: protocol, and whether partial."""
    return study.protocol, study.partial is not None


def group_id(study: StudyRecord) -> str:
    """Return the id of a study's group, fit for names of files."""
    return study.protocol[:ID_DIGITS] + ("-partial" if study.partial is not None else "")


def chosen(studies: Sequence[StudyRecord], wanted: str | None) -> list[StudyRecord]:
    """Return the studies that ``--study`` asks for; all without it.

    Args:
        studies: what there is.
        wanted: first digits of a study's key or of a protocol.

    Raises:
        UsageError: there is none; those that there are are listed.
    """
    if wanted is None:
        return list(studies)
    found = [s for s in studies if s.key.startswith(wanted) or s.protocol.startswith(wanted)]
    if not found or not wanted:
        known: dict[str, list[str]] = {}
        for study in studies:
            known.setdefault(study.protocol[:ID_DIGITS], []).append(study.id)
        listed = "; ".join(f"{protocol}: {', '.join(ids)}" for protocol, ids in known.items())
        raise UsageError(
            f"--study {wanted!r} is no protocol or study here; there are (protocol: studies) "
            f"{listed or 'none'}"
        )
    return found


def differences(groups: Sequence[StudyRecord]) -> list[str]:
    """Say in words what tells groups of studies apart.

    Args:
        groups: one study of each group.

    Returns:
        One text a group; empty for a group that is alone and ordinary.
    """
    every = [_facts(study) for study in groups]
    names = dict.fromkeys(name for facts in every for name in facts)
    telling = [n for n in names if len({facts.get(n, "default") for facts in every}) > 1]
    return [
        "; ".join([*_marks(study), *(f"{n} {facts.get(n, 'default')}" for n in telling)])
        for study, facts in zip(groups, every, strict=True)
    ]


def _facts(study: StudyRecord) -> dict[str, str]:
    return {
        "gym": PurePath(study.gym).name,
        "data seeds": _listed(study.data_seeds),
        "train seed": str(study.train_seed),
        "precision": study.precision,
        "downstream learning rates": _listed(study.lrs),
        **{name: str(value) for name, value in flat(study.settings).items()},
    }


def _marks(study: StudyRecord) -> list[str]:
    marks = []
    if study.smoke:
        marks.append("smoke run, its numbers mean nothing")
    if study.partial is not None:
        marks.append("partial, tasks were left out")
    if study.code != SCORE_CODE:
        marks.append(
            f"trained and scored by version {study.code} of the score code, "
            f"and this program has version {SCORE_CODE}"
        )
    return marks


def _listed(values: Iterable[object]) -> str:
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def data_differences(one: StudyRecord, other: StudyRecord) -> str:
    """Say in words what tells two studies of one protocol and place apart; empty if nothing."""
    found = []
    if one.backbone_digest != other.backbone_digest:
        found.append(f"the weights of {one.backbone}")
    for kind, mine, theirs in (
        ("source", one.source, other.source),
        ("scored", one.scored, other.scored),
    ):
        left, right = (
            {(task, seed): sha for task, seed, sha in items} for items in (mine, theirs)
        )
        edited = {at[0] for at in left.keys() & right.keys() if left[at] != right[at]}
        absent = {task for task, _ in left.keys() ^ right.keys()}
        found += [f"the data of {kind} tasks {shortened(edited)}"] if edited else []
        found += [f"which {kind} tasks there are: {shortened(absent)}"] if absent else []
    if one.partial != other.partial:
        found.append(f"what was left out ({one.partial}; {other.partial})")
    return " and ".join(found)


def scored_alike(one: StudyRecord, other: StudyRecord) -> bool:
    """Return whether two studies of one protocol score one model on the same data."""
    return one.backbone_digest == other.backbone_digest and set(one.scored) == set(other.scored)


def shortened(names: Iterable[str]) -> str:
    """Return names in order, a few of them; of more it says how many."""
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level: {"a": {"b": 1}} → {"a.b": 1}."""
    found: dict[str, Any] = {}
    for name, part in value.items():
        if isinstance(part, Mapping):
            found |= flat(part, f"{prefix}{name}.")
        else:
            found[prefix + name] = part
    return found
