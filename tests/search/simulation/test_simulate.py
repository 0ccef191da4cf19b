"""A search in simulated time: what runs, who is stopped, what it finds, worked out by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import ASHAScheduler
from stored import Stored

from mpt.cli import search as cli
from mpt.config import StudyConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.search.job import SearchJob, Suggestions
from mpt.search.ray.schedulers import RungScheduler
from mpt.search.ray.searchers import OptunaSearcher
from mpt.search.simulation import Outcome, Recorded, Simulation, check_recorded, simulate
from mpt.store.records import StudyRecord
from mpt.study.spaces import load_space
from mpt.study.specs import TrialSpec, UpstreamSpec
from mpt.study.study import StudyPlan
from mpt.trial.racing import leader_low

PLAN = StudyPlan(config=StudyConfig(), source=(), scored=(), partial=None)
RUNGS = (1, 2, 4)


def _config(number: int) -> UpstreamConfig:
    return UpstreamConfig(inner_lr=0.1, outer_lr=1.0 + number)


def _trial(number: int) -> TrialSpec:
    return TrialSpec(plan=PLAN, upstream=UpstreamSpec(config=_config(number), rungs=RUNGS))


def _job(numbers: Sequence[int], **changes: Any) -> SearchJob:
    trials = tuple(_trial(number) for number in numbers)
    return SearchJob(trials=trials, results=Path("/nowhere"), title="toy", **changes)


def _record(stored: Stored, study: StudyRecord, config: Any, args: Sequence[float | None]) -> None:
    """Put a trial on record: ARG at its rungs (None: diverged); a step and a run take a second."""
    for steps, arg in zip(RUNGS, args, strict=True):
        stored.point(study, config, steps, arg)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Four trials; each takes 4 seconds upstream and 2 at each of three rungs."""
    stored = Stored(tmp_path)
    study = stored.study()
    for number, args in enumerate([(5, 6, 7), (4, 9, 8), (6, 5, 3), (1, 2, 3)]):
        _record(stored, study, _config(number), args)
    return tmp_path


def _simulate(results: Path, workers: int = 1, **changes: Any) -> Outcome:
    recorded = Recorded(results, _trial(0))
    return Simulation(recorded, _job(range(4), **changes), workers).run()


def test_without_stopping_everything_runs_and_the_best_is_found(results: Path) -> None:
    outcome = _simulate(results)
    assert [trial.spec for trial in outcome.trials] == [_trial(n) for n in range(4)]
    assert all(trial.busy == 10.0 for trial in outcome.trials)
    assert outcome.seconds == 40.0
    spec, steps, score = outcome.winner
    assert (spec, steps) == (_trial(1), 2)
    assert score == pytest.approx(9.0, abs=1e-9)
    assert outcome.regret == 0.0
    assert outcome.saved == pytest.approx(0.0, abs=1e-12)
    assert _simulate(results, workers=2).seconds == 20.0
    assert _simulate(results, workers=3).seconds == 20.0  # four trials of 10 seconds


def test_asha_stops_who_falls_behind_and_regret_and_savings_say_what_it_cost(
    results: Path,
) -> None:
    outcome = _simulate(results, scheduler="asha")
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
    assert outcome.winner[0] == _trial(0)
    assert outcome.regret == pytest.approx(2.0, abs=1e-9)
    assert outcome.saved == pytest.approx(1 - 22 / 40, abs=1e-12)
    assert [trial.began for trial in outcome.trials] == [0.0, 10.0, 13.0, 19.0]
    assert outcome.seconds == 22.0


def test_with_two_workers_decisions_come_in_the_order_of_simulated_time(results: Path) -> None:
    # the second trial reaches rung 1 at the same time as the first, after it in order
    outcome = _simulate(results, workers=2, scheduler="asha")
    assert [trial.began for trial in outcome.trials] == [0.0, 0.0, 3.0, 9.0]
    assert outcome.trials[1].stopped is not None
    assert outcome.trials[1].ended == 3.0


