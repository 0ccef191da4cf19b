"""TensorBoard, MLflow and W&B see settings and numbers, and nothing they do ends a search."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.logger import LoggerCallback

from mpt.search.dispatch import TrialGroup, flat_config
from mpt.search.job import Execution, SearchJob
from mpt.search.ray.trackers import Guarded, metrics, trackers
from mpt.study.specs import TrialSpec, UpstreamSpec, baseline_trials

REPORT: dict[str, Any] = {
    "steps": 4,
    "rung": 2.0,
    "rung_steps": 4,
    "arg": 1.5,
    "arg_low": -0.5,
    "arg_high": 2.5,
    "score": 1.5,
    "best": 3.0,
    "runs": 8.0,
    "owner": "a key",
    "problems": ["a text"],
    "landed": ["a key"],
    "queue": {"finished": 8, "running": 0, "waiting": 0, "steps_s": 12.5, "tokens_s": 90.0},
}


def trial_of(job: SearchJob, number: int = 0) -> Any:
    """A trial as Tune has it, with the configuration that a search gives it."""
    group = TrialGroup(specs=(job.trials[number],), indices=(number,))
    config = {**flat_config(group, number), "gpus": 0.0}
    return SimpleNamespace(
        trial_id=f"id{number}",
        config=config,
        evaluated_params=config,
    )


def name_of(config: Mapping[str, Any]) -> str:
    return f"maml-inner{config['inner_lr']:g}"


class Recorder(LoggerCallback):
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


def drive(tracker: Any, job: SearchJob) -> None:
    trial = trial_of(job)
    tracker.setup(stop=None, num_samples=1, total_num_samples=1)
    tracker.on_trial_start(0, [], trial)
    tracker.on_trial_result(0, [], trial, REPORT)
    tracker.on_trial_complete(0, [], trial)
    tracker.on_trial_error(0, [], trial_of(job, 1))  # it never started
    tracker.on_experiment_end([])


def test_a_configuration_is_flat_and_holds_what_names_the_trial(job: SearchJob) -> None:
    config = flat_config(TrialGroup(specs=(job.trials[1],), indices=(1,)), 7)
    assert all(isinstance(value, (bool, int, float, str)) for value in config.values())
    assert config["trial"] == 7
    assert (config["method"], config["inner_lr"], config["outer_lr"]) == ("maml", 1.0, 0.3)
    assert (config["partition"], config["train_seed"]) == ("random_to_random", 42)
    (baseline, _) = baseline_trials(job.plans[0])
    config = flat_config(TrialGroup(specs=(baseline,), indices=()), 0)
    assert (config["method"], config["task"]) == ("prompt_tuning", "v-one")


def test_settings_of_a_method_of_ones_own_are_part_of_the_configuration(job: SearchJob) -> None:
    (first, _) = job.trials
    config: Any = first.upstream.config
    object.__setattr__(config := _copy(config), "extra", (("mu", 0.25),))
    spec = TrialSpec(plan=first.plan, upstream=UpstreamSpec(config=config, rungs=(2,)))
    flat = flat_config(TrialGroup(specs=(spec,), indices=(0,)), 0)
    assert flat["mu"] == 0.25
    assert "extra" not in flat


def _copy(config: Any) -> Any:
    return pickle.loads(pickle.dumps(config))


def test_a_tracker_sees_settings_and_numbers_and_nothing_else(
    job: SearchJob, tmp_path: Path
) -> None:
    inner, said = Recorder(), list[str]()
    drive(Guarded("X", inner, tmp_path, name_of, said.append), job)
    assert [what[0] for what in inner.seen] == ["setup", "start", "result", "end"]
    assert inner.seen[1] == ("start", "maml-inner0.1", trial_of(job).config)
    assert inner.seen[2][2] == {
        "training_iteration": 4,
        "arg": 1.5,
        "arg_low": -0.5,
        "arg_high": 2.5,
        "score": 1.5,
        "steps": 4,
        "runs": 8.0,
        "finished": 8,
        "running": 0,
        "waiting": 0,
        "steps_s": 12.5,
        "tokens_s": 90.0,
    }
    assert inner.seen[3][2] is False
    assert said == []


def test_a_trial_that_failed_is_shown_as_one(job: SearchJob, tmp_path: Path) -> None:
    inner = Recorder()
    tracker = Guarded("X", inner, tmp_path, name_of, pytest.fail)
    tracker.on_trial_start(0, [], trial_of(job))
    tracker.on_trial_error(0, [], trial_of(job))
    assert inner.seen[-1] == ("end", "maml-inner0.1", True)


def test_a_number_that_is_not_there_yet_is_left_out() -> None:
    found = metrics({**REPORT, "arg": math.nan, "arg_high": math.inf, "queue": None})
    assert not {"arg", "arg_high", "finished"} & set(found)
    assert found["score"] == 1.5


@pytest.mark.parametrize("fails", ["setup", "start", "result", "end"])
def test_a_tracker_that_fails_is_named_once_and_asked_no_more(
    fails: str, job: SearchJob, tmp_path: Path
) -> None:
    inner, said = Recorder(fails), list[str]()
    drive(Guarded("X", inner, tmp_path, name_of, said.append), job)
    assert said == ["X failed (ConnectionError('no server')); the search goes on without it"]
    order = ["setup", "start", "result", "end"]
    assert [what[0] for what in inner.seen] == order[: order.index(fails)]


def test_a_tracker_that_fails_to_say_so_ends_nothing(job: SearchJob, tmp_path: Path) -> None:
    def deaf(text: str) -> None:
        raise OSError("closed")

    drive(Guarded("X", Recorder("start"), tmp_path, name_of, deaf), job)


def test_tune_can_pickle_a_tracker(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(Guarded("X", Recorder(), tmp_path, name_of, pytest.fail)))


def test_tensorboard_is_written_by_default_with_settings_and_upstream_steps(
    job: SearchJob, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    (board,) = trackers(Execution(), tmp_path, name_of, pytest.fail)
    drive(board, job)
    folder = tmp_path / "tensorboard" / "maml-inner0.1"
    files = sorted(folder.rglob("events.out.tfevents.*"))
    content = b"".join(path.read_bytes() for path in files)
    for name in (b"ray/tune/arg", b"ray/tune/arg_low", b"ray/tune/steps_s", b"inner_lr", b"maml"):
        assert name in content, name


def test_without_tensorboardx_there_is_no_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert trackers(Execution(), tmp_path, name_of, pytest.fail) == []


def test_mlflow_receives_parameters_and_metrics(job: SearchJob, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    found = trackers(Execution(mlflow=uri), tmp_path, name_of, pytest.fail)
    drive(found[-1], job)
    runs = mlflow.MlflowClient(uri).search_runs(experiment_ids=["1"])
    first = next(run for run in runs if run.data.metrics)
    assert first.data.metrics["arg"] == 1.5
    assert first.data.params["outer_lr"] == "0.3"
