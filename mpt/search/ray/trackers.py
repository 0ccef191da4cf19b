"""TensorBoard, MLflow and Weights & Biases, through Ray's own callbacks.

A trial's configuration and reports are flat, so Ray's callbacks need no help; a guard keeps their
errors from ending the search.

    results/tensorboard/<name of the trial>/events.out.tfevents…     (with tensorboardX)
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.logger import LoggerCallback, TBXLoggerCallback

from mpt.search.ray.schedulers import Unsaved

if TYPE_CHECKING:
    from mpt.search.job import Execution

METRICS = ("arg", "arg_low", "arg_high", "score", "steps", "runs")
_QUEUE = ("finished", "running", "waiting", "steps_s", "examples_s", "tokens_s", "useful")


def metrics(result: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a report; what is not known yet is left out."""
    queue = result.get("queue") or {}
    values = {name: result.get(name) for name in METRICS}
    values |= {name: queue.get(name) for name in _QUEUE}
    numbers = {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
    return {"training_iteration": result["steps"], **numbers}


NameOf = Callable[[Mapping[str, Any]], str]


class _View:
    """A trial with a readable name and a folder under it for files; all else is Tune's."""

    def __init__(self, trial: Any, folder: Path, name: str) -> None:
        self._trial, self._name = trial, name
        self.local_path = str(folder / name)

    def init_local_path(self) -> None:
        """Make the folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def __str__(self) -> str:
        return self._name


class Guarded(Unsaved, tune.Callback):
    """One of Ray's logger callbacks; its first error is told, and it is asked no more.

    Its files go below `folder`, under the readable name that `name_of` gives a configuration.
    """

    def __init__(
        self,
        name: str,
        inner: LoggerCallback,
        folder: Path,
        name_of: NameOf,
        on_problem: Callable[[str], None],
    ) -> None:
        self._name, self._inner, self._folder = name, inner, folder
        self._name_of, self._on_problem, self._failed = name_of, on_problem, False
        self._views: dict[str, Any] = {}

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
        numbers = metrics(result)
        self._tell(lambda: self._inner.log_trial_result(iteration, self._view(trial), numbers))

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
            name = self._name_of(trial.config)
            self._views[trial.trial_id] = _View(trial, self._folder, name)
        return self._views[trial.trial_id]

    def _tell(self, log: Callable[[], None]) -> None:
        """Call the tracker. Tune ends the experiment if a callback raises: none may."""
        if self._failed:
            return
        try:
            log()
        except Exception as error:
            self._failed = True
            _let_go(self._inner)
            with contextlib.suppress(Exception):
                self._on_problem(f"{self._name} failed ({error!r}); the search goes on without it")


def _let_go(inner: LoggerCallback) -> None:
    """Close TensorBoard's writers over files of no use: left open, they end with long traces."""
    for writer in getattr(inner, "_trial_writer", {}).values():
        with contextlib.suppress(Exception), tempfile.TemporaryFile() as nowhere:
            writer.file_writer.event_writer._ev_writer._py_recordio_writer._writer = nowhere
            writer.close()


def trackers(
    execution: Execution, results: Path, name_of: NameOf, on_problem: Callable[[str], None]
) -> list[tune.Callback]:
    """Return the trackers that are asked for, and TensorBoard where it is installed."""
    inner: dict[str, LoggerCallback] = {}
    if importlib.util.find_spec("tensorboardX") is not None:
        inner["TensorBoard"] = TBXLoggerCallback()
    if (uri := execution.mlflow) is not None:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        inner["MLflow"] = MLflowLoggerCallback(tracking_uri=uri, experiment_name="mpt")
    if (project := execution.wandb) is not None:
        from ray.air.integrations.wandb import WandbLoggerCallback

        inner["Weights & Biases"] = WandbLoggerCallback(project=project)
    folder = results / "tensorboard"
    return [Guarded(name, one, folder, name_of, on_problem) for name, one in inner.items()]