def test_it_is_the_scheduler_of_live_searches_that_decides(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stop(self: RungScheduler, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        asked.append((trial.config["outer_lr"], result["rung_steps"]))
        return "STOP"

    monkeypatch.setattr(RungScheduler, "on_trial_result", stop)
    outcome = _simulate(results)
    assert asked == [(1.0 + number, 1) for number in range(4)]
    assert outcome.seconds == 4 * 3.0


def test_an_error_of_the_scheduler_is_not_passed_over(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ASHAScheduler, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(ASHAScheduler, "on_trial_result", fail)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        _simulate(results, scheduler="asha")


def test_racing_stops_a_trial_at_a_rung_below_the_leaders_interval(results: Path) -> None:
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
    stored = Stored(tmp_path)
    study = stored.study(seeds=(13, 21, 42, 87, 100))
    _record(stored, study, _config(0), (90, 90, 90))
    _record(stored, study, _config(1), (0, 0, 0))
    recorded = Recorded(tmp_path, _trial(0))
    outcome = Simulation(recorded, _job((0, 1), racing=True), 1).run()
    second = outcome.trials[1]
    assert second.stopped is not None
    assert second.stopped.reason == (
        "with 3 of 5 runs it ends at most at ARG +80.00, below the lower end of the leader's "
        "interval, +90.00"
    )
    assert second.busy == 1 + 3
    assert not second.scores


def test_the_leader_is_the_one_that_live_searches_see(results: Path) -> None:
    recorded = Recorded(results, _trial(0))
    simulation = Simulation(recorded, _job(range(4)), 1)
    simulation.run()
    every = [recorded.score(_trial(n), steps) for n in range(4) for steps in RUNGS]
    low = leader_low(simulation._landed)
    assert low == leader_low(every) == pytest.approx(9.0, abs=1e-9)


def test_a_diverged_trial_ends_where_it_diverged(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    _record(stored, stored.study(), _config(0), (5, None, None))
    recorded = Recorded(tmp_path, _trial(0))
    job = _job((0,), scheduler="asha", racing=True)
    (trial,) = Simulation(recorded, job, 1).run().trials
    assert trial.busy == 2 + 2  # two steps, and the runs of the first rung
    assert trial.scores[1] == pytest.approx(5.0, abs=1e-9)
    assert (trial.scores[2], trial.scores[4], trial.stopped) == (-100.0, -100.0, None)


def test_runs_are_counted_data_seed_by_data_seed_in_the_studys_order(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    study = stored.study(tasks=("v", "w"), seeds=(100, 13), lrs=(0.5, 0.3, 0.2))
    stored.point(study, _config(0), 1, 1.0)
    recorded = Recorded(tmp_path, _trial(0))
    point = recorded.point(_trial(0), 1)
    assert list(recorded.seed_seconds(point).items()) == [(100, 6.0), (13, 6.0)]
    assert recorded.seconds == 1 + 12


def test_a_study_with_several_starts_is_simulated_where_it_is_asked_for(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    study = stored.study(settings={"starts": 2}, seeds=(100, 13))
    stored.point(study, _config(0), 1, 1.0)
    trial = _trial(0)

    def with_starts(count: int) -> TrialSpec:
        config = dataclasses.replace(trial.plan.config, starts=count)
        return dataclasses.replace(trial, plan=dataclasses.replace(trial.plan, config=config))

    for asked in (1, 2):
        recorded = Recorded(tmp_path, with_starts(asked))
        point = recorded.point(trial, 1)
        # of a data seed the runs of both starts come before those of the next
        assert list(recorded.seed_seconds(point).items()) == [(100, 2.0), (13, 2.0)]
        low = recorded.score(trial, 1)
        assert low.score == pytest.approx(1.0)
        assert recorded.hopeless(point, (100,), [low]) is None
    with pytest.raises(UsageError, match="and train seed 42, 3 starts; run that search there"):
        Recorded(tmp_path, with_starts(3))


def _grid(results: Path) -> None:
    """Record the embedded grid with a hill in it."""
    stored = Stored(results)
    study = stored.study()
    for place, spec in enumerate(load_space("maml", "embedded").grid()):
        for steps, arg in zip(spec.rungs, (place % 5, place % 7, place % 3), strict=True):
            assert isinstance(spec.config, UpstreamConfig)
            stored.point(study, spec.config, steps, arg)


def _tpe(results: Path) -> Callable[[int], SearchJob]:
    space = load_space("maml", "embedded")

    def job_of(number: int) -> SearchJob:
        suggestions = Suggestions(space=space, plan=PLAN, count=6, seed=42 + number)
        return SearchJob(
            trials=(suggestions.first,),
            suggestions=suggestions,
            scheduler="asha",
            results=results,
            title="toy",
        )

    return job_of


def test_tpe_runs_on_records_and_seeds_act(tmp_path: Path) -> None:
    _grid(tmp_path)
    job_of = _tpe(tmp_path)
    recorded = Recorded(tmp_path, job_of(0).trials[0])
    first, again = (simulate(recorded, job_of, 3, 2) for _ in range(2))
    assert first == again
    assert all(len(outcome.trials) == 6 for outcome in first)
    assert all(len({trial.spec for trial in outcome.trials}) == 6 for outcome in first)
    orders = {tuple(trial.spec for trial in outcome.trials) for outcome in first}
    assert len(orders) > 1
    assert all(outcome.regret >= 0 for outcome in first)
    assert all(0 < outcome.saved < 1 for outcome in first)


def test_the_searcher_hears_the_best_score_of_every_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _grid(tmp_path)
    heard: list[float] = []

    def complete(
        self: OptunaSearcher, trial_id: str, result: dict[str, Any] | None, error: bool
    ) -> None:
        assert result is not None
        heard.append(result["best"])

    monkeypatch.setattr(OptunaSearcher, "on_trial_complete", complete)
    job = dataclasses.replace(_tpe(tmp_path)(0), scheduler="none")
    trials = Simulation(Recorded(tmp_path, job.trials[0]), job, 1).run().trials
    assert heard == [max(trial.scores.values()) for trial in trials]
    last = [list(trial.scores.values())[-1] for trial in trials]
    assert heard != last  # or "best" and "last" could not be told apart


def test_what_is_not_recorded_is_refused_by_name(results: Path) -> None:
    recorded = Recorded(results, _trial(0))
    with pytest.raises(UsageError, match=r"lacks 3 points.*maml-inner0.1-outer8-k1-b2.* at 1,"):
        check_recorded(recorded, [_trial(0), _trial(7)])
    with pytest.raises(UsageError, match=r"outer8-k1-b2-random_to_random at 1 steps is not rec"):
        Simulation(recorded, _job((0, 7)), 1).run()
    check_recorded(recorded, [_trial(number) for number in range(4)])
    with pytest.raises(UsageError, match="there is nothing to try"):
        Simulation(recorded, _job(()), 1).run()


@pytest.mark.parametrize(
    "change",
    [{"partition": "cls_to_cls"}, {"backbone": "x/y"}, {"role": "target"}, {"train_seed": 1}],
    ids=lambda change: next(iter(change)),
)
def test_points_of_other_settings_are_no_records(tmp_path: Path, change: dict[str, Any]) -> None:
    stored = Stored(tmp_path)
    _record(stored, stored.study(**change), _config(0), (1, 2, 3))
    with pytest.raises(UsageError, match="holds no point of maml on random_to_random"):
        Recorded(tmp_path, _trial(0))


def test_points_of_another_method_are_no_records(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    config = dataclasses.replace(_config(0), method="fomaml")
    _record(stored, stored.study(), config, (1, 2, 3))
    with pytest.raises(UsageError, match="holds no point of maml on random_to_random"):
        Recorded(tmp_path, _trial(0))


def test_studies_that_cannot_be_compared_are_listed_and_one_can_be_chosen(results: Path) -> None:
    stored = Stored(results)
    other = stored.study(precision="bfloat16")
    _record(stored, other, _config(9), (1, 2, 3))
    with pytest.raises(UsageError, match=rf"holds 2 studies of maml .*{other.id} \(precision bf"):
        Recorded(results, _trial(0))
    assert Recorded(results, _trial(0), study=other.id).missing(_trial(9)) == []


def test_a_smoke_run_is_searched_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    smoke = stored.study(smoke=True, partial="partial: smoke")
    _record(stored, smoke, _config(0), (1, 2, 3))
    assert Recorded(tmp_path, _trial(0)).study.key == smoke.key
    real = stored.study()
    _record(stored, real, _config(0), (4, 5, 6))
    assert Recorded(tmp_path, _trial(0)).study.key == real.key


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
    assert text.count("maml-inner") == 6 + 1  # each trial once, and the winner
    assert "stopped by asha at rung 12: score" in text
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
