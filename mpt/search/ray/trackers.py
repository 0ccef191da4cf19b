"""TensorBoard, MLflow and Weights & Biases, through Ray's own callbacks.

Ray's callbacks log what Tune knows of a trial: its whole configuration and every entry of every
report. Ours hold whole studies and texts, so each callback is shown a plain view instead: the
settings as parameters, numbers as metrics, upstream steps as the step. Whatever goes wrong in a
tracker, the search goes on.

    results/tensorboard/<course>/events.out.tfevents…     (where tensorboardX is installed)
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import LoggerCallback, TBXLoggerCallback

from mpt.search.job import Course, Execution

_TUNING = ("finished", "running", "waiting", "steps_s", "examples_s", "tokens_s", "useful")


class View:
    """What a tracker sees of a trial.

    Args:
        trial: Tune's trial.
        folder: where trackers that write files may do so.
    """

    def __init__(self, trial: Any, folder: Path) -> None:
        course: Course = trial.config["trial"]["course"]
        self.trial_id: str = trial.trial_id
        self.config = parameters(course)
        self.evaluated_params = self.config
        self.experiment_dir_name = course.plan.config.partition
        self.local_path = str(folder / course.name)
        self._name = course.name

    def init_local_path(self) -> None:
        """Make the folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self._name


def parameters(course: Course) -> dict[str, Any]:
    """Return the settings of a course as a flat table of numbers and texts."""
    study = course.plan.config
    settings = dataclasses.asdict(course.trajectory.config)
    return {
        "backbone": study.backbone,
        "partition": study.partition,
        "train_seed": study.train_seed,
        **{k: v for k, v in settings.items() if isinstance(v, (bool, int, float, str))},
    }


def metrics(result: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a report; a score that is not there yet is left out."""
    found = {"training_iteration": result["steps"], "leaves": result["leaves"]}
    if math.isfinite(result["score"]):
        found["arg"] = result["score"]
    tuning = result.get("tuning") or {}
    return {**found, **{name: tuning[name] for name in _TUNING if name in tuning}}


class Tracker(tune.Callback):
    """One of Ray's logger callbacks, behind a plain view; its errors are told once.

    Args:
        name: what it is called in messages.
        inner: the callback.
        folder: for its files.
        on_problem: called with one line at its first error.
    """

    def __init__(
        self, name: str, inner: LoggerCallback, folder: Path, on_problem: Callable[[str], None]
    ) -> None:
        self._name, self._inner, self._folder = name, inner, folder
        self._on_problem, self._views = on_problem, dict[str, View]()
        self._failed = False

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its callbacks, and nobody reads that."""
        return {}

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Let the tracker connect."""
        self._tell(lambda: self._inner.setup(*arguments, **info))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open a trial's run."""
        self._tell(lambda: self._inner.log_trial_start(self._view(trial)))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Log the numbers of a report."""
        self._tell(
            lambda: self._inner.log_trial_result(iteration, self._view(trial), metrics(result))
        )

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Close a trial's run."""
        self._end(trial, failed=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close the run of a trial that failed."""
        self._end(trial, failed=True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Let the tracker finish."""
        views: list[Any] = list(self._views.values())
        self._tell(lambda: self._inner.on_experiment_end(views, **info))

    def _end(self, trial: Any, *, failed: bool) -> None:
        if trial.trial_id in self._views:  # not one that failed before it was started
            self._tell(lambda: self._inner.log_trial_end(self._view(trial), failed=failed))

    def _view(self, trial: Any) -> Any:
        if trial.trial_id not in self._views:
            self._views[trial.trial_id] = View(trial, self._folder)
        return self._views[trial.trial_id]

    def _tell(self, log: Callable[[], None]) -> None:
        """Call the tracker. Tune ends the experiment if a callback raises: none may."""
        if self._failed:
            return
        try:
            log()
        except Exception as error:
            self._failed = True
            with contextlib.suppress(Exception):
                self._on_problem(f"{self._name} failed ({error!r}); the search goes on without it")


def trackers(
    execution: Execution, results: Path, on_problem: Callable[[str], None]
) -> list[tune.Callback]:
    """Return the trackers that are asked for, and TensorBoard where it is installed."""
    found: dict[str, Callable[[], LoggerCallback]] = {}
    if importlib.util.find_spec("tensorboardX") is not None:
        found["TensorBoard"] = TBXLoggerCallback
    if execution.mlflow is not None:
        found["MLflow"] = lambda: _mlflow(execution.mlflow)
    if execution.wandb is not None:
        found["Weights & Biases"] = lambda: _wandb(execution.wandb)
    folder = results / "tensorboard"
    return [Tracker(name, make(), folder, on_problem) for name, make in found.items()]


def _mlflow(uri: str | None) -> LoggerCallback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(tracking_uri=uri, experiment_name="mpt")


def _wandb(project: str | None) -> LoggerCallback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(project=project)
