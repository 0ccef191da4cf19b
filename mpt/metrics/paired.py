"""Paired differences of configurations with one another, each pair with a baseline of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mpt.metrics.differences import (
    LEVEL,
    Difference,
    fitted_prior,
    kappa_of,
    tested,
    variance_of,
)
from mpt.metrics.moderation import Prior
from mpt.metrics.replicates import RESAMPLES, Replicates, args_on_draws


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two configurations on the same upstream seeds, tasks and data seeds."""

    one: Replicates
    other: Replicates
    """On the same upstream seeds as `one`."""
    baseline: np.ndarray
    """[T, D] test scores of plain prompt tuning; every task's mean must be positive."""


def paired_differences(
    pairs: Sequence[Pair], *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> list[Difference]:
    """Return `one` minus `other` of every pair, with intervals and uncorrected p.

    The variance of a mean difference is s²/U between its U upstream seeds, with s² moderated by
    that of all pairs, plus that over draws of data seeds (the same draw for both and the
    baseline); t has Satterthwaite's degrees of freedom of both. Where nothing says how far
    upstream seeds differ, it is the second part alone.

    Args:
        pairs: of one question, e.g. two methods on several partitions.
        rng: draws data seeds.
        resamples: draws.
    """
    rows, data = [], []
    for pair in pairs:
        seeds = list(pair.one.scores)
        if not seeds or seeds != list(pair.other.scores):
            raise ValueError("a pair needs the same upstream seeds on both sides, at least one")
        tables = [side.scores[seed] for side in (pair.one, pair.other) for seed in seeds]
        whole, drawn = args_on_draws(np.stack(tables), pair.baseline, rng, resamples)
        rows.append(list(whole[: len(seeds)] - whole[len(seeds) :]))
        gaps = (drawn[:, : len(seeds)] - drawn[:, len(seeds) :]).mean(1)
        kappa = kappa_of(pair.baseline.shape[1])
        data.append(kappa**2 * float(gaps.var()) if len(gaps) else 0.0)
    prior = fitted_prior(rows)
    return [
        _difference(row, prior, variance, pair.baseline)
        for row, variance, pair in zip(rows, data, pairs, strict=True)
    ]


def _difference(
    row: Sequence[float], prior: Prior, data: float, baseline: np.ndarray
) -> Difference:
    tasks, data_seeds = baseline.shape
    data_df = max(1, tasks * (data_seeds - 1))
    variance, _ = prior.moderate(variance_of(row), len(row) - 1)
    if math.isnan(variance) and data > 0:
        mean, spread = float(np.mean(row)), math.sqrt(data)
        half = float(stats.t.ppf(0.5 + LEVEL / 2, data_df)) * spread
        p = float(2 * stats.t.sf(abs(mean) / spread, data_df))
        return Difference(mean=mean, interval=(mean - half, mean + half), p=p, seeds=len(row))
    mean, interval, p_value = tested(row, prior, data, data_df)
    return Difference(mean=mean, interval=interval, p=p_value, seeds=len(row))
