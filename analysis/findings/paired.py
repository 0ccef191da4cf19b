"""The paired difference of two methods in ARG, with an interval over what was drawn by chance.

Two methods of one setting share their data seeds, their baseline and, as far as both have them,
their upstream seeds; what they share cancels in the difference

    Δ = mean over upstream seeds u of  A_a(u) − A_b(u),      A = ARG over prompt tuning, in %

and its interval holds

    Δ + κ (Δ(d) − Δ)                                   one upstream seed: data seeds alone
    Δ ± t √(s² / U + κ² Var Δ(d)),  U ≥ 2              upstream seeds × data seeds

with d a draw of data seeds with replacement within each task, the same for both methods and the
baseline, κ = √(D / (D − 1)), s² the variance of the differences over upstream seeds, and t with
the degrees of freedom of Satterthwaite (1946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from mpt.seeds import numpy_generator

from ..results.cells import Cell, Samples, scores_of
from ..results.protocols import scored_alike
from .settings import Replicates, learns

DRAWS = 2000
"""Draws of data seeds."""
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True, eq=False)
class Paired:
    """A difference of two ARGs in percentage points, or one ARG if the other side is None."""

    value: float
    deviations: np.ndarray
    """κ (Δ(d) − Δ) of every draw [B]; no rows with one data seed."""
    seed_variance: float
    """s² / U; NaN with one upstream seed."""
    seed_freedom: float
    """U − 1."""
    tasks: tuple[str, ...]
    """Tasks that both sides have whole, with a positive baseline."""
    of: int
    """Tasks of either side."""
    data_seeds: int
    upstream_seeds: int
    by_seed: tuple[float, ...] = ()
    """One difference an upstream seed, in the order of the seeds; none of a mean over settings."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None with one data seed and one upstream seed."""
        return self.ends(LEVEL)

    def ends(self, level: float) -> tuple[float, float] | None:
        """Return the interval that covers with this probability, as `interval`."""
        if math.isnan(self.seed_variance):
            drawn = self._drawn
            if not len(drawn):
                return None
            low, high = np.percentile(self.value + drawn, [50 * (1 - level), 50 * (1 + level)])
            return float(low), float(high)
        spread, freedom = self._spread
        half = float(stats.t.ppf(0.5 + level / 2, freedom)) * spread if spread else 0.0
        return self.value - half, self.value + half

    @property
    def p(self) -> float | None:
        """Two-sided, not corrected; None with one upstream seed."""
        if math.isnan(self.seed_variance):
            return None
        spread, freedom = self._spread
        if not spread:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.value) / spread, freedom))

    @property
    def _drawn(self) -> np.ndarray:
        return self.deviations[~np.isnan(self.deviations)]

    @property
    def _spread(self) -> tuple[float, float]:
        """Standard error of the difference and its degrees of freedom, with several seeds."""
        drawn = self._drawn
        data = float(drawn.var()) if len(drawn) else 0.0
        total = self.seed_variance + data
        if total <= 0:
            return 0.0, 1.0
        data_freedom = max(1, len(self.tasks) * (self.data_seeds - 1))
        freedom = total**2 / (self.seed_variance**2 / self.seed_freedom + data**2 / data_freedom)
        return math.sqrt(total), freedom

    @property
    def sign(self) -> int:
        """+1 or −1 where the interval excludes 0; 0 where the two cannot be told apart."""
        ends = self.interval
        return 0 if ends is None else int(ends[0] > 0) - int(ends[1] < 0)


def paired(one: Replicates, other: Replicates | None) -> Paired | None:
    """Return ARG of one method minus that of another, in %.

    Args:
        one: cells by upstream seed.
        other: the same of the other method; None: plain prompt tuning, whose ARG is 0. Where the
            two were scored on different data (other sample sizes), data seeds are drawn for each
            on its own.

    Returns:
        None if they have no upstream seed, or no whole task, in common.
    """
    sides = [one] if other is None else [one, other]
    moving = [set(cells) for cells in sides if learns(cells)]
    seeds = sorted(set.intersection(*moving)) if moving else [next(iter(one))]
    rows = [_at(cells, seeds) for cells in sides]
    cells = [cell for row in rows for cell in row]
    every = {task for cell in cells for task in cell.tasks}
    tasks = tuple(sorted(task for task in every if all(_whole(cell, task) for cell in cells)))
    if not seeds or not tasks:
        return None
    alike = scored_alike(cells[0].study, cells[-1].study)
    differences, drawn = _args(rows[0], tasks, "")
    if other is not None:
        theirs, theirs_drawn = _args(rows[1], tasks, "" if alike else "other")
        differences, drawn = differences - theirs, drawn - theirs_drawn
    value, count = float(differences.mean()), len(cells[0].seeds)
    kappa = math.sqrt(count / max(1, count - 1))
    several = len(seeds) > 1
    return Paired(
        value=value,
        deviations=kappa * (drawn - value),
        seed_variance=float(differences.var(ddof=1)) / len(seeds) if several else math.nan,
        seed_freedom=len(seeds) - 1,
        tasks=tasks,
        of=len(every),
        data_seeds=count,
        upstream_seeds=len(seeds),
        by_seed=tuple(map(float, differences)),
    )


