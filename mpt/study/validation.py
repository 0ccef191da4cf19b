"""Validation tasks of any setting: on what a search in that setting selects.

The paper selects on five tasks that are in neither source nor target of random_to_random; in
other partitions some of them are sources. The rule for every setting: its validation tasks are
those of the catalogue's that are neither its sources nor its targets, in the catalogue's order,
filled up to five with other tasks that are neither. A task to fill up with is of the family that
has the fewest so far (equal ones: the order of `FAMILIES`), the first of that family in an order
drawn for the partition. The draw depends on the partition's name alone: not on the training seed,
not on which files are there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpt.errors import UsageError
from mpt.gym.catalogue import FAMILIES
from mpt.seeds import numpy_generator

if TYPE_CHECKING:
    from mpt.gym.catalogue import Catalogue

SIZE = 5
"""Validation tasks of a setting, as many as the paper has."""
ROOT_SEED = 2023
"""Root of the draws."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The validation tasks of one setting."""

    partition: str
    kept: tuple[str, ...]
    """Validation tasks of the catalogue that are neither source nor target here."""
    drawn: tuple[str, ...]
    """Tasks that fill up."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """All of them, at most `SIZE`."""
        return self.kept + self.drawn

    def __str__(self) -> str:
        text = f"{self.partition}: validation on {', '.join(self.kept) or 'none'} (catalogue)"
        if self.drawn:
            text += f" and {', '.join(self.drawn)} (drawn)"
        if len(self.tasks) < SIZE:
            text += f"; no other task is neither source nor target: {len(self.tasks)} of {SIZE}"
        return text


def validation_of(catalogue: Catalogue, partition: str) -> Validation:
    """Choose the validation tasks of a setting by the rule of this file.

    Raises:
        UsageError: the partition is unknown, or every task is source or target of it.
    """
    setting = catalogue.partition(partition)
    used = {*setting.source, *setting.target}
    kept = tuple(name for name in catalogue.validation_tasks if name not in used)[:SIZE]
    free = [name for name in catalogue.tasks if name not in used and name not in kept]
    order = numpy_generator(ROOT_SEED, "validation tasks", partition).permutation(len(free))
    waiting = [free[at] for at in order]
    families = Counter(catalogue.tasks[name].family for name in kept)
    drawn: list[str] = []
    while waiting and len(kept) + len(drawn) < SIZE:
        waiting_families = {catalogue.tasks[name].family for name in waiting}
        family = min(waiting_families, key=lambda name: (families[name], FAMILIES.index(name)))
        task = next(name for name in waiting if catalogue.tasks[name].family == family)
        waiting.remove(task)
        drawn.append(task)
        families[family] += 1
    if not kept and not drawn:
        raise UsageError(
            f"partition {partition}: every task is source or target, so none is left to validate "
            "on"
        )
    return Validation(partition=partition, kept=kept, drawn=tuple(drawn))
