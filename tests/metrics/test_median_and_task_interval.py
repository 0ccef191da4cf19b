"""Median relative gain, tasks with a baseline near zero, and the interval over tasks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mpt.metrics.relative_gain import Gain, average_relative_gain, interval_over_tasks


def _gain(gains: list[float], baseline: float = 0.5) -> Gain:
    """Return the ARG of tasks with these relative gains, one data seed each."""
    base = {f"t{n}": {1: baseline} for n in range(len(gains))}
    method = {f"t{n}": {1: baseline * (1 + gain)} for n, gain in enumerate(gains)}
    return average_relative_gain(method, base, list(base), [1], rng=np.random.default_rng(0))


def _interval(gain: Gain, root: int = 0, resamples: int = 20_000) -> tuple[float, float]:
    low, high = interval_over_tasks(gain, rng=np.random.default_rng(root), resamples=resamples)
    assert low is not None
    assert high is not None
    return low, high


def test_the_interval_over_tasks_has_binomial_ends_where_gains_are_0_or_1() -> None:
    # The mean of 40 draws from {0 × 28, 1 × 12} is Binomial(40, 0.3) / 40: its 2.5 % and 97.5 %
    # quantiles are known, and 20 000 draws cannot miss them (each has over 3 % of the mass).
    low, high = _interval(_gain([0.0] * 28 + [1.0] * 12))
    assert low == pytest.approx(100 * stats.binom.ppf(0.025, 40, 0.3) / 40, rel=1e-9)
    assert high == pytest.approx(100 * stats.binom.ppf(0.975, 40, 0.3) / 40, rel=1e-9)


def test_the_interval_over_seeds_has_binomial_ends_where_scores_are_0_or_1() -> None:
    # Baseline 1 at every seed: ARG = 100 · (mean of 40 draws − 1).
    seeds = list(range(40))
    method = {"a": {seed: float(seed < 12) for seed in seeds}}
    base = {"a": dict.fromkeys(seeds, 1.0)}
    rng = np.random.default_rng(0)
    gain = average_relative_gain(method, base, ["a"], seeds, rng=rng, resamples=20_000)
    assert gain.low == pytest.approx(100 * (stats.binom.ppf(0.025, 40, 0.3) / 40 - 1), rel=1e-9)
    assert gain.high == pytest.approx(100 * (stats.binom.ppf(0.975, 40, 0.3) / 40 - 1), rel=1e-9)


def test_equal_gains_leave_no_width_and_two_tasks_give_their_own_gains() -> None:
    assert _interval(_gain([0.25] * 5)) == pytest.approx((25.0, 25.0), rel=1e-9)
    # of two tasks each is drawn twice with probability 1/4
    assert _interval(_gain([-0.1, 0.3])) == pytest.approx((-10.0, 30.0), rel=1e-9)


def test_the_interval_over_tasks_follows_its_generator() -> None:
    gain = _gain([0.1, 0.2, 0.5, -0.3, 0.9])
    assert _interval(gain, 1, 200) == _interval(gain, 1, 200)
    assert _interval(gain, 1, 200) != _interval(gain, 2, 200)


def test_one_task_has_no_interval_over_tasks() -> None:
    assert interval_over_tasks(_gain([0.1]), rng=np.random.default_rng(0)) == (None, None)


@pytest.mark.parametrize(
    ("gains", "median"), [([0.1, 0.3, 9.0], 30.0), ([0.1, 0.3], 20.0), ([-0.5], -50.0)]
)
def test_the_median_is_the_middle_gain_in_percent(gains: list[float], median: float) -> None:
    assert _gain(gains).median_of_defined == pytest.approx(median, rel=1e-9)


def test_a_median_needs_a_gain() -> None:
    assert _gain([0.5], baseline=0.0).median_of_defined is None


@pytest.mark.parametrize(("baseline", "flagged"), [(0.0499, True), (0.05, False), (0.5, False)])
def test_baselines_below_five_hundredths_are_flagged(baseline: float, flagged: bool) -> None:
    assert _gain([0.2], baseline).near_zero == (("t0",) if flagged else ())


def test_a_task_without_a_gain_is_not_flagged_as_near_zero() -> None:
    assert _gain([0.2], baseline=-0.1).near_zero == ()