def mean_of(pairs: Sequence[Paired]) -> Paired:
    """Return the mean of differences over settings (at least one).

    The same task is drawn alike in every setting, so settings that share target tasks do not count
    as independent; their upstream trajectories do.
    """
    count = len(pairs)
    drawn = min(len(one.deviations) for one in pairs)
    variances = [one.seed_variance / count**2 for one in pairs]
    total = math.fsum(variances)
    parts = math.fsum(
        v**2 / max(1.0, p.seed_freedom) for v, p in zip(variances, pairs, strict=True)
    )
    return Paired(
        value=math.fsum(one.value for one in pairs) / count,
        deviations=np.mean([one.deviations[:drawn] for one in pairs], axis=0),
        seed_variance=total,
        seed_freedom=total**2 / parts if total > 0 else 1.0,
        tasks=tuple(sorted({task for one in pairs for task in one.tasks})),
        of=max(one.of for one in pairs),
        data_seeds=min(one.data_seeds for one in pairs),
        upstream_seeds=min(one.upstream_seeds for one in pairs),
    )


def crossed_mean(pairs: Sequence[Paired]) -> Paired:
    """Return the mean of differences over settings that have the same upstream seeds.

    Means are taken over settings within each upstream seed first, and the spread is that between
    seeds: settings in which a seed has learned the same prompt, such as other downstream budgets
    or targets of the same sources, are then not taken for independent.

    Args:
        pairs: at least one; all of the same upstream seeds.
    """
    rows = {len(one.by_seed) for one in pairs}
    if len(rows) != 1 or 0 in rows:
        raise ValueError(f"pairs have {sorted(rows)} upstream seeds, but must have the same")
    by_seed = np.mean([one.by_seed for one in pairs], axis=0)
    seeds = len(by_seed)
    return replace(
        mean_of(pairs),
        seed_variance=float(by_seed.var(ddof=1)) / seeds if seeds > 1 else math.nan,
        seed_freedom=seeds - 1,
        by_seed=tuple(map(float, by_seed)),
    )


def _at(cells: Replicates, seeds: Sequence[int]) -> list[Cell]:
    """Return the cells at upstream seeds; one that learns nothing upstream is the same at all."""
    return [cells[seed] if learns(cells) else next(iter(cells.values())) for seed in seeds]


def _whole(cell: Cell, task: str) -> bool:
    """Return whether a cell and its baseline have every data seed of a task, the latter > 0."""
    if not all(_scored(side, task, cell) for side in (cell.tasks, cell.baseline)):
        return False
    return math.fsum(scores_of(cell.baseline)[task].values()) > 0


def _scored(samples: Samples, task: str, cell: Cell) -> bool:
    row = samples.get(task, {})
    return all(seed in row and row[seed].taken is not None for seed in cell.seeds)


def _args(row: Sequence[Cell], tasks: Sequence[str], salt: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ARG of every upstream seed [U], and the draws of their mean [B]."""
    seeds = row[0].seeds
    base = _table(row[0].baseline, tasks, seeds)  # [T, D]
    scores = np.stack([_table(cell.tasks, tasks, seeds) for cell in row])  # [U, T, D]
    whole = 100 * (scores.mean(2) / base.mean(1) - 1).mean(1)
    mean = scores.mean(0)
    drawn = np.full((DRAWS if len(seeds) > 1 else 0, len(tasks)), np.nan)
    for at, task in enumerate(tasks if len(drawn) else ()):
        rng = numpy_generator(row[0].train_seed, "bootstrap", "paired", task, salt)
        draw = rng.integers(len(seeds), size=(DRAWS, len(seeds)))
        below = base[at][draw].mean(1)
        fine = below > 0
        drawn[fine, at] = 100 * (mean[at][draw].mean(1)[fine] / below[fine] - 1)
    return whole, drawn.mean(1)


def _table(samples: Samples, tasks: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Return test scores [tasks, data seeds]."""
    scores = scores_of(samples)
    return np.array([[scores[task][seed] for seed in seeds] for task in tasks])
