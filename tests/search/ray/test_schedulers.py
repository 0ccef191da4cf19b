"""Who stops trials: ASHA and racing at rungs, any scheduler of Tune's, errors that end nothing."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from mpt.search.ray.schedulers import RungScheduler, StopDecision, asha, rivals_of
from mpt.trial.score import BAD_SCORE

RUNGS = (25, 50, 100)


@dataclasses.dataclass(eq=False)
class Trial:
    """A trial as Tune hands it to a scheduler."""

    trial_id: str
    config: dict[str, Any]
    status: str = "RUNNING"


def trial_of(number: int, method: str = "maml", **changes: Any) -> Any:
    config = {
        "trial": number,
        "method": method,
        "partition": "random_to_random",
        "backbone": "embedded",
        "study": "0123abcd",
        "gpus": 0.0,
        "outer_lr": 0.1 + number,
        **changes,
    }
    return Trial(f"id{number}", config)


def report(
    at: int, score: float, rungs: tuple[int, ...] = RUNGS, **changes: Any
) -> dict[str, Any]:
    """Return a report of a trial that has just been scored at a rung."""
    place = rungs.index(at)
    return {
        "score": score,
        "best": score,
        "arg": score,
        "arg_low": score - 1,
        "arg_high": score + 1,
        "steps": at,
        "rung_steps": at,
        "rung": (rungs[1] / rungs[0]) ** place,
        "training_iteration": place + 1,
        "done": place == len(rungs) - 1,
        **changes,
    }


class Told:
    """A `RungScheduler` with what it stopped and what it complained about."""

    def __init__(self, inner: Any, *, racing: bool = False, name: str = "asha") -> None:
        self.stops: list[tuple[int, StopDecision]] = []
        self.problems: list[str] = []
        self.scheduler = RungScheduler(
            inner,
            name,
            racing=racing,
            group_of=rivals_of,
            on_stop=lambda number, decision: self.stops.append((number, decision)),
            on_problem=self.problems.append,
        )
        self.scheduler.set_search_properties("score", "max")
        self.controller: Any = SimpleNamespace(get_trials=list, get_live_trials=list)

    def says(self, trial: Any, result: dict[str, Any]) -> str:
        self.scheduler.on_trial_add(self.controller, trial)
        return self.scheduler.on_trial_result(self.controller, trial, result)

    def ends(self, trial: Any, result: dict[str, Any]) -> None:
        self.scheduler.on_trial_complete(self.controller, trial, result)


@pytest.fixture
def halving() -> Told:
    return Told(asha(RUNGS))


# --- ASHA ----------------------------------------------------------------------------------------


def test_a_trial_is_stopped_at_a_rung_where_it_is_below_the_median_of_the_others(
    halving: Told,
) -> None:
    assert halving.says(trial_of(0), report(25, -3.0)) == "CONTINUE"  # the first always passes
    assert halving.says(trial_of(1), report(25, 4.0)) == "CONTINUE"
    # the median of −3 and 4 is 0.5
    assert halving.says(trial_of(2), report(25, 0.4)) == "STOP"
    assert halving.stops == [
        (2, StopDecision(25, "asha", "score +0.4 fell behind those at this rung"))
    ]
    assert halving.says(trial_of(3), report(25, 0.6)) == "CONTINUE"
    assert not halving.problems


def test_only_the_same_rung_is_compared_and_a_score_is_taken_once(halving: Told) -> None:
    first = trial_of(0)
    halving.says(first, report(25, 5.0))
    for _ in range(3):  # every report on the way to the next rung tells of the last one
        assert halving.says(first, report(25, -50.0, steps=30)) == "CONTINUE"
    assert halving.says(trial_of(1), report(50, -9.0)) == "CONTINUE"  # the first at this rung
    assert halving.says(trial_of(2), report(25, 4.9)) == "STOP"


def test_the_last_rung_stops_nobody(halving: Told) -> None:
    halving.ends(trial_of(0), report(100, 5.0))
    assert halving.says(trial_of(1), report(100, -5.0)) == "CONTINUE"
    assert not halving.stops


@pytest.mark.parametrize(
    "rungs",
    [(25, 50, 100), (2500, 5000, 10000), (1, 10, 100, 1000), (4, 6, 9), (7, 10), (9, 12, 16)],
)
def test_rays_decision_is_the_quantile_rule_at_every_rung(rungs: tuple[int, ...]) -> None:
    # an independent statement of the rule; ratios that are no whole numbers too
    rng = np.random.default_rng(3)
    told, ratio = Told(asha(rungs)), rungs[1] / rungs[0]
    before: list[list[float]] = [[] for _ in rungs]
    for number in range(40):
        trial = trial_of(number)
        for place, steps in enumerate(rungs[:-1]):
            score = float(rng.normal())
            others, before[place] = before[place], [*before[place], score]
            behind = bool(others and score < np.quantile(others, 1 - 1 / ratio))
            assert told.says(trial, report(steps, score, rungs)) == (
                "STOP" if behind else "CONTINUE"
            )
            if behind:
                break
    assert len(told.stops) > 5
    assert not told.problems


def test_rungs_in_other_steps_are_compared_rung_by_rung(halving: Told) -> None:
    # multitask learning: 5, 10, 20 epochs in batches of 4 and of 8
    assert halving.says(trial_of(0), report(70, 5.0, (70, 140, 280))) == "CONTINUE"
    assert halving.says(trial_of(1), report(35, 1.0, (35, 70, 140))) == "STOP"
    assert [(number, decision.steps) for number, decision in halving.stops] == [(1, 35)]


def test_steps_do_not_count_before_their_score_is_known(halving: Told) -> None:
    # A trial has taken a rung's steps long before the runs there are done.
    nan = float("nan")
    waits = {"score": nan, "steps": 25, "rung_steps": 0, "rung": 0.0, "done": False}
    assert halving.says(trial_of(0), report(25, 2.0)) == "CONTINUE"
    assert halving.says(trial_of(1), dict(waits)) == "CONTINUE"
    assert halving.says(trial_of(1), report(25, 1.0)) == "STOP"


def test_a_trial_that_diverged_is_over_and_not_stopped(halving: Told) -> None:
    halving.says(trial_of(0), report(25, 1.0))
    ended = report(100, BAD_SCORE, arg=float("nan"), arg_low=float("nan"), arg_high=float("nan"))
    halving.ends(trial_of(1), ended)
    assert not halving.stops
    assert not halving.problems


def test_plain_prompt_tuning_is_nobodys_rival(halving: Told) -> None:
    baseline = trial_of(9, method="prompt_tuning")
    result = report(25, 0.0, rung_steps=0)
    assert halving.says(baseline, {**result, "rung_steps": 25}) == "CONTINUE"
    halving.ends(baseline, result)
    assert halving.says(trial_of(0), report(25, -50.0)) == "CONTINUE"  # still the first


# --- racing --------------------------------------------------------------------------------------


def interval(steps: int, arg: float, low: float, high: float) -> dict[str, Any]:
    return report(steps, arg, arg_low=low, arg_high=high)


def test_racing_stops_whose_interval_ends_below_the_leaders() -> None:
    told = Told(None, racing=True)
    rows = [
        (5.0, 3.0, 7.0),
        (1.0, -1.0, 2.9),
        (1.0, -1.0, 3.0),  # it touches
        (8.0, 7.0, 9.0),  # the new leader
        (6.0, 5.0, 6.9),
    ]
    found = [told.says(trial_of(n), interval(25, *row)) for n, row in enumerate(rows)]
    assert found == ["CONTINUE", "STOP", "CONTINUE", "CONTINUE", "STOP"]
    reason = "its interval ends at ARG +2.90, below the lower end of the leader's interval, +3.00"
    assert told.stops[0] == (1, StopDecision(25, "racing", reason))


def test_an_arg_above_its_own_interval_counts_as_its_end() -> None:
    told = Told(None, racing=True)
    told.says(trial_of(0), interval(25, 5.0, 3.0, 7.0))
    assert told.says(trial_of(1), interval(25, 3.5, -1.0, 2.0)) == "CONTINUE"


def test_a_rung_races_once_though_every_report_tells_of_it() -> None:
    told = Told(None, racing=True)
    first = trial_of(0)
    assert told.says(first, interval(25, 1.0, 0.0, 2.0)) == "CONTINUE"
    assert told.says(trial_of(1), interval(25, 9.0, 8.0, 9.5)) == "CONTINUE"  # far above
    assert told.says(first, interval(25, 1.0, 0.0, 2.0)) == "CONTINUE"  # on the way to the next


@pytest.mark.parametrize("other", [{"method": "reptile"}, {"study": "89abcdef"}])
def test_trials_race_within_their_method_and_study_only(other: dict[str, str]) -> None:
    told = Told(None, racing=True)
    told.says(trial_of(0), interval(25, 9.0, 8.0, 9.5))
    assert told.says(trial_of(1, **other), interval(25, 1.0, 0.0, 2.0)) == "CONTINUE"
    assert told.says(trial_of(2), interval(25, 1.0, 0.0, 2.0)) == "STOP"


def test_without_an_interval_or_without_being_asked_nobody_races() -> None:
    nan = float("nan")
    bare = report(25, BAD_SCORE, arg=nan, arg_low=nan, arg_high=nan)
    for racing, worse in ((True, bare), (False, interval(25, -50.0, -60.0, -40.0))):
        told = Told(None, racing=racing)
        told.says(trial_of(0), interval(25, 5.0, 3.0, 7.0))
        assert told.says(trial_of(1), worse) == "CONTINUE"
    leads = Told(None, racing=True)  # a leader without an interval beats nobody
    leads.says(trial_of(0), report(25, 5.0, arg_low=nan, arg_high=nan))
    assert leads.says(trial_of(1), interval(25, 1.0, 0.0, 2.0)) == "CONTINUE"


def test_the_last_report_of_a_trial_counts_though_tune_does_not_ask_about_it() -> None:
    told = Told(asha(RUNGS), racing=True)
    told.ends(trial_of(0), interval(100, 9.0, 8.0, 9.5))
    told.ends(trial_of(1), {})  # it failed before its first report
    assert told.says(trial_of(2), interval(25, 1.0, 0.0, 2.0)) == "STOP"
    assert not told.problems


# --- what earlier sessions computed --------------------------------------------------------------


def test_what_is_on_record_is_compared_with_and_decides_nothing(halving: Told) -> None:
    halving.scheduler.replay(trial_of(-1).config, [report(25, 9.0), report(50, 9.0)])
    halving.scheduler.replay(trial_of(-2).config, [report(25, -9.0)])  # it was stopped there
    assert not halving.stops
    assert halving.says(trial_of(0), report(25, -1.0)) == "STOP"  # below the median of 9 and −9
    assert halving.says(trial_of(1), report(50, 8.0)) == "STOP"


def test_a_trial_that_goes_on_is_neither_decided_again_nor_its_own_rival(halving: Told) -> None:
    halving.scheduler.replay(trial_of(-1).config, [report(25, 9.0)])
    again = trial_of(3)
    halving.scheduler.replay(
        again.config | {"trial": -4, "gpus": 0.5}, [report(25, 1.0)], over=False
    )
    # it passed rung 25 in an earlier session, before 9 was there
    assert halving.says(again, report(25, 1.0, steps=30)) == "CONTINUE"
    # 9 and 1 are at rung 25, each once: the median is 5
    assert halving.says(trial_of(4), report(25, 5.1)) == "CONTINUE"
    assert halving.says(trial_of(5), report(25, 4.9)) == "STOP"
    assert halving.says(again, report(50, -5.0)) == "CONTINUE"  # the first at rung 50


def test_the_record_leads_the_race_too() -> None:
    told = Told(None, racing=True)
    told.scheduler.replay(trial_of(-1).config, [interval(25, 9.0, 8.0, 9.5)])
    assert told.says(trial_of(0), interval(25, 1.0, 0.0, 2.0)) == "STOP"


# --- any scheduler of Tune's ---------------------------------------------------------------------


def test_a_median_rule_without_a_metric_of_its_own_stops_at_rungs() -> None:
    told = Told(
        MedianStoppingRule(time_attr="rung_steps", grace_period=1, min_samples_required=2),
        name="MedianStoppingRule",
    )
    told.says(trial_of(0), report(25, 5.0))
    told.says(trial_of(1), report(25, 7.0))
    # a report without a score would poison the means
    told.says(trial_of(2), report(25, float("nan"), rung_steps=0))
    assert told.says(trial_of(3), report(25, 6.5)) == "CONTINUE"
    assert told.says(trial_of(4), report(25, 1.0)) == "STOP"
    ((number, decision),) = told.stops
    assert (number, decision.steps, decision.by) == (4, 25, "MedianStoppingRule")
    assert not told.problems


def test_a_median_rule_is_told_the_record_too() -> None:
    told = Told(MedianStoppingRule(time_attr="rung_steps", grace_period=1, min_samples_required=2))
    told.scheduler.replay(trial_of(-1).config, [report(25, 5.0), report(50, 5.0)])
    told.scheduler.replay(trial_of(-2).config, [report(25, 7.0), report(50, 7.0)])
    assert not told.problems
    assert told.says(trial_of(0), report(25, 1.0)) == "STOP"


def test_a_users_own_asha_without_a_metric_works() -> None:
    told = Told(
        ASHAScheduler(time_attr="rung_steps", grace_period=25, max_t=100, reduction_factor=2)
    )
    told.says(trial_of(0), report(25, 5.0))
    assert told.says(trial_of(1), report(25, 1.0)) == "STOP"
    assert not told.problems


class Lister(FIFOScheduler):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str, float | None]] = []

    def _note(self, name: str, trial: Any, result: dict[str, Any] | None = None) -> None:
        self.calls.append((name, trial.trial_id, None if result is None else result["score"]))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._note("add", trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._note("error", trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._note("remove", trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self._note("result", trial, result)
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._note("complete", trial, result)


def test_a_scheduler_hears_of_every_rung_once_and_of_finite_scores_only() -> None:
    lister = Lister()
    told = Told(lister)
    trial, nan = trial_of(0), float("nan")
    told.says(trial, report(25, nan, rung_steps=0, steps=10))
    for steps in (25, 50):
        told.says(trial, report(steps, float(steps)))
        told.says(trial, report(steps, float(steps), steps=steps + 5))
    told.ends(trial, report(100, 100.0))
    assert lister.calls == [
        ("add", "id0", None),
        ("result", "id0", 25.0),
        ("result", "id0", 50.0),
        ("complete", "id0", 100.0),
    ]


def test_a_trial_that_ends_between_rungs_is_told_as_one_that_failed() -> None:
    lister = Lister()
    told = Told(lister)
    told.says(trial_of(0), report(25, 1.0))
    told.ends(trial_of(0), report(25, 1.0, steps=40, done=True))
    told.says(trial_of(1), report(25, float("nan"), rung_steps=0))
    told.ends(trial_of(1), report(25, float("nan"), rung_steps=0, done=True))
    assert [call for call in lister.calls if call[0] != "add"] == [
        ("result", "id0", 1.0),
        ("error", "id0", None),
        ("error", "id1", None),
    ]


def test_a_trial_whose_worker_died_is_added_again() -> None:
    lister = Lister()
    told = Told(lister)
    trial = trial_of(0)
    told.says(trial, report(25, 1.0))
    told.scheduler.on_trial_error(told.controller, trial)
    told.scheduler.on_trial_add(told.controller, trial)
    told.says(trial, report(25, 1.0))  # its last rung, which it is asked about no more
    told.scheduler.on_trial_remove(told.controller, trial)
    assert [call[0] for call in lister.calls] == ["add", "result", "error", "add", "remove"]


def test_a_scheduler_that_pauses_is_obeyed() -> None:
    class Pauses(FIFOScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            return TrialScheduler.PAUSE

    assert Told(Pauses()).says(trial_of(0), report(25, 1.0)) == "PAUSE"


@pytest.mark.parametrize(
    "call",
    [
        lambda told: told.scheduler.on_trial_add(told.controller, trial_of(0)),
        lambda told: told.says(trial_of(0), report(25, 1.0)),
        lambda told: told.ends(trial_of(0), report(100, 1.0)),
        lambda told: told.scheduler.replay(trial_of(-1).config, [report(25, 1.0)]),
    ],
    ids=["add", "result", "complete", "replay"],
)
def test_an_error_in_a_scheduler_is_told_and_ends_nothing(call: Callable[[Told], Any]) -> None:
    class Broken(FIFOScheduler):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("on_trial"):
                raise IndexError("no rung")
            return super().__getattribute__(name)

    told = Told(Broken())
    assert call(told) in (None, "CONTINUE")
    assert set(told.problems) == {"the scheduler failed: IndexError('no rung'); the trial goes on"}
    assert not told.stops


def _waiting(number: int, method: str = "maml") -> Any:
    trial = trial_of(number, method)
    trial.status = "PENDING"
    return trial


def _chosen(inner: Any, *trials: Any) -> tuple[Any, list[str]]:
    told = Told(inner)
    told.controller = SimpleNamespace(get_trials=lambda: list(trials))
    with pytest.MonkeyPatch.context() as patch:
        # Tune's choice in order of arrival, without asking Ray for room
        patch.setattr(
            FIFOScheduler,
            "choose_trial_to_run",
            lambda _, controller: next(
                (one for one in controller.get_trials() if one.status == "PENDING"), None
            ),
        )
        return told.scheduler.choose_trial_to_run(told.controller), told.problems


class Last(FIFOScheduler):
    """Runs what came last."""

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        return tune_controller.get_trials()[-1]


def test_the_scheduler_chooses_who_runs_once_plain_prompt_tuning_does() -> None:
    first, second = _waiting(0), _waiting(1)
    assert _chosen(Last(), first, second) == (second, [])
    baseline = _waiting(2, "prompt_tuning")
    assert _chosen(Last(), baseline, first, second) == (baseline, [])
    assert _chosen(None, first, second) == (first, [])


def test_a_scheduler_that_fails_to_choose_does_not_stop_the_search() -> None:
    class Broken(FIFOScheduler):
        def choose_trial_to_run(self, tune_controller: Any) -> Any:
            raise KeyError("bracket")

    trial = _waiting(0)
    chosen, problems = _chosen(Broken(), trial)
    assert chosen is trial
    assert problems == ["the scheduler failed: KeyError('bracket'); the trial goes on"]


def test_tune_can_pickle_the_scheduler() -> None:
    assert pickle.loads(pickle.dumps(Told(asha(RUNGS), racing=True).scheduler)) is not None
