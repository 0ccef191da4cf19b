"""What a search says about its settings, on searches whose answer is known."""

from __future__ import annotations

import math

import optuna
import pytest
from scipy.stats import kendalltau, spearmanr
from search_points import grid

from analysis.figures.charts.data import Search
from analysis.figures.charts.sensitivity import (
    AblationPath,
    Importance,
    RungAgreement,
    ablation_path,
    importance,
    marginal,
    on_log_scale,
    rung_agreement,
)


def _importance(search: Search, seed: int = 42) -> Importance:
    found = importance(search, seed)
    assert isinstance(found, Importance)
    return found


def test_the_setting_that_rules_the_score_gets_the_importance() -> None:
    # Variance of ln(b) in {-3.5, -2.3, -1.2} is 40 times that of 0.01 n in {.25, .5, 1} · 0.5².
    found = _importance(grid(lambda a, b, n: 3 * math.log(b) + 0.5 * 0.01 * n))
    for evaluator in ("fANOVA", "PED-ANOVA"):
        shares = {name: e.value or 0.0 for name, e in found.evaluators[evaluator].items()}
        assert math.fsum(shares.values()) == pytest.approx(1)
        assert max(shares, key=lambda name: shares[name]) == "outer_lr"
    fanova = found.evaluators["fANOVA"]
    assert fanova["outer_lr"].value == pytest.approx(0.98, abs=0.03)
    assert fanova["inner_lr"].value == pytest.approx(0.0, abs=0.01)
    assert (found.points, found.without) == (27, 0)


def test_fanova_splits_additive_effects_by_their_variance() -> None:
    # Equal spacing on the log scale and equal coefficients: one half each.
    search = grid(
        lambda a, b, n: math.log10(a) + math.log10(b / 0.03),
        outer=(0.03, 0.3, 3.0),
        steps=(25, 26),
    )
    fanova = _importance(search).evaluators["fANOVA"]
    assert fanova["inner_lr"].value == pytest.approx(0.5, abs=0.06)
    assert fanova["outer_lr"].value == pytest.approx(0.5, abs=0.06)


def test_ped_anova_tells_the_best_points_and_not_the_worst_from_the_others() -> None:
    # The best third is all points of one outer lr; the worst points differ by inner lr.
    search = grid(lambda a, b, n: 10 + n / 1000 if b == 0.03 else math.log10(a) + n / 1000)
    shares = _importance(search).evaluators["PED-ANOVA"]
    assert (shares["outer_lr"].value or 0) > 0.9
    assert (shares["inner_lr"].value or 0) < 0.05


def test_importances_repeat_and_leave_optuna_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "analysis.figures.charts.sensitivity.REPEATS", 1
    )  # of the same kind, for the time
    search = grid(lambda a, b, n: math.log(a) * b + n, steps=(25, 50))
    before = optuna.logging.get_verbosity()
    assert _importance(search) == _importance(search)
    assert _importance(search) != _importance(search, 43)
    assert optuna.logging.get_verbosity() == before


def test_points_without_a_score_are_left_out_and_counted() -> None:
    found = _importance(grid(lambda a, b, n: None if (a, b) == (10, 0.3) else b * n))
    assert (found.points, found.without) == (24, 3)


def test_there_is_no_importance_of_few_points_or_one_setting_or_one_score() -> None:
    few = grid(lambda a, b, n: a if b == 0.1 and n == 25 else None)
    assert importance(few, 42) == ("importance needs 6 different points with a score; there are 3")
    constant = grid(lambda a, b, n: 1.0)
    assert isinstance(importance(constant, 42), str)
    alone = grid(lambda a, b, n: a, inner=(1.0,), outer=(1.0,), steps=(1, 2, 3, 4, 5, 6, 7))
    assert importance(alone, 42) == "importance needs two settings with more than one value"


def test_settings_over_a_wide_positive_range_are_on_a_log_scale() -> None:
    assert on_log_scale([2e-5, 3e-3])
    assert not on_log_scale([25, 50, 100])
    assert not on_log_scale([0.0, 1.0, 100.0])


# --- rungs ----------------------------------------------------------------------------------


def _agreement(search: Search) -> RungAgreement:
    found = rung_agreement(search)
    assert isinstance(found, RungAgreement)
    return found


def test_rungs_with_the_same_order_agree_and_with_the_opposite_order_disagree() -> None:
    def score(a: float, b: float, n: float) -> float:
        place = math.log10(a) + 10 * b
        return -place if n == 100 else place * n

    found = _agreement(grid(score))
    assert found.rungs == (25, 50, 100)
    assert found.spearman[25, 50].value == pytest.approx(1)
    assert found.kendall[25, 50].value == pytest.approx(1)
    assert found.spearman[25, 100].value == pytest.approx(-1)
    assert found.kendall[50, 100].value == pytest.approx(-1)
    assert set(found.trajectories.values()) == {9}
    # Fisher's z is infinite at ±1: no interval rather than one of no width.
    assert found.spearman[25, 50].low is None


