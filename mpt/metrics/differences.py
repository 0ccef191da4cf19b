"""Differences between configurations on the same upstream seeds: intervals, tests, corrections."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpt.metrics.distributions import t_quantile, t_tail
from mpt.metrics.moderation import Prior, fit_prior

LEVEL = 0.95
"""Coverage of all intervals, and 1 − the error rate of the family of tests against the leader."""

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A configuration minus another, on the upstream seeds both have."""

    mean: float
    """ARG points."""
    interval: Interval | None
    """95 %, not corrected; None if no two upstream seeds say how far seeds differ."""
    p: float | None
    """Two-sided; of a difference to a leader, corrected for all comparisons with it."""
    seeds: int
    """Upstream seeds it is made of."""


def variance_of(values: Sequence[float]) -> float:
    """Return the sample variance; NaN of one value."""
    return float(np.var(values, ddof=1)) if len(values) > 1 else math.nan


def kappa_of(data_seeds: int) -> float:
    """Return κ = √(D / (D − 1)), which makes up for how few data seeds there are to draw from."""
    return math.sqrt(data_seeds / max(1, data_seeds - 1))


def fitted_prior(rows: Sequence[Sequence[float]]) -> Prior:
    """Return what the spread within rows is like; those of one value say nothing."""
    several = [row for row in rows if len(row) > 1]
    return fit_prior([variance_of(row) for row in several], [len(row) - 1 for row in several])


def tested(
    row: Sequence[float], prior: Prior, data: float, data_df: int
) -> tuple[float, Interval | None, float | None]:
    """Return mean, interval and uncorrected p of differences by upstream seed.

    Args:
        row: one difference an upstream seed.
        prior: of the differences of all configurations.
        data: variance of their mean over draws of data seeds.
        data_df: degrees of freedom of that variance.
    """
    mean = float(np.mean(row))
    variance, df = prior.moderate(variance_of(row), len(row) - 1)
    if math.isnan(variance):
        return mean, None, None
    seeds = variance / len(row)
    total = seeds + data
    if total <= 0:
        return mean, (mean, mean), 1.0 if mean == 0 else 0.0
    spread = math.sqrt(total)
    freedom = total**2 / (seeds**2 / min(df, 1e6) + data**2 / data_df)
    half = float(t_quantile(0.5 + LEVEL / 2, freedom)) * spread
    return mean, (mean - half, mean + half), 2 * t_tail(abs(mean) / spread, freedom)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number by Holm's step-down rule."""
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p, key=lambda n: p[n])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = highest
    return corrected
