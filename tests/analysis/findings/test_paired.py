"""Paired differences: closed forms over upstream seeds, over data seeds, and over settings."""

from __future__ import annotations

import dataclasses
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from recorded_study import PT, SCORES, arg, replay
from results_factory import Results, flat
from scipy import stats

from analysis.findings.matrix import differences_of, matrix_of
from analysis.findings.paired import Paired, mean_of, paired
from analysis.findings.settings import target_settings
from analysis.results.reading import read_results


def test_upstream_seeds_are_paired_and_give_the_t_interval_of_their_differences(
    tmp_path: Path,
) -> None:
    replay(tmp_path)
    (cls, _) = target_settings(read_results(tmp_path).main)
    found = paired(cls.methods["maml"], cls.methods["multitask"])
    assert found is not None
    base = PT["cls_to_cls"]
    rows = [
        arg(SCORES["maml", "cls_to_cls", seed], base)
        - arg(SCORES["multitask", "cls_to_cls", seed], base)
        for seed in (42, 1042)
    ]
    half = float(stats.t.ppf(0.975, 1)) * statistics.stdev(rows) / math.sqrt(2)
    assert found.value == pytest.approx(statistics.mean(rows))
    assert found.interval == pytest.approx((found.value - half, found.value + half))
    assert (found.upstream_seeds, found.data_seeds, found.tasks) == (2, 2, ("a", "b"))
    assert found.sign == 0


def test_one_upstream_seed_gives_the_interval_of_drawn_data_seeds(tmp_path: Path) -> None:
    results = Results(tmp_path)
    baseline = flat({"a": 0.5})
    results.point("maml", "cls_to_cls", {"a": {13: 0.7, 21: 0.6}}, baseline)
    results.point("multitask", "cls_to_cls", {"a": {13: 0.5, 21: 0.55}}, baseline)
    (setting,) = target_settings(read_results(tmp_path).main)
    found = paired(setting.methods["maml"], setting.methods["multitask"])
    assert found is not None
    # Two seeds: a draw is (13, 13), mixed or (21, 21), with differences of 40, 25 and 10 %.
    # 2.5 % and 97.5 % are the outer ones, widened by κ = √2 about the middle.
    assert found.value == pytest.approx(25)
    assert found.interval == pytest.approx((25 - 15 * math.sqrt(2), 25 + 15 * math.sqrt(2)))
    assert found.sign == 1
    mirrored = paired(setting.methods["multitask"], setting.methods["maml"])
    assert mirrored is not None
    assert mirrored.sign == -1


def test_what_two_methods_share_cancels_in_their_difference(tmp_path: Path) -> None:
    results = Results(tmp_path, seeds=(1, 2, 3, 4))
    rng = np.random.default_rng(0)
    base = {t: {s: float(rng.uniform(0.3, 0.6)) for s in (1, 2, 3, 4)} for t in "ab"}
    for method, gain in (("maml", 1.2), ("multitask", 1.1)):
        scores = {t: {s: gain * score for s, score in row.items()} for t, row in base.items()}
        results.point(method, "cls_to_cls", scores, base)
    (setting,) = target_settings(read_results(tmp_path).main)
    found = paired(setting.methods["maml"], setting.methods["multitask"])
    assert found is not None
    assert found.value == pytest.approx(10)
    assert found.interval == pytest.approx((10, 10))


def test_a_task_that_one_side_lacks_or_whose_baseline_is_0_does_not_count(tmp_path: Path) -> None:
    results = Results(tmp_path)
    baseline = flat({"a": 0.5, "b": 0.5, "c": 0.0})
    results.point("maml", "cls_to_cls", flat({"a": 0.6, "b": 0.9, "c": 0.1}), baseline)
    lacking = {"a": {13: 0.5, 21: 0.5}, "b": {13: 0.5}, "c": {13: 0.1, 21: 0.1}}
    results.point("multitask", "cls_to_cls", lacking, baseline, tasks=["a", "b", "c"])
    (setting,) = target_settings(read_results(tmp_path).main)
    found = paired(setting.methods["maml"], setting.methods["multitask"])
    assert found is not None
    assert (found.tasks, found.of) == (("a",), 3)
    assert found.value == pytest.approx(20)


def test_the_mean_over_settings_does_not_count_shared_tasks_twice(tmp_path: Path) -> None:
    results = Results(tmp_path)
    scores, baseline = {"a": {13: 0.7, 21: 0.5}}, flat({"a": 0.5})
    for partition in ("cls_to_cls", "both_to_cls"):
        results.point("maml", partition, scores, baseline)
    settings = target_settings(read_results(tmp_path).main)
    pair = ("maml", "prompt_tuning")
    one, other = differences_of(settings, [pair])[pair].values()
    assert mean_of([one, other]).interval == pytest.approx(one.interval)


def test_wins_ties_and_losses_count_settings_and_mirror_each_other(tmp_path: Path) -> None:
    replay(tmp_path)
    matrix = matrix_of(target_settings(read_results(tmp_path).main))
    assert matrix.methods == ("maml", "multitask", "prompt_tuning")
    duel, mirrored = matrix.duels["maml", "multitask"], matrix.duels["multitask", "maml"]
    assert (duel.wins, duel.ties, duel.losses) == (1, 1, 0)
    assert (mirrored.wins, mirrored.ties, mirrored.losses) == (0, 1, 1)
    assert duel.mean.value == pytest.approx(-mirrored.mean.value)
    low, high = duel.mean.interval or (math.nan, math.nan)
    assert mirrored.mean.interval == pytest.approx((-high, -low))


