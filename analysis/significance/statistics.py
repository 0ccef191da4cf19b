"""Tests and intervals for a mean over few tasks.

Two questions can be asked of a mean over tasks, and they have different units:

* about other tasks of the kind: the task is the unit. Its data seeds are nested in it and are
  averaged first; their noise is part of how the tasks scatter, and is not drawn again. The test
  is the paired sign-flip test (`sign_flip`), the interval its inversion.
* about these very tasks: the tasks stay and the data seed is the unit, drawn within each task
  (`fixed_tasks`).

Sources: Fisher (1935) for the sign-flip test, Hartigan, JASA 64 (1969) for the inversion by means
of subsets, Welch (1947) and Satterthwaite (1946) for the degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05
"""Two-sided level of every test; intervals have 1 − LEVEL = 95 %."""
EXACT = 20
"""Most values of which all sign patterns are gone through (2¹⁹ pairs); above, they are drawn."""
DRAWS = 99_999
"""Sign patterns that are drawn above `EXACT`."""
_ROUNDING = 1e-9
"""Share of Σ|value| below which two sums of float64 count as equal."""


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """A mean with its test against 0; unit is that of the values."""

    value: float
    low: float | None
    """Lower end of the 95 % interval; both ends are None if so few values have none."""
    high: float | None
    p: float
    """Two-sided, not corrected."""


def sign_flip(values: Sequence[float], rng: np.random.Generator) -> Estimated:
    """Test whether values are symmetric about 0, by their mean, and give the interval of the test.

    Under the null each value is as likely as its negative. p is the share of sign patterns whose
    |mean| is at least the one found; it is exact for any such distribution, and never below
    2^(1 − n). The interval holds every θ that the test of (value − θ) does not reject at 5 %; it
    is absent below six values, where p cannot reach 5 %.

    Args:
        values: one a task, at least one.
        rng: draws the patterns of more than `EXACT` values; not used below.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"values are {list(values)}, but must be finite numbers, at least one")
    sums, sizes = (_all_subsets if array.size <= EXACT else _some_subsets)(array, rng)
    total, count = array.sum(), array.size
    # A pattern that flips a subset has the sum total − 2·(its sum); a subset and its complement
    # give ± the same sum and count once. The pattern as found (nothing flipped) is the "+ 1".
    slack = _ROUNDING * np.abs(array).sum()
    extreme = np.abs(total - 2 * sums) >= abs(total) - slack
    patterns = 1 + sums.size
    p = float(1 + extreme.sum()) / patterns
    # (value − θ) is not rejected while more than LEVEL of the patterns are as extreme, and for θ
    # below the mean those are the subsets (or complements) whose own mean is at most θ.
    order = math.floor(LEVEL * patterns + _ROUNDING)
    low = high = None
    if order >= 1:
        means = np.stack([sums / sizes, (total - sums) / (count - sizes)])
        low = float(np.partition(means.min(axis=0), order - 1)[order - 1])
        high = float(np.partition(means.max(axis=0), -order)[-order])
    return Estimated(value=float(array.mean()), low=low, high=high, p=p)


def _all_subsets(array: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (sum, size) of one subset of each complementary pair, without the empty one."""
    sums, sizes = np.zeros(1), np.zeros(1)
    for value in array[:-1]:  # the last value is always in the complement
        sums = np.concatenate([sums, sums + value])
        sizes = np.concatenate([sizes, sizes + 1])
    return sums[1:], sizes[1:]


def _some_subsets(array: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (sum, size) of `DRAWS` subsets, drawn evenly; none is empty or whole."""
    flipped = rng.integers(2, size=(DRAWS, array.size), dtype=np.int8)
    sizes = flipped.sum(axis=1)
    proper = (sizes > 0) & (sizes < array.size)
    return flipped[proper] @ array, sizes[proper].astype(np.float64)


def t_interval(values: Sequence[float]) -> Estimated:
    """Return the mean with the t test and t interval (n − 1 degrees of freedom).

    Args:
        values: one a task, at least two.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise ValueError(f"values are {list(values)}, but a t interval needs at least two")
    return _student(float(array.mean()), float(array.var(ddof=1)) / array.size, array.size - 1)


def fixed_tasks(gain: np.ndarray, baseline: np.ndarray) -> Estimated:
    """Return the mean over tasks of mean gain / mean baseline; only data seeds are random.

    The ratio of each task is linearised (delta method): with R its ratio, the data seeds have the
    residuals (gain − R·baseline) / mean baseline, which keeps a method and its baseline paired on
    their few-shot sample. Tasks are independent; Student's t has Welch's and Satterthwaite's
    degrees of freedom. A percentile bootstrap of five seeds is narrower by √(4/5) or more.

    Args:
        gain: score minus reference, [tasks, data seeds], at least two seeds.
        baseline: score of plain prompt tuning, same shape, with a positive mean in each task.
    """
    tasks, seeds = gain.shape
    if seeds < 2 or baseline.shape != gain.shape or not (baseline.mean(axis=1) > 0).all():
        raise ValueError("scores must be [tasks, ≥ 2 data seeds] with positive baselines")
    base = baseline.mean(axis=1, keepdims=True)
    ratio = gain.mean(axis=1, keepdims=True) / base
    each = ((gain - ratio * baseline) / base).var(axis=1, ddof=1) / seeds / tasks**2
    variance = float(each.sum())
    freedom = variance**2 / float((each**2).sum()) * (seeds - 1) if variance > 0 else 1.0
    return _student(float(ratio.mean()), variance, freedom)


def _student(value: float, variance: float, freedom: float) -> Estimated:
    error = math.sqrt(variance)
    if error <= _ROUNDING * abs(value):  # no scatter: the value is what it is
        return Estimated(value=value, low=value, high=value, p=1.0 if value == 0 else 0.0)
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    return Estimated(value=value, low=value - half, high=value + half, p=p)
