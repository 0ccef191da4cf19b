from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpt.config import StudyConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.metrics.relative_gain import Gain, TaskGain
from mpt.records import append_line
from mpt.search.job import Course, SearchJob
from mpt.search.ray.schedulers import (
    Halving,
    Judge,
    RungScheduler,
    Verdict,
    rung_scores,
)
from mpt.search.stops import Stop, read_stops, record_stop
from mpt.study.spaces import Trajectory
from mpt.study.study import StudyPlan
from mpt.trial.objective import BAD_SCORE, PointScore

PLAN = StudyPlan(config=StudyConfig(), source=("s",), scored=("v",), partial=None)


def _course(number: int, rungs: tuple[int, ...] = (25, 50, 100), **changes: Any) -> Course:
    config = UpstreamConfig(outer_lr=0.1 + number, **changes)
    return Course(plan=PLAN, trajectory=Trajectory(config=config, rungs=rungs))


def _courses(count: int, **changes: Any) -> list[Course]:
    return [_course(number, **changes) for number in range(count)]


# --- successive halving -------------------------------------------------------------------------


def test_a_course_is_stopped_at_a_rung_where_it_is_below_the_median_of_the_others() -> None:
    halving = Halving((25, 50, 100))
    assert halving.passed(0, 0, -3.0) is None  # the first at a rung always passes
    assert halving.passed(1, 0, 4.0) is None
    # the median of −3 and 4 is 0.5
    assert halving.passed(2, 0, 0.4) == (
        "score +0.4 is below the cut +0.5, the best 1 in 2 of 2 courses there before it"
    )
    assert halving.passed(3, 0, 0.6) is None


def test_only_the_same_rung_is_compared_and_a_score_is_taken_once() -> None:
    halving = Halving((25, 50, 100))
    halving.passed(0, 0, 5.0)
    assert halving.passed(0, 0, -50.0) is None
    assert halving.passed(1, 1, -9.0) is None  # the first at the second rung
    assert halving.passed(2, 0, 4.9) is not None


def test_the_last_rung_stops_nobody() -> None:
    halving = Halving((25, 50, 100))
    halving.passed(0, 2, 5.0)
    assert halving.passed(1, 2, -5.0) is None


@pytest.mark.parametrize(
    "rungs",
    [(25, 50, 100), (2500, 5000, 10000), (1, 10, 100, 1000), (4, 6, 9), (7, 10), (9, 12, 16)],
)
def test_rays_decision_is_the_quantile_rule_at_every_rung(rungs: tuple[int, ...]) -> None:
    # an independent statement of the rule; ratios that are no whole numbers too
    rng = np.random.default_rng(3)
    halving, ratio = Halving(rungs), rungs[1] / rungs[0]
    before: list[list[float]] = [[] for _ in rungs]
    stopped = 0
    for course in range(40):
        for place in range(len(rungs) - 1):
            score = float(rng.normal())
            others, before[place] = before[place], [*before[place], score]
            behind = bool(others and score < np.quantile(others, 1 - 1 / ratio))
            assert (halving.passed(course, place, score) is not None) is behind
            stopped += behind
            if behind:
                break
    assert stopped > 5


def _job(*courses: Course, scheduler: str = "asha") -> SearchJob:
    return SearchJob(courses=courses, results=Path("/r"), title="t", scheduler=scheduler)


@pytest.mark.parametrize("rungs", [(25, 50, 100), (1, 2), (4, 6, 9), (7, 10)])
def test_rungs_with_one_ratio_can_be_halved(rungs: tuple[int, ...]) -> None:
    assert _job(_course(0, rungs)).stoppers == {"asha"}


@pytest.mark.parametrize("rungs", [(25, 50, 75), (2, 4, 6), (5, 10, 21), (50,)])
def test_other_rungs_are_refused_with_the_cure(rungs: tuple[int, ...]) -> None:
    listed = ", ".join(map(str, rungs))
    with pytest.raises(UsageError, match=rf"has {listed}; use --scheduler none") as caught:
        _job(_course(0), _course(1, rungs))
    assert "\n" not in str(caught.value)
    assert _job(_course(1, rungs), scheduler="none").stoppers == frozenset()


def test_an_unknown_scheduler_is_refused() -> None:
    with pytest.raises(UsageError, match="scheduler is 'pbt', but must be one of none, asha"):
        _job(_course(0), scheduler="pbt")


