"""Differences to the best multitask learning, corrected for how many are compared, and a verdict.

In every arena the reference is the multitask contestant with the highest mean ARG there; pooled it
is the one with the highest mean over arenas. It is taken on the very runs that are compared, which
can only raise it: what beats it has beaten all. The pooled difference is the mean over arenas
within each upstream seed, so that arenas that share a learned prompt are not taken for
independent. Intervals of the pooled differences are simultaneous (Bonferroni) over all contestants
that are compared, p is corrected by Holm's rule; those of arenas and partitions are by themselves,
which makes a loss easier to see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpt.metrics.differences import holm
from mpt.study.contest.passes import spent_passes, unequal
from mpt.words import counted

from ..findings.paired import LEVEL, Paired, crossed_mean, paired, side_of
from ..results.cells import Cell
from ..results.names import partition_label
from .arenas import Arena, Confirmed

CONSISTENT = "consistently better than the best multitask learning"
LEAST_SEEDS = 8
"""Fresh upstream seeds that this may be said on."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """One contestant against the best multitask learning."""

    name: str
    pooled: Paired
    interval: tuple[float, float] | None
    """Simultaneous 95 % interval of the pooled difference."""
    p: float | None
    """Corrected by Holm's rule."""
    partitions: Mapping[str, Paired]
    """Partition → mean difference over its arenas to the best of each."""
    arenas: Mapping[Arena, Paired]
    """Arena → difference to the best there."""

    @property
    def won(self) -> int:
        """Upstream seeds with a pooled difference above 0."""
        return sum(value > 0 for value in self.pooled.by_seed)

    @property
    def clear(self) -> int:
        """+1 or −1 where the simultaneous interval excludes 0, else 0."""
        return side_of(self.interval)

    def partitions_of(self, sign: int) -> list[str]:
        """Return labels of the partitions that are clearly won (+1), lost (−1) or neither (0)."""
        return [partition_label(n) for n, one in self.partitions.items() if one.sign == sign]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the confirmation says."""

    confirmed: Confirmed
    args: Mapping[Arena, Mapping[str, tuple[float, ...]]]
    """Arena → contestant → ARG in % of every upstream seed."""
    best: Mapping[Arena, str]
    """Arena → its best multitask learning."""
    best_pooled: str
    against: tuple[Against, ...]
    """All others, the highest pooled difference first."""
    passes: Mapping[str, float]
    """Contestant → mean row passes that its points have cost."""
    unequal: tuple[str, ...]
    """Budgets that differ from the matched one, one line each."""

    def pooled_arg(self, name: str) -> float:
        """Return the mean ARG of a contestant over arenas and upstream seeds."""
        return float(np.mean([row[name] for row in self.args.values()]))

    @property
    def sentences(self) -> list[str]:
        """The verdict in words, one sentence a contestant, after what it leaves out."""
        smoke = "Smoke run, the numbers mean nothing: " if self.confirmed.smoke else ""
        part = "; ".join(self.confirmed.left_out)
        left_out = [f"{smoke}A part of the results alone: {part}."] if part else []
        return left_out + [smoke + _sentence(one, self) for one in self.against]


def judge(confirmed: Confirmed) -> Verdict:
    """Compare all contestants of a confirmation with the best multitask learning."""
    names, arenas = confirmed.contestants, confirmed.arenas
    args = {arena: {name: _args(row[name]) for name in names} for arena, row in arenas.items()}
    best = {a: max(confirmed.references, key=lambda n: np.mean(args[a][n])) for a in args}
    pooled = max(confirmed.references, key=lambda n: np.mean([row[n] for row in args.values()]))
    others = [name for name in names if name != pooled]
    differences = {
        name: _difference(confirmed, name, dict.fromkeys(args, pooled)) for name in others
    }
    means = {name: crossed_mean(list(own.values())) for name, own in differences.items()}
    raw = {name: one.p for name, one in means.items() if one.p is not None}
    corrected, level = holm(raw), 1 - (1 - LEVEL) / max(1, len(others))
    against = [
        Against(
            name=name,
            pooled=one,
            interval=one.ends(level),
            p=corrected.get(name),
            arenas=(own := _difference(confirmed, name, best)),
            partitions=_by_partition(own),
        )
        for name, one in means.items()
    ]
    passes = {
        name: float(
            np.mean([spent_passes(c.point) for r in arenas.values() for c in r[name].values()])
        )
        for name in names
    }
    return Verdict(
        confirmed=confirmed,
        args=args,
        best=best,
        best_pooled=pooled,
        against=tuple(sorted(against, key=lambda one: -one.pooled.value)),
        passes=passes,
        unequal=tuple(unequal(passes, confirmed.frozen.row_passes)),
    )


def _args(cells: Mapping[int, Cell]) -> tuple[float, ...]:
    one = paired(cells, None)
    assert one is not None, "a complete cell without a task that has a baseline above 0"
    return one.by_seed


def _difference(
    confirmed: Confirmed, name: str, references: Mapping[Arena, str]
) -> dict[Arena, Paired]:
    """Return arena → difference of a contestant to the reference there."""
    differences = {}
    for arena, row in confirmed.arenas.items():
        one = paired(row[name], row[references[arena]])
        assert one is not None, "a complete cell without a task that has a baseline above 0"
        differences[arena] = one
    return differences


def _by_partition(own: Mapping[Arena, Paired]) -> dict[str, Paired]:
    groups: dict[str, list[Paired]] = {}
    for arena, one in own.items():
        groups.setdefault(arena.partition, []).append(one)
    return {name: crossed_mean(pairs) for name, pairs in groups.items()}


def _sentence(one: Against, verdict: Verdict) -> str:
    """Say what was found of a contestant; "consistently" only if nothing speaks against it."""
    best, ends = verdict.best_pooled, one.interval
    where = "" if ends is None else f" [{ends[0]:+.1f}, {ends[1]:+.1f}]"
    count = len(one.partitions)
    value = f"{one.pooled.value:+.1f}{where} points of ARG over {counted(count, 'partition')}"
    lost = one.partitions_of(-1)
    tail = f"clearly lost: {', '.join(lost)}" if lost else "no partition is clearly lost"
    against = _objections(one, verdict)
    if one.clear > 0 and not against:
        return f"{one.name} is {CONSISTENT} ({best}): {value}; {tail}."
    if one.clear > 0:
        why = "; ".join(against)
        return f"{one.name} is better than {best} in the mean, not consistently: {value}; {why}."
    if one.clear < 0:
        return f"{one.name} is worse than {best}: {value}; {tail}."
    return f"{one.name} cannot be told from {best}: {value}; {tail}."


def _objections(one: Against, verdict: Verdict) -> list[str]:
    """Return what forbids to call a contestant that is better pooled consistently better."""
    confirmed, lost = verdict.confirmed, one.partitions_of(-1)
    objections = [f"clearly lost: {', '.join(lost)}"] if lost else []
    if len(confirmed.seeds) < LEAST_SEEDS:
        seeds = counted(len(confirmed.seeds), "upstream seed")
        objections.append(f"{seeds}, and a claim needs {LEAST_SEEDS}")
    if confirmed.missing:
        objections.append(f"{counted(len(confirmed.missing), 'point')} missing")
    if not confirmed.kept:
        objections.append("the frozen settings are not those that the confirmation began with")
    if confirmed.left_out:
        objections.append("a part of the results")
    return [*objections, "a smoke run"] if confirmed.smoke else objections


def order_of(verdict: Verdict) -> Sequence[str]:
    """Return the contestants, the highest mean ARG first."""
    return sorted(verdict.confirmed.contestants, key=lambda name: -verdict.pooled_arg(name))