def test_the_newest_configuration_counts_and_its_seeds_are_replicates(tmp_path: Path) -> None:
    results = replay(tmp_path)
    old = {"settings": {"inner_lr": 9.0}, "trajectory": "old", "created": "2020-01-01T00:00:00"}
    results.point(
        "maml", "cls_to_cls", flat({"a": 0.1, "b": 0.1}), flat(PT["cls_to_cls"]), point=old
    )
    (cls, _) = target_settings(read_results(tmp_path).main)
    assert sorted(cls.methods["maml"]) == [42, 1042]
    assert all(cell.config["inner_lr"] == 1.0 for cell in cls.methods["maml"].values())


def _seeds(results: Results, partition: str, method: str, gains: tuple[float, ...]) -> None:
    """Put ARGs in % of one method at upstream seeds 42, 1042, ..., the same on every data seed."""
    for gain, seed in zip(gains, (None, 1042, 2042), strict=False):
        settings = {"inner_lr": 1.0, "outer_lr": 0.1, "seed": seed}
        scores = flat(dict.fromkeys("ab", 0.5 * (1 + gain / 100)))
        point = {"settings": settings, "trajectory": f"{method}-{partition}-{seed}"}
        results.point(method, partition, scores, flat({"a": 0.5, "b": 0.5}), point=point)


def test_differences_of_one_question_share_what_they_know_of_the_spread(tmp_path: Path) -> None:
    """s² of 2 and 8 make a prior of 5 with two degrees of freedom; with its own: 4 and 6."""
    results = Results(tmp_path)
    for partition, gains in (("cls_to_cls", (14.0, 12.0)), ("qa_to_qa", (11.0, 15.0))):
        _seeds(results, partition, "maml", gains)
        _seeds(results, partition, "multitask", (10.0, 10.0))
    matrix = matrix_of(target_settings(read_results(tmp_path).main))
    pairs = matrix.duels["maml", "multitask"].pairs.values()
    for found, variance in zip(pairs, (4.0, 6.0), strict=True):
        half = float(stats.t.ppf(0.975, 3)) * math.sqrt(variance / 2)
        assert found.value == pytest.approx(3.0, rel=1e-9)
        assert found.interval == pytest.approx((3 - half, 3 + half), rel=1e-6)
    mirrored = matrix.duels["multitask", "maml"].pairs.values()
    assert [one.value for one in mirrored] == pytest.approx([-3.0, -3.0], rel=1e-9)


def test_one_upstream_seed_learns_nothing_from_the_spread_of_others(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _seeds(results, "cls_to_cls", "maml", (14.0, 12.0))
    _seeds(results, "qa_to_qa", "maml", (11.0,))
    pair = ("maml", "prompt_tuning")
    settings = target_settings(read_results(tmp_path).main)
    two, one = differences_of(settings, [pair])[pair].values()
    assert (two.upstream_seeds, one.upstream_seeds) == (2, 1)
    assert one.interval == pytest.approx((11.0, 11.0))
    half = float(stats.t.ppf(0.975, 1))
    assert two.interval == pytest.approx((13 - half, 13 + half), rel=1e-6)


def test_a_method_that_learns_nothing_is_compared_with_every_seed(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _seeds(results, "cls_to_cls", "maml", (10.0, 14.0))
    results.point(
        "fine_tuning", "cls_to_cls", flat({"a": 0.525, "b": 0.525}), flat({"a": 0.5, "b": 0.5})
    )
    matrix = matrix_of(target_settings(read_results(tmp_path).main))
    (found,) = matrix.duels["maml", "fine_tuning"].pairs.values()
    assert found.upstream_seeds == 2
    assert found.value == pytest.approx(7.0, rel=1e-9)


def test_an_interval_is_the_mixture_of_draws_and_t_and_its_p_ends_it_at_0() -> None:
    """Against a million draws; the skew of the data's part is kept."""
    rng = np.random.default_rng(3)
    deviations = np.exp(rng.normal(size=2000)) - 1.5
    one = Paired(
        value=2.0,
        deviations=deviations,
        seed_variance=0.25,
        seed_freedom=4,
        tasks=("a",),
        of=1,
        data_seeds=3,
        upstream_seeds=5,
    )
    drawn = 2 + rng.choice(deviations, 10**6) + 0.5 * rng.standard_t(4, 10**6)
    # 200 quantiles stand for 2000 draws: the outermost fiftieth of the width
    assert one.interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.15)
    assert one.interval is not None
    low, high = one.interval
    assert high - 2 > 1.5 * (2 - low)
    assert one.p is not None
    assert one.ends(1 - one.p) == (pytest.approx(0, abs=1e-6), pytest.approx(high, abs=10))
    sure = dataclasses.replace(one, deviations=np.zeros(0), seed_variance=0.0)
    assert (sure.interval, sure.p) == ((2.0, 2.0), 0.0)
    assert (dataclasses.replace(sure, value=-2.0).p, dataclasses.replace(sure, value=0.0).p) == (
        0.0,
        1.0,
    )