def test_correlations_are_scipys_and_intervals_fiellers() -> None:
    noise = {"0.1 0.03": 3.0, "1.0 0.1": -2.0, "10.0 0.3": 1.5, "0.1 0.3": 0.2}
    found = _agreement(
        grid(lambda a, b, n: math.log10(a) + b + (noise.get(f"{a} {b}", 0.0) if n > 25 else 0))
    )
    early, late = [], []
    for a in (0.1, 1.0, 10.0):
        for b in (0.03, 0.1, 0.3):
            early.append(math.log10(a) + b)
            late.append(math.log10(a) + b + noise.get(f"{a} {b}", 0.0))
    rho, tau = spearmanr(early, late).statistic, kendalltau(early, late).statistic
    assert found.spearman[25, 50].value == pytest.approx(rho)
    assert found.kendall[25, 50].value == pytest.approx(tau)
    # 1.959964 · √(1.06 / 6) and 1.959964 · √(0.437 / 5) on the scale of z.
    for estimate, half in ((found.spearman[25, 50], 0.823799), (found.kendall[25, 50], 0.579425)):
        z = [math.atanh(end or 0.0) for end in (estimate.low, estimate.value, estimate.high)]
        assert z[2] - z[1] == pytest.approx(half, abs=1e-5)
        assert z[1] - z[0] == pytest.approx(half, abs=1e-5)


def test_a_trajectory_counts_only_where_it_has_a_score_at_both_rungs() -> None:
    found = _agreement(grid(lambda a, b, n: None if b == 0.3 and n == 100 else a * b))
    assert found.trajectories == {(25, 50): 9, (25, 100): 6, (50, 100): 6}


def test_rungs_are_not_compared_on_two_trajectories_or_equal_scores() -> None:
    found = _agreement(grid(lambda a, b, n: 1.0 if n == 25 else a * b))
    assert found.spearman[25, 50].value is None
    assert found.spearman[50, 100].value == pytest.approx(1)
    two = _agreement(grid(lambda a, b, n: a, inner=(1.0, 2.0), outer=(1.0,)))
    assert two.kendall[25, 50].note == "2 trajectories with different scores at both rungs"
    assert rung_agreement(grid(lambda a, b, n: a, steps=(25,))) == "there is one rung only"


# --- path -----------------------------------------------------------------------------------


def _path(search: Search) -> AblationPath:
    found = ablation_path(search)
    assert isinstance(found, AblationPath)
    return found


def test_the_path_goes_from_worst_to_best_by_the_change_that_gains_most() -> None:
    # Best: (10, 0.3, 100). inner lr is worth 20, outer lr 2.7, steps 0.75.
    path = _path(grid(lambda a, b, n: 10 * math.log10(a) + 10 * b + 0.01 * n))
    assert [change.setting for change in path.changes] == [None, "inner_lr", "outer_lr", "steps"]
    assert [(c.before, c.after) for c in path.changes[1:]] == [(0.1, 10), (0.03, 0.3), (25, 100)]
    values = [change.point.score.value for change in path.changes]
    assert values == pytest.approx([-9.45, 10.55, 13.25, 14.0])
    assert path.stopped == ""


def test_settings_that_agree_are_not_changed() -> None:
    # Worst and best are both at outer lr 0.1 and 50 steps.
    path = _path(grid(lambda a, b, n: (a - 2) * (1 if (b, n) == (0.1, 50) else 0.1)))
    assert path.changes[0].point.settings == {"inner_lr": 0.1, "outer_lr": 0.1, "steps": 50}
    assert [change.setting for change in path.changes] == [None, "inner_lr"]


def test_the_path_stops_where_no_point_was_run_or_has_a_score() -> None:
    corners = {(0.1, 0.03, 25.0): -5.0, (10.0, 0.3, 100.0): 5.0}
    path = _path(grid(lambda a, b, n: corners.get((a, b, n))))
    assert len(path.changes) == 1
    assert path.stopped == "no point with only inner_lr = 10, outer_lr = 0.3, steps = 100 changed"
    assert ablation_path(grid(lambda a, b, n: None)) == (
        "a path needs two points with a score; there are 0"
    )


def test_a_marginal_is_the_mean_over_the_other_settings() -> None:
    search = grid(lambda a, b, n: None if n == 100 and a > 0.1 else a + n)
    means = marginal(search, "inner_lr", "outer_lr")
    assert means[0.1, 0.3] == (pytest.approx(0.1 + 175 / 3), 3, 3)
    assert means[10.0, 0.03] == (pytest.approx(10 + 75 / 2), 2, 3)
    empty = marginal(grid(lambda a, b, n: None), "inner_lr", "steps")
    assert math.isnan(empty[1.0, 50][0])
    assert empty[1.0, 50][1:] == (0, 3)
