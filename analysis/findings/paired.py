"""The paired difference of two methods in ARG, with an interval over what was drawn by chance.

Two methods of one setting share their data seeds, their baseline and, as far as both have them,
their upstream seeds; what they share cancels in the difference

    Δ = mean over upstream seeds u of  A_a(u) − A_b(u),      A = ARG over prompt tuning, in %

and its interval holds

    Δ + κ (Δ(d) − Δ)                          one upstream seed: data seeds alone
    Δ + κ (Δ(d) − Δ) + t √(s² / U),  U ≥ 2    upstream seeds × data seeds

with d a draw of data seeds with replacement within each task, the same for both methods and the
baseline, κ = √(D / (D − 1)), s² the variance of the differences over upstream seeds, moderated by
that of all differences of one question as in the ranking of a search (two or three seeds say
little alone: `mpt.metrics.moderation`), and t with its degrees of freedom (of a mean over settings
those of Satterthwaite 1946). So the interval of a method against plain tuning is that of its cell,
and keeps the skew that a low baseline gives it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

from mpt.metrics.moderation import Prior, fit_prior
from mpt.seeds import numpy_generator

from ..results.cells import Cell, Samples, scores_of
from ..results.protocols import scored_alike
from .settings import Replicates, learns

DRAWS = 2000
"""Draws of data seeds."""
THINNED = 200
"""Quantiles of these draws that an interval with upstream seeds is made of."""
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
    """Degrees of freedom of s²: U − 1, and those of the other differences once moderated."""
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
        centres = self.value + _thinned(self._drawn)
        return _quantiles(centres, math.sqrt(self.seed_variance), self.seed_freedom, level)

    @property
    def p(self) -> float | None:
        """Two-sided, not corrected: 1 − the level whose interval ends at 0; None with one seed."""
        if math.isnan(self.seed_variance):
            return None
        centres = self.value + _thinned(self._drawn)
        scale = math.sqrt(self.seed_variance)
        far = np.where(centres == 0, 0, -np.copysign(np.inf, centres))  # where no seed differs
        at_zero = -centres / scale if scale > 0 else far
        below = float(stats.t.cdf(at_zero, self.seed_freedom).mean())
        return 2 * min(below, 1 - below)

    @property
    def _drawn(self) -> np.ndarray:
        return self.deviations[~np.isnan(self.deviations)]

    @property
    def sign(self) -> int:
        """+1 or −1 where the interval excludes 0; 0 where the two cannot be told apart."""
        return side_of(self.interval)


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """Test scores of one method, fractions."""

    scores: np.ndarray
    """[U, T, D]: upstream seeds, tasks, data seeds."""
    base: np.ndarray
    """[T, D]: those of plain prompt tuning; every task's mean is positive."""


def side_of(interval: tuple[float, float] | None) -> int:
    """Return +1 or −1 where an interval excludes 0, else 0."""
    return 0 if interval is None else int(interval[0] > 0) - int(interval[1] < 0)


def _thinned(drawn: np.ndarray) -> np.ndarray:
    """Return at most 200 values that are spread as the draws are; 0 without any."""
    ranks = (np.arange(THINNED) + 0.5) / THINNED
    return np.quantile(drawn, ranks) if len(drawn) else np.zeros(1)


def _quantiles(
    centres: np.ndarray, scale: float, freedom: float, level: float
) -> tuple[float, float]:
    """Return the ends of the middle `level` of a centre drawn at random plus `scale` · t."""
    if scale <= 0:
        low, high = np.percentile(centres, [50 * (1 - level), 50 * (1 + level)])
        return float(low), float(high)

    def end(rank: float) -> float:
        """Between the quantiles around the lowest and the highest centre alone."""
        off = scale * float(stats.t.ppf(rank, freedom))
        below, above = float(centres.min()) + off, float(centres.max()) + off
        if above - below <= 1e-12 * scale:
            return below
        return float(
            optimize.brentq(
                lambda x: stats.t.cdf((x - centres) / scale, freedom).mean() - rank, below, above
            )
        )

    return end(0.5 - level / 2), end(0.5 + level / 2)