# --- the judge ----------------------------------------------------------------------------------


def _score(arg: float, low: float, high: float) -> PointScore:
    task = TaskGain(task="v", score=0.5, baseline=0.4, gain=arg / 100, reason=None)
    gain = Gain(tasks=(task,), arg=arg, low=low, high=high, undefined_resamples=0)
    return PointScore(gain=gain, score=arg, mean_test=0.5, leaves=1, of=1, note="")


def test_courses_compete_within_their_study_and_method_only() -> None:
    other = dataclasses.replace(PLAN, config=StudyConfig(partition="cls_to_cls"))
    courses = [
        _course(0),
        _course(1),
        dataclasses.replace(_course(2), plan=other),
        _course(3, method="reptile"),
    ]
    judge = Judge(courses, asha=True, racing=False)
    assert judge.verdict(0, {25: 9.0}) is None
    assert judge.verdict(2, {25: -9.0}) is None
    assert judge.verdict(3, {25: -9.0}) is None
    assert judge.verdict(1, {25: -9.0}) is not None


def test_rungs_in_other_steps_are_compared_rung_by_rung() -> None:
    # multitask learning: 5, 10, 20 epochs in batches of 4 and of 8
    courses = [_course(0, (70, 140, 280)), _course(1, (35, 70, 140))]
    judge = Judge(courses, asha=True, racing=False)
    assert judge.verdict(0, {70: 5.0}) is None
    verdict = judge.verdict(1, {35: 1.0})
    assert verdict is not None
    assert (verdict.steps, verdict.by) == (35, "asha")


def test_what_was_on_record_is_compared_with_but_never_decided_again() -> None:
    courses = _courses(3)
    judge = Judge(courses, asha=True, racing=False)
    judge.replay(0, {25: 9.0, 50: 9.0})
    judge.replay(1, {25: -9.0})  # it passed in an earlier session; it goes on in this one
    assert judge.verdict(1, {25: -9.0}) is None
    assert judge.verdict(2, {25: -1.0}) is not None  # below the median of 9 and −9
    assert judge.verdict(1, {25: -9.0, 50: 8.0}) is not None


def test_a_course_that_diverged_is_over_and_not_stopped() -> None:
    judge = Judge(_courses(2), asha=True, racing=False)
    judge.verdict(0, {25: 1.0})
    assert judge.verdict(1, dict.fromkeys((25, 50, 100), BAD_SCORE)) is None


def test_courses_that_come_later_are_judged_too() -> None:
    courses = _courses(1)
    judge = Judge(courses, asha=True, racing=False)
    judge.verdict(0, {25: 1.0})
    courses.append(_course(1))
    assert judge.verdict(1, {25: 0.0}) is not None


def test_racing_stops_whose_interval_ends_below_the_leaders() -> None:
    scores = {
        (0, 25): _score(5.0, 3.0, 7.0),
        (1, 25): _score(1.0, -1.0, 2.9),
        (2, 25): _score(1.0, -1.0, 3.0),  # it touches
        (3, 25): _score(8.0, 7.0, 9.0),  # the new leader
        (4, 25): _score(6.0, 5.0, 6.9),
    }
    judge = Judge(_courses(5), asha=False, racing=True, score_of=lambda *place: scores.get(place))
    found = [judge.verdict(index, {25: scores[index, 25].score}) for index in range(5)]
    assert [verdict is not None for verdict in found] == [False, True, False, False, True]
    assert found[1] == Verdict(
        25,
        "racing",
        "its interval ends at ARG +2.90, below the lower end of the leader's interval, +3.00",
    )


def test_a_rung_is_judged_once_though_every_report_tells_of_it() -> None:
    scores = {(0, 25): _score(1.0, 0.0, 2.0), (1, 25): _score(9.0, 8.0, 9.5)}
    judge = Judge(_courses(2), asha=False, racing=True, score_of=lambda *place: scores.get(place))
    assert judge.verdict(0, {25: 1.0}) is None
    assert judge.verdict(1, {25: 9.0}) is None  # the new leader, far above
    assert judge.verdict(0, {25: 1.0}) is None  # on the way to its next rung


