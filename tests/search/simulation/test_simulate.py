from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mpt.cli import search as cli
from mpt.config import StudyConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.records import LeafStore, PointStore, make_leaf
from mpt.search.choosers import ListChooser, Search, TpeChooser
from mpt.search.job import Course
from mpt.search.ray.schedulers import RungScheduler
from mpt.search.simulation.recorded import Recorded
from mpt.search.simulation.simulate import Outcome, Simulation, check_recorded, simulate
from mpt.study.spaces import Trajectory, load_space
from mpt.study.study import StudyPlan
from mpt.trial.racing import leader_low

PLAN = StudyPlan(config=StudyConfig(), source=(), scored=(), partial=None)
RUNGS = (1, 2, 4)
BASE = 0.5


def _course(number: int) -> Course:
    config = UpstreamConfig(inner_lr=0.1, outer_lr=1.0 + number)
    return Course(plan=PLAN, trajectory=Trajectory(config=config, rungs=RUNGS))


def _leaves(store: LeafStore, name: str, value: float, seeds: Sequence[int]) -> dict[str, Any]:
    """Put leaves of one task and one learning rate that took one second each."""
    table: dict[str, Any] = {"v": {}}
    for seed in seeds:
        identity = {"of": name, "seed": seed, "train_seed": 42}
        result = {"dev": value, "test": value, "status": "ok"}
        leaf = make_leaf(identity, result, {"seconds": 1.0}, {})
        store.put_many([leaf])
        table["v"][str(seed)] = [[0.5, leaf["key"]]]
    return table


