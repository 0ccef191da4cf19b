"""The time that a running search will still take, in closed form."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mpt.search.cost.plan import Rates, RemainingWork, RunRate, RunWork, TrialWork
from mpt.search.cost.time_left import TimeLeft, clock_text
from mpt.trial.starts.cost import NOTHING, ChoiceWork

RATES = Rates(steps={"maml": 2.0}, runs={"prompt": RunRate(step_s=2.0, row_s=0.1)}, start_s=5.0)


def _runs(count: int) -> RunWork:
    """Runs of 10 s at `RATES`: 4 steps of 2 s and 20 rows of 0.1 s."""
    return RunWork(kind="prompt", runs=count, steps=4 * count, rows=20 * count)


def _work(*trials: tuple[int, int], shared: int = 0, begin: int = 0) -> RemainingWork:
    return RemainingWork(
        trials=tuple(
            TrialWork(kind="maml", steps=steps, runs=_runs(runs), points=1, begin=begin)
            for steps, runs in trials
        ),
        points=1,
        points_there=0,
        runs=1,
        runs_there=0,
        shared=shared,
        shared_there=0,
        shared_left=(_runs(shared),) if shared else (),
    )


def _done(steps: int, runs: float, choosing: ChoiceWork = NOTHING) -> dict[str, Any]:
    """Return a trial's report."""
    rows = {"choice_steps": choosing.steps, "choice_rows": choosing.rows}
    return {"steps": steps, "runs": runs, **rows}


def _at(seconds: float, work: RemainingWork) -> TimeLeft:
    """Return a clock-work that began at 0 and looks at the clock from now on at `seconds`."""
    times = iter([0.0])
    return TimeLeft(work, RATES, 2, clock=lambda: next(times, seconds))


def test_time_left_starts_with_the_estimate_and_then_follows_the_clock() -> None:
    now = 100.0
    left = TimeLeft(_work((20, 2), (20, 2)), RATES, 2, clock=lambda: now)  # 120 s of work
    assert left.seconds == 65.0
    now += 5
    assert left.seconds == 60.0  # nothing is done yet: the estimate runs down
    left.report(0, 0, _done(20, 1))  # 50 of 120 s
    now = 125.0
    assert left.seconds == pytest.approx(25 * 70 / 50)
    # a trial that was started again counts runs from 0: what is done stays done
    left.report(0, 0, _done(20, 0))
    assert left.seconds == pytest.approx(25 * 70 / 50)
    left.report(0, 0, _done(20, 2))
    left.report(1, 0, _done(20, 2))
    assert left.seconds == 0.0


def test_a_trial_that_the_plan_did_not_know_counts_as_its_last_one() -> None:
    now = 0.0
    left = TimeLeft(_work((20, 2), (20, 2)), RATES, 2, clock=lambda: now)
    left.report(7, 0, _done(20, 2))  # 60 of 120 s
    now = 30.0
    assert left.seconds == pytest.approx(30.0)


def test_trials_of_a_later_round_have_places_of_their_own_in_its_plan() -> None:
    """The search has counted its trials on; those of this round are its sixth and its fifth."""
    now, work = 0.0, _work((20, 4), (5, 0))  # 80 s and 10 s
    left = TimeLeft(work, RATES, 2, clock=lambda: now, places={5: 0, 4: 1})
    left.report(5, 9, _done(20, 1))  # 50 of 90 s
    now = 30.0
    assert left.seconds == pytest.approx(30.0 * 40 / 50)
    left.stopped(4)
    assert left.seconds == pytest.approx(30.0 * 30 / 50)
    left.report(0, 10, _done(5, 0))  # of the first round: not in this plan, so as its last
    assert left.seconds == pytest.approx(30.0 * 20 / 60)


def test_plain_prompt_tuning_is_part_of_what_is_done() -> None:
    left = _at(30.0, _work((20, 2), shared=6))  # 60 s of its own and 60 s shared
    left.report(0, 0, _done(20, 2))
    assert left.seconds == pytest.approx(30.0)
    for number in (7, 8):  # two tasks' trials
        left.report(None, number, _done(0, 3))
    assert left.seconds == 0.0


def test_the_trials_by_task_of_one_place_add_up() -> None:
    left = _at(30.0, _work((0, 4)))  # 40 s
    for number in (3, 4):
        left.report(0, number, _done(0, 1.5))
    assert left.seconds == pytest.approx(30.0 / 3)


def test_steps_that_were_there_before_are_not_counted_again() -> None:
    left = _at(30.0, _work((20, 2), begin=40))
    left.report(0, 0, _done(50, 0))
    assert left.seconds == pytest.approx(30.0 * 40 / 20)


def test_what_is_left_of_a_stopped_trial_is_taken_out() -> None:
    left = _at(30.0, _work((20, 2), (20, 2)))  # 120 s
    left.report(0, 0, _done(20, 1))  # 50 of them
    left.report(1, 1, _done(5, 0))  # 10
    left.stopped(1)
    assert left.seconds == pytest.approx(30.0 * 10 / 60)
    left.stopped(9)  # one that the plan did not know
    assert left.seconds == pytest.approx(30.0 * 10 / 60)


def test_starts_that_are_chosen_count_as_far_as_they_are() -> None:
    work = _work((20, 2))  # 60 s
    race = ChoiceWork(25, 100)  # 60 s more
    own = dataclasses.replace(_runs(2), steps=8 + race.steps, rows=40 + race.rows, choosing=race)
    trial = dataclasses.replace(work.trials[0], runs=own)
    left = _at(30.0, dataclasses.replace(work, trials=(trial,)))
    left.report(0, 0, _done(20, 0))  # 40 of 120 s
    assert left.seconds == pytest.approx(30.0 * 80 / 40)
    left.report(0, 0, _done(20, 0, ChoiceWork(10, 0)))  # 20 more
    assert left.seconds == pytest.approx(30.0)
    assert left.runs == 0
    left.report(0, 0, _done(20, 0, race))
    assert left.seconds == pytest.approx(30.0 * 20 / 100)
    left.report(0, 0, _done(20, 1, race))  # a run is what it was without a race
    assert left.seconds == pytest.approx(30.0 * 10 / 110)
    # one that goes on in a new process counts anew: what is done stays done
    left.report(0, 0, _done(20, 1, ChoiceWork(5, 0)))
    assert left.seconds == pytest.approx(30.0 * 10 / 110)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (91, "2 min"),
        (5399, "90 min"),
        (5401, "1.5 h"),
        (2e5, "2.3 days"),
    ],
)
def test_durations_are_told_in_fitting_units(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