def test_without_intervals_or_without_being_asked_nobody_races() -> None:
    bare = dataclasses.replace(_score(5.0, 3.0, 7.0), gain=None, score=BAD_SCORE)
    for racing, score in ((True, bare), (False, _score(-50.0, -60.0, -40.0))):
        scores = {(0, 25): _score(5.0, 3.0, 7.0), (1, 25): score}
        judge = Judge(_courses(2), asha=False, racing=racing, score_of=lambda *p: scores[p])  # noqa: B023
        assert judge.verdict(0, {25: 5.0}) is None
        assert judge.verdict(1, {25: score.score}) is None


# --- what Tune asks -----------------------------------------------------------------------------


class _Trial:
    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def _scheduler(judge: Judge) -> tuple[RungScheduler, list[tuple[int, Verdict]], list[str]]:
    stops: list[tuple[int, Verdict]] = []
    problems: list[str] = []
    scheduler = RungScheduler(judge, lambda i, v: stops.append((i, v)), problems.append)
    return scheduler, stops, problems


def _report(index: int, steps: int, scores: dict[int, float]) -> dict[str, Any]:
    """Return a report as Tune flattens it."""
    flat = {f"rung_scores/{rung}": score for rung, score in scores.items()}
    return {"index": index, "steps": steps, "score": float("nan"), **flat}


def test_the_scheduler_looks_at_scored_rungs_and_not_at_steps() -> None:
    # A trial has taken the rung's steps long before its leaves are there: at that report its
    # score is still NaN, or the one of the rung before.
    scheduler, stops, _ = _scheduler(Judge(_courses(2), asha=True, racing=False))
    trial = _Trial("a")
    assert scheduler.on_trial_result(None, trial, _report(0, 25, {25: 2.0})) == "CONTINUE"
    assert scheduler.on_trial_result(None, trial, _report(1, 25, {})) == "CONTINUE"
    assert scheduler.on_trial_result(None, trial, _report(1, 25, {25: 1.0})) == "STOP"
    ((index, verdict),) = stops
    assert (index, verdict.steps, verdict.by) == (1, 25, "asha")
    assert "score +1 is below the cut +2" in verdict.reason


def test_the_last_report_of_a_trial_counts_though_tune_does_not_ask_about_it() -> None:
    scheduler, _, problems = _scheduler(Judge(_courses(2), asha=True, racing=False))
    scheduler.on_trial_complete(None, _Trial("a"), _report(0, 100, {25: 1.0, 50: 2.0, 100: 3.0}))
    scheduler.on_trial_complete(None, _Trial("a"), {})  # a trial that failed before its first
    assert scheduler.on_trial_result(None, _Trial("b"), _report(1, 50, {25: 1.0})) == "CONTINUE"
    assert scheduler.on_trial_result(None, _Trial("b"), _report(1, 50, {25: 1, 50: 1})) == "STOP"
    assert not problems


def test_an_error_while_judging_is_told_and_ends_nothing() -> None:
    scheduler, stops, problems = _scheduler(Judge([], asha=True, racing=False))
    assert scheduler.on_trial_result(None, _Trial("a"), _report(0, 25, {25: 1.0})) == "CONTINUE"
    assert "the scheduler failed: IndexError" in problems[0]
    assert not stops


def test_tune_can_pickle_the_scheduler() -> None:
    pickle.dumps(_scheduler(Judge(_courses(1), asha=True, racing=False))[0])


def test_a_report_is_read_nested_and_flat() -> None:
    assert rung_scores({"rung_scores": {"25": 1.0}}) == {25: 1.0}
    assert rung_scores({"rung_scores/25": 1.0, "rung_scores/50": 2.0}) == {25: 1.0, 50: 2.0}
    assert rung_scores({"rung_scores": {}}) == {}


# --- the record of stops ------------------------------------------------------------------------


def test_stops_are_kept_in_order_and_broken_lines_are_left_out(tmp_path: Path) -> None:
    assert read_stops(tmp_path) == []
    stop = Stop(point="k", course="c", steps=25, by="asha", reason="score +1 is below")
    kept = [
        record_stop(tmp_path, stop),
        record_stop(tmp_path, dataclasses.replace(stop, by="racing")),
    ]
    append_line(tmp_path / "stops.jsonl", {"point": "k"})
    append_line(tmp_path / "stops.jsonl", {**dataclasses.asdict(stop), "steps": "25"})
    with (tmp_path / "stops.jsonl").open("a") as file:
        file.write('{"point": "to')
    assert read_stops(tmp_path) == kept
    assert kept[0].time
    assert kept[0].text == "stopped by asha at rung 25: score +1 is below"
