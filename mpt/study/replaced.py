"""Tasks that a study declares to have replaced, where those of a partition cannot be had any more.

A replacement is a part of the study's identity: its key, header and table titles say it, and paper
mode does not judge the cells that depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mpt.errors import UsageError

if TYPE_CHECKING:
    from mpt.gym.catalogue import Catalogue

REPLACED = "replaced"
"""Where the settings of a study's record say it: {task of the catalogue: task in its place}."""
Replaced = tuple[tuple[str, str], ...]
"""(task of the catalogue, task in its place), of a study."""


def parse_replacements(text: str) -> Replaced:
    """Parse ``old=new,old=new``.

    Raises:
        UsageError: it does not look like that.
    """
    pairs = tuple(
        (old.strip(), new.strip()) for old, _, new in (p.partition("=") for p in text.split(","))
    )
    if not all(old and new and "=" not in new for old, new in pairs):
        raise UsageError(f"--replace is {text!r}, but must look like old=new,old=new")
    return pairs


def replaced_tasks(
    catalogue: Catalogue,
    replaced: Replaced,
    source: Sequence[str],
    scored: Sequence[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return source and scored tasks with the declared ones in their places.

    Args:
        catalogue: knows the tasks.
        replaced: what stands in whose place; a task that is neither source nor scored has none.
        source: tasks that are learned from.
        scored: tasks that are scored.

    Raises:
        UsageError: a name is no task, the two are of different families (partitions are made of
            families), or the new one is learned from or scored already.
    """
    named = {*source, *scored}
    for old, new in replaced:
        family, other = catalogue.task(old).family, catalogue.task(new).family
        if family != other:
            raise UsageError(
                f"--replace puts {new} ({other}) in the place of {old} ({family}), but it must be "
                "a task of the same family"
            )
        if old in named and new in named:
            raise UsageError(
                f"--replace puts {new} in the place of {old}, but it is learned from or scored "
                "already; take another task"
            )
    new_of = dict(replaced)
    return tuple(new_of.get(n, n) for n in source), tuple(new_of.get(n, n) for n in scored)


def replaced_text(replaced: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """Return replacements in words; empty if there are none."""
    pairs = replaced.items() if isinstance(replaced, Mapping) else replaced
    return ", ".join(f"{old} replaced by {new}" for old, new in pairs)
