"""Intervals over upstream and data seeds against known variance components, and their honesty."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mpt.metrics.choice import cross_fitted
from mpt.metrics.differences import holm, kappa_of
from mpt.metrics.moderation import LARGEST_DF, SMALLEST_DF, Prior, fit_prior
from mpt.metrics.replicates import (
    Replicates,
    args_on_draws,
    compare,
    estimate,
)

TASKS, DATA = 6, 5
RNG = np.random.default_rng


def _study(
    rng: np.random.Generator, means: list[float], seeds: int, between: float, data: float
) -> tuple[list[Replicates], np.ndarray]:
    """Return scores of 0.5 · (1 + mean) with normal noise between upstream seeds and data seeds.

    With a baseline of exactly 0.5 the ARG of an upstream seed is 100 · (mean + its effect + the
    mean of TASKS · DATA independent terms of standard deviation `data`).
    """
    baseline = np.full((TASKS, DATA), 0.5)
    rows = rng.normal(0, data, size=(TASKS, DATA))  # crossed: the same for all configurations
    found = []
    for place, mean in enumerate(means):
        effects = rng.normal(0, between, size=seeds)
        scores = {n: 0.5 * (1 + mean + effect + rows) for n, effect in enumerate(effects)}
        found.append(Replicates(name=f"c{place}", scores=scores))
    return found, baseline


def _flat(gain: float) -> np.ndarray:
    """Return scores with this relative gain over a baseline of 0.5 on every task and seed."""
    return np.full((TASKS, DATA), 0.5 * (1 + gain))


def test_without_data_noise_the_expected_interval_is_the_t_interval_of_the_seeds() -> None:
    """One variance: as well known as by all twelve values together, 4 × 2 degrees of freedom."""
    baseline = np.full((TASKS, DATA), 0.5)
    values = (1.0, 2.0, 4.0)
    shifted = {
        f"c{n}": {
            s: np.full((TASKS, DATA), 0.5 * (1 + (v + n) / 100)) for s, v in enumerate(values)
        }
        for n in range(4)
    }
    found = compare(
        [Replicates(name=name, scores=scores) for name, scores in shifted.items()],
        baseline,
        rng=RNG(1),
    )
    assert found.leader == "c3"
    sd = np.std(values, ddof=1)
    one = found.summaries["c0"]
    assert one.arg == pytest.approx(np.mean(values), abs=1e-9)
    assert one.expected is not None
    assert one.new_run is not None
    df = found.prior.df + 2
    scale = math.sqrt((found.prior.df * found.prior.variance + 2 * sd**2) / df)
    half = stats.t.ppf(0.975, 4 * 2) * scale
    # 4000 ranks: the quantile lies between two of them
    assert one.expected[1] - one.arg == pytest.approx(half / math.sqrt(3), rel=2e-3)
    assert one.new_run[1] - one.arg == pytest.approx(half * math.sqrt(4 / 3), rel=2e-3)


def test_both_intervals_cover_what_they_are_for_whatever_noise_rules() -> None:
    """300 studies of 9 configurations, three upstream seeds each, components known."""
    for between, data in ((0.05, 0.02), (0.01, 0.10)):
        expected, new = [], []
        for number in range(60):
            rng = RNG(number)
            study, baseline = _study(rng, [0.0] * 9, 3, between, data)
            found = compare(study, baseline, rng=RNG(7), resamples=800)
            for one in found.summaries.values():
                assert one.expected is not None
                assert one.new_run is not None
                fresh = 100 * rng.normal(0, between)
                expected.append(one.expected[0] <= 0 <= one.expected[1])
                new.append(one.new_run[0] <= fresh <= one.new_run[1])
        # 540 each, those of one study dependent through the data seeds: ± 3 standard errors of 60
        assert 0.86 <= np.mean(expected) <= 1.0
        assert 0.90 <= np.mean(new) <= 1.0


@pytest.mark.parametrize("starts", [1, 4])
def test_draws_of_data_seeds_hold_the_spread_between_downstream_starts(starts: int) -> None:
    """Closed form of a mean of cells, themselves means over n starts: (σ_d² + σ_s² / n) / (T · D).

    So starts need no level of their own in the draws. Compared over 400 studies: the variance of
    the ARG itself, and the mean of κ² times the variance over draws.
    """
    rng = RNG(5)
    data_sd, start_sd = 0.04, 0.08
    baseline = np.full((TASKS, DATA), 0.5)
    args, drawn = [], []
    for _ in range(400):
        cells = rng.normal(0, data_sd, size=(1, TASKS, DATA))
        noise = rng.normal(0, start_sd, size=(starts, 1, TASKS, DATA)).mean(0)
        whole, draws = args_on_draws(0.5 * (1 + cells + noise), baseline, rng, 200)
        args.append(float(whole[0]))
        drawn.append(kappa_of(DATA) ** 2 * float(draws.var()))
    expected = 1e4 * (data_sd**2 + start_sd**2 / starts) / (TASKS * DATA)
    # 400 variances of normal values: a standard error of √(2/400) = 7 %
    assert float(np.var(args)) == pytest.approx(expected, rel=0.25)
    assert float(np.mean(drawn)) == pytest.approx(expected, rel=0.05)


def test_pairing_cancels_what_configurations_have_in_common() -> None:
    """A baseline that is drawn with noise hits all alike: no single interval, but differences."""
    rng = RNG(3)
    baseline = 0.5 + rng.normal(0, 0.1, size=(TASKS, DATA))
    low = {s: np.full((TASKS, DATA), 0.50 + 0.001 * s) for s in range(3)}
    high = {s: np.full((TASKS, DATA), 0.55 + 0.001 * s) for s in range(3)}
    found = compare(
        [Replicates(name="low", scores=low), Replicates(name="high", scores=high)],
        baseline,
        rng=RNG(1),
    )
    loser, winner = found.summaries["low"], found.summaries["high"]
    assert loser.expected is not None
    assert winner.expected is not None
    assert loser.expected[1] > winner.expected[0]  # unpaired they overlap
    assert not loser.tied
    assert loser.to_leader is not None
    assert loser.to_leader.p is not None
    assert loser.to_leader.p < 1e-3


def test_with_one_upstream_seed_nothing_is_said_of_seeds_and_all_are_tied() -> None:
    study, baseline = _study(RNG(1), [0.0, 0.3], 1, 0.01, 0.01)
    found = compare(study, baseline, rng=RNG(1))
    assert found.levels == ("data seeds",)
    for one in found.summaries.values():
        assert (one.expected, one.new_run) == (None, None)
        assert one.data_only is not None
        assert one.tied
    assert found.summaries["c0"].to_leader is not None
    assert found.summaries["c0"].to_leader.p is None


def test_a_single_run_borrows_the_spread_of_those_with_several() -> None:
    study, baseline = _study(RNG(2), [0.0] * 6, 3, 0.05, 0.01)
    single = Replicates(name="single", scores={0: study[0].scores[0]})
    found = compare([*study, single], baseline, rng=RNG(1))
    one = found.summaries["single"]
    assert one.seeds == 1
    assert one.expected is not None
    widths = [s.expected[1] - s.expected[0] for s in found.summaries.values() if s.expected]
    assert one.expected[1] - one.expected[0] == max(widths)
    assert found.leader != "single"  # only those with the most seeds lead


def test_the_leader_is_not_the_best_of_ties_by_luck_once_corrected() -> None:
    """Null studies: something is called worse than the leader in about 5 % of them at most."""
    wrong = 0
    for number in range(100):
        study, baseline = _study(RNG(number), [0.0] * 8, 3, 0.05, 0.01)
        found = compare(study, baseline, rng=RNG(7), resamples=400)
        wrong += any(not one.tied for one in found.summaries.values())
    assert wrong <= 20  # the leader is chosen by the same data, so a little above 5 is expected


def test_the_winners_own_mean_is_raised_by_the_choice_and_the_honest_numbers_are_not() -> None:
    selected, crossed, fresh = [], [], []
    for number in range(200):
        rng = RNG(number)
        study, baseline = _study(rng, [0.0] * 12, 3, 0.05, 0.0)
        found = compare(study, baseline, rng=RNG(7), resamples=2)
        selected.append(found.summaries[found.leader].arg)
        by_seed = {name: one.by_seed for name, one in found.summaries.items()}
        value = cross_fitted(by_seed)
        assert value is not None
        crossed.append(value)
        scores = {s: np.full((TASKS, DATA), 0.5 * (1 + rng.normal(0, 0.05))) for s in (7, 8, 9)}
        one = estimate(Replicates(name="w", scores=scores), baseline, found.prior, rng=RNG(1))
        fresh.append(one.arg)
    # the standard error of a mean of 200 is 5 · √(1/3) / √200 = 0.2 (fresh), 0.35 (crossed)
    assert np.mean(selected) > 3.0
    assert abs(np.mean(fresh)) < 0.8
    assert abs(np.mean(crossed)) < 1.2


def test_an_unstable_configuration_is_named() -> None:
    baseline = np.full((TASKS, DATA), 0.5)
    steady = {
        f"c{n}": {s: np.full((TASKS, DATA), 0.5 * (1.1 + 0.001 * (n + s))) for s in range(3)}
        for n in range(5)
    }
    wild = {
        s: np.full((TASKS, DATA), 0.5 * (1.0 + value)) for s, value in enumerate((-0.5, 0, 0.5))
    }
    found = compare(
        [Replicates(name=n, scores=s) for n, s in {**steady, "wild": wild}.items()],
        baseline,
        rng=RNG(1),
    )
    assert {n for n, one in found.summaries.items() if one.unstable} == {"wild"}
    (reason,) = found.summaries["wild"].reasons
    assert reason.startswith("standard deviation between its seeds 50.0, of the others 0.1 (F")


def test_the_same_generator_gives_the_same_comparison() -> None:
    study, baseline = _study(RNG(1), [0.0, 0.1, 0.2], 3, 0.05, 0.02)
    assert compare(study, baseline, rng=RNG(5)) == compare(study, baseline, rng=RNG(5))


def test_holm_equals_the_rule_done_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({}) == {}


def test_holm_agrees_with_closed_testing_by_bonferroni() -> None:
    # a hypothesis is rejected if Bonferroni rejects every set that it is in
    for root in range(20):
        ps = dict(zip("abcde", (RNG(root).uniform(size=5) ** 3).tolist(), strict=True))
        sets = [s for n in range(1, 6) for s in itertools.combinations(ps, n)]
        closed = {
            name: max(min(1.0, len(s) * min(ps[i] for i in s)) for s in sets if name in s)
            for name in ps
        }
        assert holm(ps) == pytest.approx(closed)


@pytest.mark.parametrize("df", [2, 4, 20])
def test_the_prior_is_found_again_from_many_variances(df: int) -> None:
    """s₀² = 4, d₀ = 6: σ² = d₀ s₀² / χ²(d₀), s² = σ² χ²(d) / d."""
    rng = RNG(1)
    sigma2 = 6 * 4.0 / rng.chisquare(6, size=20_000)
    s2 = sigma2 * rng.chisquare(df, size=20_000) / df
    prior = fit_prior(list(s2), [df] * len(s2))
    assert prior.df == pytest.approx(6, rel=0.1)
    assert prior.variance == pytest.approx(4, rel=0.03)


def test_equal_variances_are_taken_as_one_and_few_as_no_more_than_they_are() -> None:
    assert fit_prior([4.0] * 5, [2] * 5).df == LARGEST_DF
    assert fit_prior([], []) == Prior(0.0, 0.0)
    assert fit_prior([4.0], [2]) == Prior(4.0, 0.0)
    assert fit_prior([4.0, 8.0], [2, 2]) == Prior(6.0, 4.0)
    variance, total = Prior(4.0, 6.0).moderate(10.0, 2)
    assert (variance, total) == (pytest.approx((6 * 4 + 2 * 10) / 8), 8.0)


def test_a_few_variances_of_two_seeds_do_not_make_intervals_endless() -> None:
    """Three pairs of seeds of a real search, two of them far apart and one by chance at one."""
    variances = [
        float(np.var(pair, ddof=1)) for pair in ((10.4, 21.2), (9.3, 18.0), (16.06, 16.02))
    ]
    prior = fit_prior(variances, [1, 1, 1])
    assert prior.df == SMALLEST_DF
    variance, df = prior.moderate(math.nan, 0)
    half = float(stats.t.ppf(0.975, df)) * math.sqrt(variance)
    assert 10 < half < 100  # and 460 without the floor


def test_the_floor_keeps_coverage() -> None:
    """One new configuration of one seed, variances drawn with the d₀ = 4 of real grids."""
    rng, inside = np.random.default_rng(7), []
    for _ in range(1500):
        true = 4 / rng.chisquare(4, 7)
        seen = (rng.normal(size=(6, 2)) * np.sqrt(true[:6, None])).var(1, ddof=1)
        variance, df = fit_prior(list(seen), [1] * 6).moderate(math.nan, 0)
        half = float(stats.t.ppf(0.975, df)) * math.sqrt(variance)
        inside.append(abs(rng.normal()) * math.sqrt(true[6]) <= half)
    assert 0.92 <= np.mean(inside) <= 0.98  # .944 measured; 3 standard errors are .018


def test_configurations_without_seeds_and_baselines_of_zero_are_refused() -> None:
    baseline = np.full((TASKS, DATA), 0.5)
    with pytest.raises(ValueError, match="each with an upstream seed"):
        compare([Replicates(name="a", scores={})], baseline, rng=RNG(1))
    scores = {0: baseline}
    for task in itertools.islice(range(TASKS), 1):
        zero = baseline.copy()
        zero[task] = 0
        with pytest.raises(ValueError, match="baseline above 0"):
            compare([Replicates(name="a", scores=scores)], zero, rng=RNG(1))