def paired(one: Replicates, other: Replicates | None) -> Paired | None:
    """Return ARG of one method minus that of another, in %.

    Args:
        one: cells by upstream seed.
        other: the same of the other method; None: plain prompt tuning, whose ARG is 0. Where the
            two were scored on different data (other sample sizes), data seeds are drawn for each
            on its own.

    Returns:
        The difference, its s² from its own upstream seeds alone (see `moderated`); None if they
        have no upstream seed, or no whole task, in common.
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
    side, *others = (_side(row, tasks) for row in rows)
    return paired_of(
        side,
        others[0] if others else None,
        tasks=tasks,
        of=len(every),
        train_seed=cells[0].train_seed,
        alike=alike,
    )


def paired_of(
    one: Side,
    other: Side | None,
    *,
    tasks: Sequence[str],
    train_seed: int,
    of: int | None = None,
    alike: bool = True,
) -> Paired:
    """Return ARG of one side minus that of another, in %, from their test scores.

    Args:
        one: of one method.
        other: of the other method, with as many upstream seeds; None: plain prompt tuning.
        tasks: names of the T tasks: the same draws of data seeds wherever a task is compared.
        train_seed: root of these draws.
        of: tasks of either side, those that are not compared too; None: T.
        alike: whether both were scored on the same data.
    """
    differences, drawn = _args(one, tasks, train_seed, "")
    if other is not None:
        theirs, theirs_drawn = _args(other, tasks, train_seed, "" if alike else "other")
        differences, drawn = differences - theirs, drawn - theirs_drawn
    value, count = float(differences.mean()), one.base.shape[1]
    kappa = math.sqrt(count / max(1, count - 1))
    seeds = len(differences)
    return Paired(
        value=value,
        deviations=kappa * (drawn - value),
        seed_variance=float(differences.var(ddof=1)) / seeds if seeds > 1 else math.nan,
        seed_freedom=seeds - 1,
        tasks=tuple(tasks),
        of=len(tasks) if of is None else of,
        data_seeds=count,
        upstream_seeds=seeds,
        by_seed=tuple(map(float, differences)),
    )


def moderated(pairs: Sequence[Paired]) -> list[Paired]:
    """Return the differences of one question, each s² made steadier by what all of them show.

    Those of one upstream seed stay as they are: their intervals are over data seeds, and say so.
    """
    several = [one for one in pairs if one.upstream_seeds > 1]
    prior = fit_prior(
        [one.seed_variance * one.upstream_seeds for one in several],
        [one.upstream_seeds - 1 for one in several],
    )
    return [_moderated(one, prior) if one.upstream_seeds > 1 else one for one in pairs]


def _moderated(one: Paired, prior: Prior) -> Paired:
    own = one.seed_variance * one.upstream_seeds
    variance, freedom = prior.moderate(own, one.upstream_seeds - 1)
    return replace(one, seed_variance=variance / one.upstream_seeds, seed_freedom=freedom)


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
    return all(seed in row and row[seed].test is not None for seed in cell.seeds)


def _side(row: Sequence[Cell], tasks: Sequence[str]) -> Side:
    seeds = row[0].seeds
    return Side(
        scores=np.stack([_table(cell.tasks, tasks, seeds) for cell in row]),
        base=_table(row[0].baseline, tasks, seeds),
    )


def _args(
    side: Side, tasks: Sequence[str], train_seed: int, salt: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return ARG of every upstream seed [U], and the draws of their mean [B]."""
    base, seeds = side.base, side.base.shape[1]
    whole = 100 * (side.scores.mean(2) / base.mean(1) - 1).mean(1)
    mean = side.scores.mean(0)
    drawn = np.full((DRAWS if seeds > 1 else 0, len(tasks)), np.nan)
    for at, task in enumerate(tasks if len(drawn) else ()):
        rng = numpy_generator(train_seed, "bootstrap", "paired", task, salt)
        draw = rng.integers(seeds, size=(DRAWS, seeds))
        below = base[at][draw].mean(1)
        fine = below > 0
        drawn[fine, at] = 100 * (mean[at][draw].mean(1)[fine] / below[fine] - 1)
    return whole, drawn.mean(1)


def _table(samples: Samples, tasks: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Return test scores [tasks, data seeds]."""
    scores = scores_of(samples)
    return np.array([[scores[task][seed] for seed in seeds] for task in tasks])
