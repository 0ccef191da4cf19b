"""Replicates over upstream seeds: who gets them, and a whole toy search with its document."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from drivers import run_rows
from ray.tune.search import Searcher
from rich.console import Console
from search_toys import KNOWN_RATES, bits, toy_job
from stored import compute

from mpt.config import StudyConfig, UpstreamConfig
from mpt.metrics.replicates import Comparison, Replicates, compare
from mpt.search import run as run_module
from mpt.search.comparison import seed_of
from mpt.search.cost.time_left import TimeLeft
from mpt.search.dispatch import TrialGroup
from mpt.search.display.display import Display
from mpt.search.job import DONE, FAILED, INTERRUPTED, Execution, SearchJob
from mpt.search.look import peek
from mpt.search.ray import tuning, watchdog
from mpt.search.ray.searchers import TrialQueue
from mpt.search.replication import (
    Allowance,
    Point,
    configured_replicate,
    further_replicates,
    of_first_seed,
    raced,
    replicate_config,
    survivors,
    with_seed,
)
from mpt.search.run import _Driver, run_search
from mpt.study.specs import TrialSpec, UpstreamSpec, baseline_trials
from mpt.study.study import StudyPlan


def _compared(args: dict[str, list[float]]) -> Comparison:
    """Return a comparison of configurations with these ARGs at upstream seeds 0, 1, …"""
    baseline = np.full((3, 2), 0.5)
    rows = [
        Replicates(
            name=name, scores={n: baseline * (1 + arg / 100) for n, arg in enumerate(values)}
        )
        for name, values in args.items()
    ]
    return compare(rows, baseline, rng=np.random.default_rng(1))


def test_after_one_seed_the_better_half_goes_on_best_first() -> None:
    found = _compared({"a": [1], "b": [5], "c": [3], "d": [2], "e": [-9]})
    assert survivors(found, 1) == ["b", "c", "d"]


def test_later_what_is_clearly_worse_is_dropped_and_what_may_be_best_goes_on() -> None:
    found = _compared({"a": [10, 11], "b": [10.5, 9.5], "c": [-40, -41], "d": [1]})
    assert survivors(found, 2) == ["a", "b"]


def _points(*rungs: tuple[int, ...]) -> list[Point]:
    """Return points of one trial for every tuple of rungs; a step has 8 row passes."""
    plan = StudyPlan(config=StudyConfig(), source=("s",), scored=("t",), partial=None)
    fixed = UpstreamConfig(method="multitask", batch_size=8, items_per_step=1)
    trials = [
        TrialSpec(
            plan=plan,
            upstream=UpstreamSpec(config=dataclasses.replace(fixed, outer_lr=rate), rungs=own),
        )
        for rate, own in enumerate(rungs, start=1)
    ]
    return [(trial, steps) for trial in trials for steps in trial.upstream.rungs]


def test_a_budget_is_of_points_and_of_the_rows_that_trajectories_pass() -> None:
    points = _points(*[(1, 4)] * 5)
    assert Allowance.of(points, 0) == Allowance(points=10, passes=5 * 4 * 8)
    left = Allowance.of(points, 2)  # the best on two fresh seeds: two long trajectories
    assert left == Allowance(points=8, passes=3 * 4 * 8)
    one, long = points[0], points[1]
    assert left.after([one, long]) == Allowance(points=6, passes=2 * 4 * 8)  # on one trajectory


def test_two_points_of_a_small_grid_are_always_compared_on_a_second_seed() -> None:
    points = _points((1, 4), (1, 4))
    left = Allowance.of(points, 3)
    assert left == Allowance(points=2, passes=2 * 4 * 8)
    assert left.affordable([points[1], points[3], points[0]]) == [points[1], points[3]]


def test_what_is_too_dear_is_passed_over_and_one_alone_is_none() -> None:
    points = _points((1, 4), (1, 4), (1, 4))
    (a1, a4, b1, b4, c1, _) = points
    wanted = [a4, b4, a1, c1, b1]
    assert Allowance(points=9, passes=8 * 8).affordable(wanted) == [a4, b4, a1, b1]
    assert Allowance(points=9, passes=7 * 8).affordable(wanted) == [a4, a1, c1, b1]
    assert Allowance(points=2, passes=7 * 8).affordable(wanted) == [a4, a1]
    assert Allowance(points=1, passes=7 * 8).affordable(wanted) == []
    assert Allowance(points=-3, passes=7 * 8).affordable(wanted) == []
    assert Allowance(points=9, passes=4 * 8).affordable([a4, b4]) == []


def test_a_race_that_cannot_pay_for_the_best_is_over() -> None:
    found = _compared({"a": [1], "b": [5], "c": [3], "d": [2]})
    named = dict(zip("abcd", _points((1,), (4,), (1,), (1,)), strict=True))
    left = Allowance(points=4, passes=5 * 8)
    assert raced(found, 1, named, left) == [named["b"], named["c"]]
    assert raced(found, 1, named, Allowance(points=4, passes=3 * 8)) == []


@pytest.fixture(scope="module")
def searched(
    one_worker: None, toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: Any
) -> tuple[SearchJob, dict[str, Any], str]:
    """A toy search of four trials with three upstream seeds and two fresh ones."""
    job = _job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("replicates") / "results")
    return job, *_run(job)


def _job(checkpoint: Path, gym: Path, results: Path, **changes: Any) -> SearchJob:
    job = toy_job(checkpoint, gym, results, inner_lrs=(0.1, 1.0, 5.0, 7.0))
    seeds = {"replicates": 3, "fresh_replicates": 2, **changes}
    config = dataclasses.replace(job.plans[0].config, **seeds)
    plan = dataclasses.replace(job.plans[0], config=config)
    trials = tuple(dataclasses.replace(trial, plan=plan) for trial in job.trials)
    return dataclasses.replace(job, trials=trials)


def _run(job: SearchJob, max_failures: int = 0) -> tuple[dict[str, Any], str]:
    file = io.StringIO()
    bodies: list[Any] = []
    console = Console(file=file, width=120, markup=False, soft_wrap=True)
    show = Display(job, console, as_json=True, sink=bodies.append)
    execution = Execution(
        signals=False, max_failures=max_failures, resume="again", next_step="rest"
    )
    assert run_search(job, execution, display=show, rates=KNOWN_RATES) == DONE, file.getvalue()
    return dict(bodies[-1]), file.getvalue()


def test_the_better_points_get_more_seeds_and_the_best_one_is_reported_on_fresh_ones(
    searched: tuple[SearchJob, dict[str, Any], str],
) -> None:
    job, body, text = searched
    (ranking,) = body["rankings"]
    seeds = [len(one["by_seed"]) for one in ranking["configurations"]]
    points = len(job.points)
    assert len(seeds) == points == 12
    assert 2 <= sum(count >= 2 for count in seeds) <= points // 2
    best = ranking["configurations"][ranking["best"]["place"]]
    assert set(map(int, best["by_seed"])) <= {42, 1042, 2042}
    assert ranking["best"]["how"] == "on fresh upstream seeds 3042, 4042"
    assert body["best"] == ranking["best"]

    assert best["settings"]["seed"] is None
    computed = [point for point in body["points"] if point["status"] == "ok"]
    assert len(computed) <= 2 * points  # the budget, of points and of steps
    steps = [max(own) for own in _by_trial(computed).values()]
    assert sum(steps) <= 2 * sum(trial.upstream.rungs[-1] for trial in job.trials)
    assert "reported ARG" in text
    assert "on fresh upstream seeds 3042, 4042" in text
    assert "upstream seed 1042: " in text


def test_the_time_of_all_rounds_is_told_with_the_first(
    searched: tuple[SearchJob, dict[str, Any], str],
) -> None:
    _, _, text = searched
    first, *others = [line for line in text.splitlines() if line.startswith("  time ")]
    assert re.fullmatch(r"  time     about .+, at most .+ with more upstream seeds", first)
    assert others
    assert not any("at most" in line for line in others)
    # workers stay, so that a round is told without the 8 s of `KNOWN_RATES` until they are ready
    assert all(float(line.split()[2]) < 8 for line in others)
    assert float(first.split()[2]) >= 8


def _by_trial(points: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Return the steps of the learned points of every trial."""
    steps: dict[str, list[int]] = {}
    for point in points:
        steps.setdefault(point["trial"], []).append(point["steps"])
    return steps