def _record(
    results: Path,
    course: Course,
    args: Sequence[float | None],
    seeds: Sequence[int] = (13, 21),
    **changes: Any,
) -> None:
    """Put a course on record: ARG at its rungs (None: diverged); a step takes a second."""
    store, points = LeafStore(results), PointStore(results)
    config = course.trajectory.config
    baseline = _leaves(store, "base", BASE, seeds)
    for steps, arg in zip(course.trajectory.rungs, args, strict=True):
        name = f"{config.inner_lr}/{config.outer_lr}/{steps}"
        fine = arg is not None
        value = BASE * (1 + (arg or 0.0) / 100)
        body = {
            **{"method": "maml", "partition": "random_to_random", "backbone": "embedded"},
            **{"role": "validation", "config": dataclasses.asdict(config), "steps": steps},
            **{"trajectory": name, "prompt": None, "partial": None, "provenance": {}},
            "status": "ok" if fine else "diverged",
            "note": "" if fine else "diverged",
            "leaves": _leaves(store, name, value, seeds) if fine else {},
            "baseline": baseline if fine else {},
            "cost": {"seconds": float(steps)},
            **changes,
        }
        train_seed = changes.get("train_seed", 42)
        points.put({"trajectory": name, "steps": steps, "train_seed": train_seed}, body)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Four courses; each takes 4 seconds upstream and 2 at each of three rungs."""
    for number, args in enumerate([(5, 6, 7), (4, 9, 8), (6, 5, 3), (1, 2, 3)]):
        _record(tmp_path, _course(number), args)
    return tmp_path


def _simulate(
    results: Path, workers: int = 1, asha: bool = False, racing: bool = False
) -> Outcome:
    recorded = Recorded(results, _course(0))
    chooser = ListChooser([_course(number) for number in range(4)])
    return Simulation(recorded, chooser, workers, asha=asha, racing=racing).run()


def test_without_stopping_everything_runs_and_the_best_is_found(results: Path) -> None:
    outcome = _simulate(results)
    assert [trial.course for trial in outcome.trials] == [_course(n) for n in range(4)]
    assert all(trial.busy == 10.0 for trial in outcome.trials)
    assert outcome.seconds == 40.0
    course, steps, score = outcome.winner
    assert (course, steps) == (_course(1), 2)
    assert score == pytest.approx(9.0, abs=1e-9)
    assert outcome.regret == 0.0
    assert outcome.saved == pytest.approx(0.0, abs=1e-12)
    assert _simulate(results, workers=2).seconds == 20.0
    assert _simulate(results, workers=3).seconds == 20.0  # four courses of 10 seconds


def test_asha_stops_who_falls_behind_and_regret_and_savings_say_what_it_cost(
    results: Path,
) -> None:
    outcome = _simulate(results, asha=True)
    first, second, third, fourth = outcome.trials
    # rung 1: 5 passes, 4 < 5 is stopped, 6 passes, 1 < the median of 5, 4, 6 is stopped;
    # rung 2: 6 passes, 5 < 6 is stopped. The best point, 9 at the second's rung 2, is not found.
    assert first.stopped is None
    assert [one.stopped and one.stopped[:2] for one in (second, third, fourth)] == [
        (1, "asha"),
        (2, "asha"),
        (1, "asha"),
    ]
    assert [trial.busy for trial in outcome.trials] == [10.0, 3.0, 6.0, 3.0]
    assert outcome.winner[0] == _course(0)
    assert outcome.regret == pytest.approx(2.0, abs=1e-9)
    assert outcome.saved == pytest.approx(1 - 22 / 40, abs=1e-12)
    assert [trial.began for trial in outcome.trials] == [0.0, 10.0, 13.0, 19.0]
    assert outcome.seconds == 22.0


def test_with_two_workers_decisions_come_in_the_order_of_simulated_time(results: Path) -> None:
    # the second course reaches rung 1 at the same time as the first, after it in order
    outcome = _simulate(results, workers=2, asha=True)
    assert [trial.began for trial in outcome.trials] == [0.0, 0.0, 3.0, 9.0]
    assert outcome.trials[1].stopped is not None
    assert outcome.trials[1].ended == 3.0


def test_it_is_the_scheduler_of_live_searches_that_decides(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stop(self: RungScheduler, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        asked.append((result["index"], result["steps"]))
        return "STOP"

    monkeypatch.setattr(RungScheduler, "on_trial_result", stop)
    outcome = _simulate(results)
    assert asked == [(number, 1) for number in range(4)]
    assert outcome.seconds == 4 * 3.0


def test_an_error_of_the_scheduler_is_not_passed_over(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpt.search.ray.schedulers import Judge

    def fail(self: Judge, index: int, scores: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Judge, "verdict", fail)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        _simulate(results)


def test_racing_stops_a_course_at_a_rung_below_the_leaders_interval(results: Path) -> None:
    # without noise every interval is a point: who is below the best so far is stopped
    outcome = _simulate(results, racing=True)
    stops = [trial.stopped and trial.stopped[:2] for trial in outcome.trials]
    # the first ends at 7; then 4 < 7, 6 < 7 and 1 < 7 at their first rungs
    assert stops == [None, (1, "racing"), (1, "racing"), (1, "racing")]


def test_racing_stops_a_point_between_two_data_seeds(tmp_path: Path) -> None:
    # Five data seeds; the leader is at 0.95 (ARG +90), the other point at 0.5 (ARG 0). With m of
    # 5 seeds missing, a resample draws one of them Binomial(5, m/5) times. The 97.5 % point is 5
    # of 5 for m = 3 (bound +100) and 4 of 5 for m = 2 (0.4·… : s = 0.2·0.5 + 0.8·1 = 0.9, +80):
    # it is stopped when three seeds are there.
    seeds = (13, 21, 42, 87, 100)
    _record(tmp_path, _course(0), (90, 90, 90), seeds)
    _record(tmp_path, _course(1), (0, 0, 0), seeds)
    recorded = Recorded(tmp_path, _course(0))
    chooser = ListChooser([_course(0), _course(1)])
    outcome = Simulation(recorded, chooser, 1, asha=False, racing=True).run()
    second = outcome.trials[1]
    assert second.stopped is not None
    assert second.stopped.reason == (
        "with 3 of 5 leaves it ends at most at ARG +80.00, below the lower end of the leader's "
        "interval, +90.00"
    )
    assert second.busy == 1 + 3
    assert not second.scores


def test_the_leader_is_the_one_that_live_searches_see(results: Path) -> None:
    recorded = Recorded(results, _course(0))
    points = [recorded.point(_course(n), steps) for n in range(4) for steps in RUNGS]
    leaves = recorded.leaves(points[0], set())
    leaves._there = None  # all of them
    simulation = Simulation(
        recorded, ListChooser([_course(n) for n in range(4)]), 1, asha=False, racing=False
    )
    simulation.run()
    assert simulation._low == leader_low(points, leaves) == pytest.approx(9.0, abs=1e-9)


def test_a_diverged_course_ends_where_it_diverged(tmp_path: Path) -> None:
    _record(tmp_path, _course(0), (5, None, None))
    recorded = Recorded(tmp_path, _course(0))
    outcome = Simulation(recorded, ListChooser([_course(0)]), 1, asha=True, racing=True).run()
    (trial,) = outcome.trials
    assert trial.busy == 2 + 2  # two steps, and the leaves of the first rung
    assert trial.scores[1] == pytest.approx(5.0, abs=1e-9)
    assert (trial.scores[2], trial.scores[4], trial.stopped) == (-100.0, -100.0, None)


def _grid(results: Path) -> list[Course]:
    """Record the embedded grid with a hill in it; return its courses."""
    grid = load_space("maml", "embedded").grid()
    courses = [Course(plan=PLAN, trajectory=one) for one in grid]
    for place, course in enumerate(courses):
        _record(results, course, [place % 5, place % 7, place % 3])
    return courses


def test_tpe_runs_on_records_and_seeds_act(tmp_path: Path) -> None:
    _grid(tmp_path)
    space = load_space("maml", "embedded")

    def chooser(number: int) -> TpeChooser:
        return TpeChooser(Search(space=space, plan=PLAN, count=6, seed=42 + number))

    recorded = Recorded(tmp_path, chooser(0)._search.first)
    first, again = (simulate(recorded, chooser, 3, 2, asha=True, racing=False) for _ in range(2))
    assert first == again
    assert all(len(outcome.trials) == 6 for outcome in first)
    orders = {tuple(trial.course for trial in outcome.trials) for outcome in first}
    assert len(orders) > 1
    assert all(outcome.regret >= 0 for outcome in first)
    assert all(0 < outcome.saved < 1 for outcome in first)


def test_what_is_not_recorded_is_refused_by_name(results: Path) -> None:
    recorded = Recorded(results, _course(0))
    lacking = [_course(0), _course(7)]
    with pytest.raises(UsageError, match=r"lacks 3 points.*maml-inner0.1-outer8-k1-b2.* at 1,"):
        check_recorded(recorded, lacking)
    with pytest.raises(UsageError, match=r"outer8-k1-b2-random_to_random at 1 steps is not rec"):
        Simulation(recorded, ListChooser(lacking), 1, asha=False, racing=False).run()
    check_recorded(recorded, [_course(number) for number in range(4)])
    with pytest.raises(UsageError, match="there is nothing to try"):
        Simulation(recorded, ListChooser([]), 1, asha=False, racing=False).run()


@pytest.mark.parametrize(
    "change",
    [{"partition": "cls_to_cls"}, {"backbone": "x/y"}, {"role": "target"}, {"method": "fomaml"}],
)
def test_points_of_other_settings_are_no_records(tmp_path: Path, change: dict[str, Any]) -> None:
    _record(tmp_path, _course(0), (1, 2, 3), **change)
    with pytest.raises(UsageError, match="holds no point of maml on random_to_random"):
        Recorded(tmp_path, _course(0))


def test_points_that_cannot_be_compared_are_refused(results: Path) -> None:
    _record(results, _course(9), (1, 2, 3), source_set="12")
    with pytest.raises(UsageError, match="points of several studies"):
        Recorded(results, _course(0))


# --- the command --------------------------------------------------------------------------------


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_command_prints_what_ran_what_was_stopped_and_the_regret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _grid(tmp_path)
    before = _files(tmp_path)
    flags = ["--simulate", str(tmp_path), "--simulate-seeds", "4", "--scheduler", "asha"]
    assert cli.main("maml", flags) == 0
    text = capsys.readouterr().out
    assert _files(tmp_path) == before  # nothing is written
    assert text.count("maml-inner") == 9 + 1  # each course once, and the winner
    assert "stopped by asha at rung 25: score" in text
    assert "regret" in text
    assert "% of the cost saved" in text
    assert "over 4 seeds, mean [least, most]:" in text

    assert cli.main("maml", [*flags, "--json", "--searcher", "optuna", "--num-samples", "5"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)["simulations"]
    assert len(found) == 4
    assert all(len(one["trials"]) == 5 for one in found)
    assert "winner" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--space", "paper"], "--simulate lacks 27 points of this search: maml-inner3e-05"),
        (["--space", "wide", "--searcher", "optuna"], "space 'wide' holds ranges"),
        (["--train-seed", "1"], "holds no point of maml on random_to_random with backbone embe"),
    ],
)
def test_a_simulation_that_cannot_be_ends_with_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    _grid(tmp_path)
    assert cli.main("maml", ["--simulate", str(tmp_path), *flags]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_a_directory_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("maml", ["--simulate", "/nonexistent"]) == 2
    assert "there is no such directory" in capsys.readouterr().err
