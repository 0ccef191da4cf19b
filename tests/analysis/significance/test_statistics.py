"""Tests and intervals over tasks and data seeds: references, closed forms, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.significance import statistics
from analysis.significance.statistics import fixed_tasks, sign_flip, t_interval


def _rng(root: int = 0) -> np.random.Generator:
    return np.random.default_rng(root)


def _skewed(root: int, count: int) -> list[float]:
    """Gains as tables of scores have them: most are small, some are large."""
    rng = _rng(root)
    return (rng.standard_t(2, size=count) + rng.uniform(-1, 1)).tolist()


def test_three_gains_of_one_sign_are_the_most_extreme_of_four_pairs_of_patterns() -> None:
    # 2³ patterns; only +++ and −−− have |sum| = 6
    found = sign_flip([1.0, 2.0, 3.0], _rng())
    assert (found.value, found.p) == (2.0, 0.25)
    # |1 + 2 − 3| = 0 is the least extreme
    assert sign_flip([1.0, 2.0, -3.0], _rng()).p == 1.0
    # |−1 + 2 + 3| = 4: as extreme are ±(−1 2 3) and ±(1 2 3)
    assert sign_flip([-1.0, 2.0, 3.0], _rng()).p == 0.5


@pytest.mark.parametrize("count", [4, 7, 10])
def test_the_sign_flip_test_is_the_exact_paired_permutation_test_of_scipy(count: int) -> None:
    for root in range(5):
        values = _skewed(root, count)
        reference = stats.permutation_test(
            (np.array(values), np.zeros(count)),
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
        )
        assert sign_flip(values, _rng()).p == pytest.approx(reference.pvalue, abs=1e-12)


@pytest.mark.parametrize("count", [6, 9, 12])
def test_the_interval_holds_what_the_test_does_not_reject_and_nothing_else(count: int) -> None:
    for root in range(5):
        values = np.array(_skewed(root, count))
        found = sign_flip(values.tolist(), _rng())
        assert found.low is not None
        assert found.high is not None
        near = 1e-6
        for inside in (found.low + near, found.value, found.high - near):
            assert sign_flip((values - inside).tolist(), _rng()).p > 0.05
        for outside in (found.low - near, found.high + near):
            assert sign_flip((values - outside).tolist(), _rng()).p <= 0.05


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_below_six_values_nothing_is_different_and_there_is_no_interval(count: int) -> None:
    found = sign_flip([5.0] * count, _rng())
    assert found.p == 2.0 ** (1 - count) > 0.05
    assert (found.low, found.high) == (None, None)


def test_six_values_have_an_interval_from_the_least_to_the_greatest() -> None:
    # 32 pairs of patterns, 5 % of them is 1.6: only the most extreme pair is rejected
    found = sign_flip([1.0, 2.0, 3.0, 5.0, 8.0, 13.0], _rng())
    assert (found.low, found.high) == (1.0, 13.0)
    assert found.p == 2.0**-5


def test_no_scatter_about_zero_is_no_difference() -> None:
    found = sign_flip([0.0] * 12, _rng())
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_the_test_and_its_interval_turn_round_and_scale_with_the_values() -> None:
    values = np.array(_skewed(3, 11))
    plain, turned = (sign_flip((k * values).tolist(), _rng()) for k in (1.0, -100.0))
    assert turned.p == plain.p
    assert plain.low is not None
    assert plain.high is not None
    assert (turned.low, turned.high) == (
        pytest.approx(-100 * plain.high),
        pytest.approx(-100 * plain.low),
    )


def test_drawn_patterns_come_near_all_patterns_and_repeat_with_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = _skewed(1, 14)
    exact = sign_flip(values, _rng())
    monkeypatch.setattr(statistics, "EXACT", 5)
    drawn, again, other = (sign_flip(values, _rng(root)) for root in (7, 7, 8))
    assert drawn == again
    assert drawn != other
    # 99 999 patterns: the standard error of p is below 0.0016
    assert drawn.p == pytest.approx(exact.p, abs=0.008)
    assert drawn.low == pytest.approx(exact.low, abs=0.1)
    assert drawn.high == pytest.approx(exact.high, abs=0.1)


def test_over_twenty_values_work_and_find_a_large_effect() -> None:
    found = sign_flip((_rng().normal(size=40) + 2).tolist(), _rng(1))
    assert found.p < 1e-4
    assert found.low is not None
    assert 1 < found.low < found.value


def test_symmetric_noise_of_any_tail_is_called_different_in_5_percent() -> None:
    for draw in (lambda r: r.normal(size=12), lambda r: r.standard_cauchy(size=12)):
        rng = _rng(5)
        rate = np.mean([sign_flip(draw(rng), rng).p <= 0.05 for _ in range(3000)])
        # standard error 0.004; exact tests have at most 0.05
        assert 0.036 < rate < 0.062


def test_the_interval_of_the_test_covers_the_mean_in_95_percent() -> None:
    rng = _rng(6)
    hits = 0
    for _ in range(2000):
        found = sign_flip(rng.laplace(loc=3.0, size=12).tolist(), rng)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 3.0 <= found.high
    assert 0.935 < hits / 2000 < 0.967


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_values_that_are_no_numbers_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="must be finite numbers"):
        sign_flip(values, _rng())


def test_the_t_interval_is_that_of_scipy() -> None:
    values = _skewed(2, 9)
    found, reference = t_interval(values), stats.ttest_1samp(values, 0)
    interval = reference.confidence_interval(0.95)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    with pytest.raises(ValueError, match="at least two"):
        t_interval([1.0])


def test_values_without_scatter_have_an_interval_of_no_width() -> None:
    found = t_interval([2.0] * 4)
    assert (found.value, found.low, found.high, found.p) == (2.0, 2.0, 2.0, 0.0)
    assert t_interval([0.0] * 4).p == 1.0


def test_one_fixed_task_with_a_constant_baseline_is_a_t_test_over_its_data_seeds() -> None:
    gain = _rng(4).normal(0.1, 0.05, size=(1, 5))
    found = fixed_tasks(gain, np.full((1, 5), 0.4))
    reference = stats.ttest_1samp(gain[0] / 0.4, 0)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-12)
    assert found.low == pytest.approx(reference.confidence_interval(0.95).low, rel=1e-12)


def test_two_fixed_tasks_have_the_standard_error_and_freedom_of_welch() -> None:
    one, two = _rng(8).normal(0.3, 0.1, size=5), _rng(9).normal(0.1, 0.3, size=5)
    found = fixed_tasks(np.stack([one, -two]), np.ones((2, 5)))
    reference = stats.ttest_ind(one, two, equal_var=False)
    # the mean of (one, −two) is half of one − two
    assert found.value == pytest.approx((one.mean() - two.mean()) / 2, rel=1e-12)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-12)
    assert found.high == pytest.approx(reference.confidence_interval(0.95).high / 2, rel=1e-12)


def test_a_gain_in_proportion_to_its_baseline_has_no_noise_of_data_seeds() -> None:
    # the few-shot sample moves method and baseline alike: the relative gain is 20 % whatever it is
    base = _rng(3).uniform(0.2, 0.8, size=(4, 5))
    found = fixed_tasks(0.2 * base, base)
    assert found.low == pytest.approx(0.2, abs=1e-6)
    assert found.high == pytest.approx(0.2, abs=1e-6)


def test_the_interval_about_these_tasks_covers_the_true_gain_in_95_percent() -> None:
    # true scores of 12 tasks; noise of a data seed is shared in part by method and baseline
    rng = _rng(10)
    base = rng.uniform(0.2, 0.8, size=(12, 1))
    gains = rng.normal(0.1, 0.2, size=(12, 1))
    hits = 0
    for _ in range(1500):
        shared = rng.normal(0, 0.03, size=(12, 5))
        low = base + shared + rng.normal(0, 0.02, size=(12, 5))
        high = base * (1 + gains) + shared + rng.normal(0, 0.02, size=(12, 5))
        found = fixed_tasks(high - low, low)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= gains.mean() <= found.high
    assert 0.93 < hits / 1500 < 0.97


def test_fixed_tasks_need_two_data_seeds_and_a_positive_baseline() -> None:
    for gain, base in ((np.ones((3, 1)), np.ones((3, 1))), (np.ones((3, 2)), np.zeros((3, 2)))):
        with pytest.raises(ValueError, match="positive baselines"):
            fixed_tasks(gain, base)
