"""What of each partition can be completed today, and what its study may declare where not."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mpt.gym.catalogue import Catalogue, Partition
from mpt.gym.crossfit.tasks import GONE, load_rows
from mpt.words import counted

PROPOSED = 3
"""Tasks that are proposed in the place of one that is gone."""
NAMED = 8
"""Missing tasks that a line names; of more it says how many."""


def completion_lines(
    catalogue: Catalogue, partition: Partition, missing: Collection[str]
) -> Iterator[str]:
    """Yield what is missing of a partition, whether it can be had, and what to do without it."""
    source, target = (
        [name for name in names if name in missing]
        for names in (partition.source, partition.target)
    )
    lost = [name for name in (*source, *target) if is_gone(name)]
    buildable = [name for name in (*source, *target) if name not in lost]
    if not source and not target:
        return
    parts = [
        f"{len(names) - len(absent)} of {counted(len(names), kind)}"
        for kind, names, absent in (
            ("source", partition.source, source),
            ("target", partition.target, target),
        )
    ]
    yield f"there are {' and '.join(parts)}"
    if buildable:
        yield f"can be built: {_named(buildable)}"
    for name in lost:
        proposed = proposals(catalogue, partition, name, missing)
        without = f"--replace {name}=TASK (a study of its own; e.g. {', '.join(proposed)})"
        yield (
            f"gone from the Hub, to be built from a mirror only: {name}; without it: "
            f"--allow-missing (partial), or {without if proposed else '--replace'}"
        )


def is_gone(name: str) -> bool:
    """Return whether the Hub no longer has a published task's data."""
    row = load_rows().get(name)
    return row is not None and row.revision == GONE


def proposals(
    catalogue: Catalogue, partition: Partition, name: str, missing: Collection[str]
) -> list[str]:
    """Return tasks of a task's family that a partition does not use, those of its group first.

    Those that the gym has come before those that can be built; validation tasks and tasks that are
    gone are left out.
    """
    used = {*partition.source, *partition.target, *catalogue.validation_tasks}
    about = catalogue.task(name)
    free = [
        one
        for one in catalogue.tasks.values()
        if one.family == about.family and one.name not in used and not is_gone(one.name)
    ]
    free.sort(key=lambda one: (one.name in missing, one.group != about.group))
    return [one.name for one in free[:PROPOSED]]


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
