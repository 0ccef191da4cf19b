"""What studies may share a table, and in words what tells them apart.

Studies of one protocol (`StudyRecord.protocol`) differ in place and backbone alone. A study that
left tasks out never shares a table with one that did not: partial studies are a group of their
own. So is everything else that differs: gym, seeds, number format, recipe, smoke size, and the
version of the code that scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mpt.metrics import SCORE_CODE
from mpt.store.records import StudyRecord
from mpt.study.choice import DIGITS, facts_of, told_apart
from mpt.study.replaced import REPLACED, replaced_text

SHOWN = 4
"""Differences that a line names; of more it says how many."""


def group_of(study: StudyRecord) -> tuple[str, bool]:
    """Return what studies that may share a table have in common: protocol, and whether partial."""
    return study.protocol, study.partial is not None


def group_id(study: StudyRecord) -> str:
    """Return the id of a study's group, fit for names of files."""
    return study.protocol[:DIGITS] + ("-partial" if study.partial is not None else "")


def differences(groups: Sequence[StudyRecord]) -> list[str]:
    """Say in words what tells groups of studies apart.

    Args:
        groups: one study of each group.

    Returns:
        One text a group; empty for a group that is alone and ordinary.
    """
    return told_apart([facts_of(one) for one in groups], [_marks(one) for one in groups])


def _marks(study: StudyRecord) -> list[str]:
    marks = [replaced_text(study.settings[REPLACED])] if REPLACED in study.settings else []
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


def data_differences(one: StudyRecord, other: StudyRecord) -> str:
    """Say in words what tells two studies of one protocol and place apart; empty if nothing."""
    differing = []
    if one.backbone_digest != other.backbone_digest:
        differing.append(f"the weights of {one.backbone}")
    for kind, mine, theirs in (
        ("source", one.source, other.source),
        ("scored", one.scored, other.scored),
    ):
        ours, others = (
            {(task, seed): sha for task, seed, sha in items} for items in (mine, theirs)
        )
        edited = {at[0] for at in ours.keys() & others.keys() if ours[at] != others[at]}
        absent = {task for task, _ in ours.keys() ^ others.keys()}
        differing += [f"the data of {kind} tasks {shortened(edited)}"] if edited else []
        differing += [f"which {kind} tasks there are: {shortened(absent)}"] if absent else []
    if one.partial != other.partial:
        differing.append(f"what was left out ({one.partial}; {other.partial})")
    return " and ".join(differing)


def scored_alike(one: StudyRecord, other: StudyRecord) -> bool:
    """Return whether two studies of one protocol score one model on the same data."""
    return one.backbone_digest == other.backbone_digest and set(one.scored) == set(other.scored)


def shortened(names: Iterable[str]) -> str:
    """Return names in order, a few of them; of more it says how many."""
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more
