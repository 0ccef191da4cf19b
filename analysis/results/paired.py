"""Paired differences between two cells: the same upstream seeds on the same data seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpt.metrics.differences import Difference
from mpt.metrics.paired import Pair, paired_differences
from mpt.metrics.replicates import Replicates
from mpt.seeds import numpy_generator

from .cells import Cell
from .upstream_seeds import gain_tasks, tables_of


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One cell minus another, in ARG points."""

    difference: Difference
    """Mean, 95 % interval and two-sided p (not corrected: see `mpt.metrics.differences.holm`)."""
    upstream_seeds: tuple[int, ...]
    """Those that the mean is over: both cells have them. The one result of a method that learns
    nothing upstream is compared with every seed's of the other."""
    data_seeds: int
    """Data seeds of every task."""
    tasks: tuple[str, ...]
    """Those on which both have a relative gain."""
    levels: tuple[str, ...]
    """What interval and p are over: ("upstream seeds", "data seeds"), or ("data seeds",) with one
    upstream seed, which must be said beside them: another one may lie outside."""


def paired(one: Cell, other: Cell) -> Paired | None:
    """Return `one` minus `other`, by itself; see `paired_cells`."""
    return paired_cells([(one, other)])[0]


def paired_cells(pairs: Sequence[tuple[Cell, Cell]]) -> list[Paired | None]:
    """Return the differences of pairs of cells, e.g. MAML − MTL on every partition.

    With a relative gain RG = (s − b) / b both ARGs have the same baseline b, whose noise cancels:
    differences are taken for each upstream seed that both have, on the same draws of data seeds.
    The spread of differences between upstream seeds is moderated by that of all pairs given (two
    or three seeds say little alone), so pairs of one question belong in one call.

    Args:
        pairs: cells of one study each: the same tasks, data, baseline.

    Returns:
        One a pair, in their order; None for cells of two studies, without a common task, or
        without a common upstream seed where both learn upstream.
    """
    found = [_pair(*one) for one in pairs]
    there = [one for one in found if one is not None]
    if not there:
        return [None for _ in pairs]
    rng = numpy_generator(pairs[0][0].train_seed, "paired")
    differences = iter(paired_differences([pair for pair, _ in there], rng=rng))
    several = any(len(pair.one.scores) > 1 for pair, _ in there)
    return [
        None if one is None else _said(next(differences), *one, several=several) for one in found
    ]


def _pair(one: Cell, other: Cell) -> tuple[Pair, tuple[str, ...]] | None:
    """Return what is compared, and on which tasks."""
    if one.study.key != other.study.key:
        return None
    tasks = [task for task in gain_tasks(one) if task in gain_tasks(other)]
    tables, others = tables_of(one, tasks), tables_of(other, tasks)
    if tables is None or others is None:
        return None
    own, its = tables[0].scores, others[0].scores
    seeds = [seed for seed in own if seed in its]
    if other.steps == 0:  # one result, whatever the upstream seed
        seeds, its = list(own), dict.fromkeys(own, next(iter(its.values())))
    elif one.steps == 0:
        seeds, own = list(its), dict.fromkeys(its, next(iter(own.values())))
    if not seeds:
        return None
    pair = Pair(
        one=Replicates(name=one.key, scores={seed: own[seed] for seed in seeds}),
        other=Replicates(name=other.key, scores={seed: its[seed] for seed in seeds}),
        baseline=tables[1],
    )
    return pair, tuple(tasks)


def _said(difference: Difference, pair: Pair, tasks: tuple[str, ...], *, several: bool) -> Paired:
    data = pair.baseline.shape[1]
    levels = [*(["upstream seeds"] if several else []), *(["data seeds"] if data > 1 else [])]
    return Paired(
        difference=difference,
        upstream_seeds=tuple(pair.one.scores),
        data_seeds=data,
        tasks=tasks,
        levels=tuple(levels),
    )
