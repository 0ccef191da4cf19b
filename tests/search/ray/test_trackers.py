from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.logger import LoggerCallback

from mpt.search.job import Execution, SearchJob
from mpt.search.ray.trackers import Tracker, metrics, parameters, trackers

REPORT: dict[str, Any] = {
    "index": 0,
    "steps": 4,
    "score": 1.5,
    "rung_scores": {"4": 1.5},
    "problems": ["a text"],
    "leaves": 8.0,
    "tuning": {"finished": 8, "running": 0, "waiting": 0, "steps_s": 12.5, "tokens_s": 90.0},
}


def _trial(job: SearchJob, number: int = 0) -> Any:
    trial = {"course": job.courses[number], "index": number, "key": "k"}
    return SimpleNamespace(trial_id=f"id{number}", config={"trial": trial, "results": Path("/")})


class _Recorder(LoggerCallback):
    """Keeps what it is shown; fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.fails = fails

    def _note(self, *what: Any) -> None:
        if what[0] == self.fails:
            raise ConnectionError("no server")
        self.seen.append(what)

    def setup(self, *arguments: Any, **info: Any) -> None:
        self._note("setup", info)

    def log_trial_start(self, trial: Any) -> None:
        self._note("start", str(trial), trial.config)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self._note("result", str(trial), result)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._note("end", str(trial), failed)


def _drive(tracker: Tracker, job: SearchJob) -> None:
    trial = _trial(job)
    tracker.setup(stop=None, num_samples=1, total_num_samples=1)
    tracker.on_trial_start(0, [], trial)
    tracker.on_trial_result(0, [], trial, REPORT)
    tracker.on_trial_complete(0, [], trial)
    tracker.on_trial_error(0, [], _trial(job, 1))  # it never started
    tracker.on_experiment_end([])


def test_a_tracker_sees_settings_and_numbers_and_nothing_else(
    job: SearchJob, tmp_path: Path
) -> None:
    inner, said = _Recorder(), list[str]()
    _drive(Tracker("X", inner, tmp_path, said.append), job)
    assert [what[0] for what in inner.seen] == ["setup", "start", "result", "end"]
    _, name, config = inner.seen[1]
    assert name == job.courses[0].name
    assert (config["method"], config["inner_lr"], config["partition"]) == (
        "maml",
        0.1,
        "random_to_random",
    )
    assert all(isinstance(value, (bool, int, float, str)) for value in config.values())
    assert inner.seen[2][2] == {
        "training_iteration": 4,
        "leaves": 8.0,
        "arg": 1.5,
        "finished": 8,
        "running": 0,
        "waiting": 0,
        "steps_s": 12.5,
        "tokens_s": 90.0,
    }
    assert inner.seen[3][2] is False
    assert said == []


def test_a_score_that_is_not_there_yet_is_left_out() -> None:
    assert "arg" not in metrics({**REPORT, "score": math.nan, "tuning": None})


@pytest.mark.parametrize("fails", ["setup", "start", "result", "end"])
def test_a_tracker_that_fails_is_named_once_and_asked_no_more(
    fails: str, job: SearchJob, tmp_path: Path
) -> None:
    inner, said = _Recorder(fails), list[str]()
    _drive(Tracker("X", inner, tmp_path, said.append), job)
    assert said == ["X failed (ConnectionError('no server')); the search goes on without it"]
    order = ["setup", "start", "result", "end"]
    assert [what[0] for what in inner.seen] == order[: order.index(fails)]


def test_tensorboard_is_written_by_default_with_upstream_steps_as_steps(
    job: SearchJob, tmp_path: Path
) -> None:
    (board,) = trackers(Execution(), tmp_path, pytest.fail)
    assert isinstance(board, Tracker)
    _drive(board, job)
    (file,) = (tmp_path / "tensorboard" / job.courses[0].name).glob("events.out.tfevents.*")
    content = file.read_bytes()
    for name in (b"ray/tune/arg", b"ray/tune/steps_s", b"inner_lr"):
        assert name in content


def test_mlflow_receives_parameters_and_metrics(job: SearchJob, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    found = trackers(Execution(mlflow=uri), tmp_path, pytest.fail)
    _drive(found[-1], job)  # type: ignore[arg-type]
    runs = mlflow.MlflowClient(uri).search_runs(experiment_ids=["1"])
    first = next(run for run in runs if run.data.metrics)
    assert first.data.metrics["arg"] == 1.5
    assert first.data.params["outer_lr"] == "0.3"
    assert parameters(job.courses[0])["outer_lr"] == 0.3