def test_all_rounds_are_one_session_so_that_workers_stay(
    searched: tuple[SearchJob, dict[str, Any], str],
) -> None:
    job, _, text = searched
    assert text.count("upstream seed") > 2  # a second seed at least, and the fresh ones
    (session,) = (job.results / "checkpoints").iterdir()
    assert len(list(session.glob("trial-*"))) > len(job.trials)


@pytest.fixture
def anew(searched: tuple[SearchJob, dict[str, Any], str], tmp_path: Path) -> SearchJob:
    """The same search without results."""
    return dataclasses.replace(searched[0], results=tmp_path / "results")


def test_a_search_interrupted_in_a_later_round_is_resumed_to_the_same_bits(
    searched: tuple[SearchJob, dict[str, Any], str],
    anew: SearchJob,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, body, _ = searched
    begin, rounds = _Driver._begin, list[TimeLeft]()

    def interrupted(*arguments: Any) -> TimeLeft:
        rounds.append(begin(*arguments))
        if len(rounds) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return rounds[-1]

    monkeypatch.setattr(_Driver, "_begin", interrupted)
    execution = Execution(max_failures=0, resume="again", next_step="rest")
    assert run_search(anew, execution, rates=KNOWN_RATES) == INTERRUPTED
    assert "Resume with: again" in capsys.readouterr().out
    first, second = (one._places for one in rounds)  # in the plan of each round
    assert first == {0: 0, 1: 1, 2: 2, 3: 3}
    assert second == {4 + place: place for place in range(len(second or {}))} != {}
    resumed, _ = _run(anew)
    assert resumed["rankings"] == body["rankings"]
    assert bits(anew.results) == bits(whole.results)


def test_a_signal_between_two_rounds_is_no_end_of_the_search(
    anew: SearchJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No point is missing then, and yet not all upstream seeds have been run."""

    def signalled(driver: _Driver, *_: Any) -> None:
        driver._interrupts.name = "SIGTERM"

    monkeypatch.setattr(_Driver, "_next_round", signalled)
    execution = Execution(signals=False, max_failures=0, resume="again", next_step="rest")
    assert run_search(anew, execution, rates=KNOWN_RATES) == INTERRUPTED
    assert "Resume with: again" in capsys.readouterr().out


def test_a_worker_that_dies_between_two_rounds_costs_no_trial_and_no_bit(
    searched: tuple[SearchJob, dict[str, Any], str],
    anew: SearchJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tune keeps it for the next round, and notices when a trial is to begin in it."""
    whole, body, _ = searched
    turn, hear = tuning.Session._next_round, tuning.Watcher.on_trial_result
    workers, killed = set[int](), list[int]()

    def heard(watcher: tuning.Watcher, **told: Any) -> None:
        workers.add(told["result"]["pid"])
        hear(watcher, **told)

    def after_a_death(session: tuning.Session) -> list[dict[str, Any]]:
        if not killed:
            killed.extend(workers)
            for worker in killed:
                os.kill(worker, signal.SIGKILL)
            while any(map(watchdog.lives, killed)):
                time.sleep(0.05)
        return turn(session)

    monkeypatch.setattr(tuning.Watcher, "on_trial_result", heard)
    monkeypatch.setattr(tuning.Session, "_next_round", after_a_death)
    found, text = _run(anew, max_failures=1)
    assert len(killed) == 1
    assert len(workers) == 2
    assert text.count("its worker died") == 1
    assert found["rankings"] == body["rankings"]
    assert bits(anew.results) == bits(whole.results)


def test_a_trial_that_fails_in_a_later_round_ends_the_search_with_its_name(
    anew: SearchJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def misnamed(trials: Any, replicate: TrialSpec) -> dict[str, int | str]:
        return {**replicate_config(trials, replicate), "upstream_seed": 13}

    monkeypatch.setattr(tuning, "replicate_config", misnamed)
    execution = Execution(signals=False, max_failures=0, resume="again")
    assert run_search(anew, execution, rates=KNOWN_RATES) == FAILED
    said = capsys.readouterr().out
    assert "has another backbone, data or code than the driver" in said
    assert "points are missing. Try again: again" in said


def test_rounds_follow_when_all_trials_before_have_ended_and_the_last_one_is_empty() -> None:
    rounds: list[list[dict[str, Any]]] = [[{"trial": 2}], []]
    queue = _queue([{"trial": 0}, {"trial": 1}], lambda: rounds.pop(0))
    assert [queue.suggest(name) for name in "abc"] == [{"trial": 0}, {"trial": 1}, None]
    queue.on_trial_complete("b", {"rung_steps": 2})
    assert queue.suggest("c") is None  # the first still runs
    queue.on_trial_complete("a", error=True)
    assert [queue.suggest("c"), queue.suggest("d")] == [{"trial": 2}, None]
    queue.on_trial_complete("c", {"rung_steps": 2})
    assert queue.suggest("d") == Searcher.FINISHED
    assert rounds == []


def test_an_error_in_the_choice_of_a_round_ends_the_supply_with_a_note() -> None:
    def more() -> list[Any]:
        raise ValueError("no")

    problems: list[str] = []
    assert _queue([], more, problems).suggest("a") == Searcher.FINISHED
    assert problems == ["the choice of the next trials: no"]


def _queue(listed: list[Any], more: Any, problems: list[str] | None = None) -> TrialQueue:
    heard = [] if problems is None else problems

    @contextlib.contextmanager
    def shield(what: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            heard.append(f"{what}: {error}")

    return TrialQueue(listed, None, mock.Mock(), mock.Mock(), shield, more)


def test_of_a_round_the_longest_trials_are_handed_out_first(
    searched: tuple[SearchJob, dict[str, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = searched[0].trials[0]
    rungs = trial.upstream.rungs
    more = [with_seed(trial, 7, rungs[:2]), with_seed(trial, 8, rungs[2:]), with_seed(trial, 9)]
    groups = [TrialGroup(specs=(one,), indices=(n,)) for n, one in enumerate(more)]
    monkeypatch.setattr(run_module, "open_groups", lambda *_: groups)
    driver: Any = SimpleNamespace(_database=None, _show=mock.Mock())
    ordered = _Driver._replicates(driver, mock.Mock(), more)
    assert [group.specs[0] for group in ordered] == [more[2], more[1], more[0]]


@pytest.mark.parametrize("seed", [42, 1042])
def test_a_replicate_is_told_by_its_trial_seed_and_rungs(
    searched: tuple[SearchJob, dict[str, Any], str], seed: int
) -> None:
    plan = searched[0].plans[0]
    trials = (*baseline_trials(plan), *searched[0].trials)
    for place, trial in enumerate(trials):
        if trial.learned is None:
            continue
        replicate = with_seed(trial, seed, trial.upstream.rungs[1:])
        config = replicate_config(trials, replicate)
        assert config["of"] == place
        assert all(isinstance(value, (int, str)) for value in config.values())
        assert configured_replicate(trials, config) == replicate


def test_the_same_again_computes_nothing_and_says_the_same(
    searched: tuple[SearchJob, dict[str, Any], str],
) -> None:
    job, body, _ = searched
    before = bits(job.results)
    again, text = _run(job)
    assert again["rankings"] == body["rankings"]
    assert "done" not in text.split("upstream seed", maxsplit=1)[0].splitlines()[-1]
    assert bits(job.results) == before
    with peek(job) as look:
        assert look.work.points_there == look.work.points


def test_without_a_race_all_configurations_get_all_seeds_and_stored_ones_are_not_run_again(
    searched: tuple[SearchJob, dict[str, Any], str],
) -> None:
    """What is missing is computed without Ray; then the search has nothing left to do."""
    job, body, _ = searched
    stored, rows = {one["keys"]["point"] for one in body["points"]}, run_rows(job.results)
    whole = dataclasses.replace(job, allocation="full", trials=job.trials[:2])
    rounds = 0
    while missing := _missing(whole):
        compute(dataclasses.replace(whole, trials=missing))
        rounds += 1
    assert rounds <= 2  # the seeds at once, then the fresh ones of the best
    found, text = _run(whole)
    assert "time left" not in text  # nothing was started
    (ranking,) = found["rankings"]
    assert {len(one["by_seed"]) for one in ranking["configurations"]} == {3}
    shared = {one["keys"]["point"] for one in found["points"]} & stored
    assert len(shared) >= 6  # those of the first seed at least
    assert rows.items() <= run_rows(job.results).items()


def _missing(job: SearchJob) -> tuple[TrialSpec, ...]:
    """Return the trials that a search would run next."""
    with peek(job) as look:
        board = look.board
        return tuple(trial for n, trial in enumerate(board.trials) if not board.over(n))


def test_a_replicate_has_a_trajectory_of_its_own_and_the_study_stays_the_same(
    searched: tuple[SearchJob, dict[str, Any], str],
) -> None:
    job, body, _ = searched
    of_point: dict[str, set[str]] = {}
    for one in body["points"]:
        own = {name: value for name, value in one["settings"].items() if name != "seed"}
        if one["status"] == "ok":
            of_point.setdefault(f"{own} {one['steps']}", set()).add(one["keys"]["prompt"])
    counts = sorted(map(len, of_point.values()))
    assert counts[-1] >= 4  # three seeds or two, and two fresh ones: all end elsewhere
    assert len({one["keys"]["study"] for one in body["points"]}) == 1
    trial = job.trials[0]
    assert of_first_seed(trial) == trial
    assert with_seed(trial, 42) == trial
    assert with_seed(trial, 7, (2,)).upstream.rungs == (2,)
    assert with_seed(trial, 7).name != trial.name


def _spent(rounds: list[list[TrialSpec]]) -> list[tuple[int, int, int]]:
    """Return, of every round, its trajectories, points and upstream steps."""
    return [
        (
            len(trials),
            sum(len(one.upstream.rungs) for one in trials),
            sum(max(one.upstream.rungs) for one in trials),
        )
        for trials in rounds
    ]


def test_a_plan_takes_a_race_to_spend_its_budget_on_whole_trajectories(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    job = _job(toy_checkpoint, toy_gym, tmp_path)  # 4 trials of 3 rungs, seeds 42, 1042, 2042
    trials = [of_first_seed(trial) for trial in job.trials]
    last = max(trials[0].upstream.rungs)
    # the first seed takes 24 steps; of 24 more, two fresh seeds take 12: two trajectories are left
    race = further_replicates(trials, "race")
    assert _spent(race) == [(2, 6, 2 * last), (2, 2, 2 * last)]
    assert [[seed_of(one) for one in trials] for trials in race] == [[1042] * 2, [3042, 4042]]
    full = further_replicates(trials, "full")
    assert [one[:2] for one in _spent(full)] == [(8, 24), (2, 2)]  # nobody waits for a seed


def test_seeds_that_have_begun_are_not_planned_again(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    job = _job(toy_checkpoint, toy_gym, tmp_path)
    trials = [of_first_seed(trial) for trial in job.trials]
    known = [*trials, with_seed(trials[0], 1042, [2, 4])]
    later = further_replicates(known, "race")
    assert [[seed_of(one) for one in trials] for trials in later] == [[2042], [3042, 4042]]
    assert _spent(later)[0] == (1, 2, 6)  # 8 steps are left, and not more points than before
    fresh = [with_seed(trials[0], seed, [2]) for seed in (2042, 3042, 4042)]
    assert further_replicates([*known, *fresh], "race") == []


def test_a_search_with_one_upstream_seed_plans_no_further_ones(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    job = _job(toy_checkpoint, toy_gym, tmp_path, replicates=1)
    assert further_replicates(job.trials, "race") == []
