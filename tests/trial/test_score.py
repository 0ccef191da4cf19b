"""The score of a point from its runs and those of plain prompt tuning."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from score_toys import point_of, row, study_of

from mpt.metrics.relative_gain import Scores
from mpt.store.records import ScoreRow, lr_order
from mpt.trial.score import BAD_SCORE, score_point, selected_scores, upper_end

STUDY = study_of()
HALF: Scores = {"a": {0: 0.5, 1: 0.5}, "b": {0: 0.5, 1: 0.5}}
"""Scores of plain prompt tuning."""
ONE = (42,)
"""Train seed of the only start."""


def flat(test: float | None, tasks: str = "ab") -> list[ScoreRow]:
    return [row(task, seed, test) for task in tasks for seed in (0, 1)]


def test_a_point_scores_its_arg() -> None:
    score = score_point(point_of(STUDY), flat(0.6), HALF, STUDY)
    assert score.score == pytest.approx(20.0, rel=1e-12)
    assert (score.runs, score.note) == (4, "")
    assert score.mean_test == pytest.approx(0.6, rel=1e-12)


def test_the_order_of_the_recipe_decides_ties() -> None:
    runs = [row("a", 0, 0.1, 0.8, 0.5), row("a", 0, 0.9, 0.8, 0.25), row("a", 0, 1.0, 0.7, 0.125)]
    for order in itertools.permutations(runs):  # the database's order means nothing
        assert selected_scores(order, (0.5, 0.25, 0.125), ONE) == {"a": {0: 0.1}}
        assert selected_scores(order, (0.25, 0.5, 0.125), ONE) == {"a": {0: 0.9}}


def test_the_order_is_the_studys_unless_the_method_has_learning_rates_of_its_own() -> None:
    study = study_of(lrs=(0.5, 0.2))
    assert lr_order(point_of(study), study) == (0.5, 0.2)
    own = {"method": "fine_tuning", "downstream": {"lrs": [1e-3, 1e-2]}}
    assert lr_order(point_of(study, method="fine_tuning", settings=own), study) == (1e-3, 1e-2)
    # where nothing is tuned there is one run, whatever the study's rates
    assert lr_order(point_of(study, method="zero_shot", settings={}), study) == (0.0,)


def test_a_missing_run_leaves_its_data_seed_without_a_score() -> None:
    runs = [one for one in flat(0.6) if (one.task, one.data_seed) != ("a", 1)]
    score = score_point(point_of(STUDY), runs, HALF, STUDY)
    assert score.gain is not None
    assert score.gain.arg is None
    assert score.gain.reasons == ("a: method lacks data seed 1",)
    assert score.score == BAD_SCORE  # never compared with points that have all tasks
    assert score.runs == 3


def test_one_missing_learning_rate_is_not_passed_over() -> None:
    runs = [row("a", 0, 0.3, 0.8, lr=0.5)]
    assert selected_scores(runs, (0.5, 0.2), ONE) == {"a": {}}
    assert selected_scores(runs, (0.5,), ONE) == {"a": {0: 0.3}}


def test_a_diverged_run_loses_to_any_other_and_all_diverged_is_a_failure() -> None:
    runs = [row("a", 0, None, lr=0.5), row("a", 0, 0.4, 0.1, lr=0.2)]
    assert selected_scores(runs, (0.5, 0.2), ONE) == {"a": {0: 0.4}}
    wild = [one._replace(test=None, dev=None) if one.task == "a" else one for one in flat(0.6)]
    score = score_point(point_of(STUDY), wild, HALF, STUDY)
    assert score.score == BAD_SCORE
    assert score.note == "* ARG over 1 of 2 tasks"


def test_a_zero_baseline_leaves_its_task_out_for_all_points_alike() -> None:
    score = score_point(point_of(STUDY), flat(0.6), {**HALF, "b": {0: 0.0, 1: 0.0}}, STUDY)
    assert score.gain is not None
    assert score.gain.arg is None  # not given silently
    assert score.score == pytest.approx(20.0, rel=1e-12)  # but good for ranking
    assert score.note == "* ARG over 1 of 2 tasks"


def test_no_positive_baseline_at_all_is_a_finite_bad_score() -> None:
    none: Scores = {task: {0: 0.0, 1: 0.0} for task in "ab"}
    assert score_point(point_of(STUDY), flat(0.6), none, STUDY).score == BAD_SCORE


def test_a_diverged_point_has_a_finite_bad_score_and_says_why() -> None:
    point = point_of(STUDY, status="diverged", note="diverged at step 3")
    score = score_point(point, [], HALF, STUDY)
    assert (score.score, score.gain, score.note) == (BAD_SCORE, None, "diverged at step 3")
    assert (score.runs, score.mean_test) == (0, None)


def test_a_score_does_not_depend_on_the_order_of_the_runs() -> None:
    runs = [
        row(task, seed, 0.3 + 0.1 * seed + 0.01 * place)
        for place, task in enumerate("ab")
        for seed in (0, 1)
    ]
    first = score_point(point_of(STUDY), runs, HALF, STUDY)
    assert score_point(point_of(STUDY), runs[::-1], HALF, STUDY) == first
    backward = dict(reversed(list(HALF.items())))
    assert score_point(point_of(STUDY), runs, backward, STUDY) == first
    assert first.gain is not None
    assert first.gain.low is not None
    assert first.gain.high is not None
    assert first.gain.low < first.score < first.gain.high


def test_the_upper_end_is_the_intervals_or_the_arg_where_there_is_no_interval() -> None:
    gain = score_point(point_of(STUDY), flat(0.6), HALF, STUDY).gain
    assert gain is not None
    assert upper_end(gain) == pytest.approx(20.0, rel=1e-12)
    one_seed = study_of(seeds=1)
    base: Scores = {"a": {0: 0.5}, "b": {0: 0.5}}
    single = score_point(
        point_of(one_seed), [row(task, 0, 0.6) for task in "ab"], base, one_seed
    ).gain
    assert single is not None
    assert single.high is None
    assert upper_end(single) == pytest.approx(20.0, rel=1e-12)
    nothing = score_point(point_of(STUDY), flat(0.6), {}, STUDY).gain
    assert nothing is not None
    assert upper_end(nothing) is None


def test_the_score_of_a_cell_is_the_mean_over_starts_each_chosen_by_dev() -> None:
    starts = (42, 1042)
    runs = [
        row("a", 0, 0.3, 0.9, 0.5, start=42),
        row("a", 0, 0.7, 0.1, 0.2, start=42),
        row("a", 0, 0.5, 0.1, 0.5, start=1042),
        row("a", 0, 0.6, 0.2, 0.2, start=1042),  # dev of the other start is no rival
    ]
    for order in itertools.permutations(runs):
        found = selected_scores(order, (0.5, 0.2), starts)
        assert found["a"][0] == pytest.approx((0.3 + 0.6) / 2, rel=1e-12)
        assert selected_scores(order, (0.5, 0.2), ONE) == {"a": {0: 0.3}}
    # a start that lacks a run, or all of whose runs diverged, leaves the cell without a score
    assert selected_scores(runs[:3], (0.5, 0.2), starts) == {"a": {}}
    assert selected_scores(runs[:2], (0.5, 0.2), starts) == {"a": {}}
    lost = [one._replace(dev=None, test=None) if one.train_seed == 42 else one for one in runs]
    assert selected_scores(lost, (0.5, 0.2), starts) == {"a": {}}


def test_a_study_with_several_starts_scores_points_over_all_of_them_but_zero_shot_over_one() -> (
    None
):
    study = dataclasses.replace(STUDY, settings={"starts": 2})
    assert study.start_seeds == (42, 1042)
    assert study.key != STUDY.key
    first = flat(0.4)
    second = [row(one.task, one.data_seed, 0.8, start=1042) for one in first]
    score = score_point(point_of(study), [*first, *second], HALF, study)
    assert score.score == pytest.approx(20.0, rel=1e-12)  # 0.6 over 0.5
    assert score.runs == 8
    assert score_point(point_of(study), first, HALF, study).score == BAD_SCORE
    bare = [one._replace(lr=0.0) for one in first]
    untuned = score_point(point_of(study, method="zero_shot", settings={}), bare, HALF, study)
    assert untuned.score == pytest.approx(-20.0, rel=1e-12)
