"""The pairs of Table 7, drawn by family: which tasks of a gym are compared."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from mpt.errors import UsageError
from mpt.gym.catalogue import Catalogue
from mpt.replay.similarity.settings import PairFamilies
from mpt.seeds import numpy_generator

Names = tuple[tuple[str, str], ...]
"""Pairs of tasks."""


@dataclass(frozen=True, kw_only=True)
class DrawnPairs:
    """The pairs of Table 7 on a gym."""

    similar: Names
    """Pairs that are expected to be alike; no task is in two of them."""
    dissimilar: Names
    """The same for pairs that are not."""
    about: str
    """Families, seed, and what the gym lacks; one line for readers."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task of a pair once."""
        both = (self.similar, self.dissimilar)
        return tuple(dict.fromkeys(name for pairs in both for pair in pairs for name in pair))


def draw_pairs(
    catalogue: Catalogue, families: PairFamilies, seed: int, *, without: Collection[str] = ()
) -> DrawnPairs:
    """Draw the pairs of Table 7 (Qin et al. 2023, appendix A.6).

    The order in which tasks are drawn depends on the seed and on the catalogue's tasks of the
    family, and not on what is built of them.

    Args:
        catalogue: of the gym.
        families: of the two tasks of a pair, either a family or a group of one.
        seed: root of the draw.
        without: tasks that are passed over.

    Raises:
        UsageError: the gym has no pair of a kind.
    """
    notes: dict[str, None] = {}

    def drawn(kind: str, names: tuple[str, str]) -> Names:
        first, second = names
        left, right = (_members(catalogue, name, families, notes.setdefault) for name in names)
        if first == second:
            order = _shuffled(left, seed, kind, first, without)
            pairs = tuple(zip(order[::2], order[1::2], strict=False))
        else:
            one = _shuffled(left, seed, kind, first, without)
            other = _shuffled(right, seed, kind, second, without)
            pairs = tuple(zip(one, other, strict=False))
        if not pairs:
            raise UsageError(
                f"{kind} pairs of Table 7 are ({first}, {second}), but the gym has no two such "
                "tasks; leave them out: --only pilot"
            )
        if len(pairs) < families.count:
            verb = "is" if len(pairs) == 1 else "are"
            notes.setdefault(f"only {len(pairs)} of {families.count} {kind} pairs {verb} there")
        return pairs[: families.count]

    similar = drawn("similar", families.similar)
    dissimilar = drawn("dissimilar", families.dissimilar)
    about = (
        f"similar pairs are ({', '.join(families.similar)}), dissimilar ones "
        f"({', '.join(families.dissimilar)}), drawn with seed {seed}"
    )
    return DrawnPairs(similar=similar, dissimilar=dissimilar, about="; ".join([about, *notes]))


def _members(
    catalogue: Catalogue, family: str, families: PairFamilies, say: Callable[[str], object]
) -> list[str]:
    """Return the tasks of a family or group, or of the one that stands for it."""
    tasks = _named(catalogue, family)
    nearest = families.nearest.get(family)
    if tasks or nearest is None:
        return tasks
    say(f"the gym has no {family} task, {nearest} stands for it")
    return _named(catalogue, nearest)


def _named(catalogue: Catalogue, family: str) -> list[str]:
    return [name for name, info in catalogue.tasks.items() if family in (info.family, info.group)]


def _shuffled(
    names: list[str], seed: int, kind: str, family: str, without: Collection[str]
) -> list[str]:
    """Return the tasks in the order of the draw."""
    rng = numpy_generator(seed, "similarity", "pairs", kind, family)
    known = sorted(names)
    return [known[at] for at in rng.permutation(len(known)) if known[at] not in without]
