"""Trials that begin in a kept worker which has died meanwhile are tried again, as after any death.

Tune keeps the workers of trials that have ended for those to come. That one has died it notices
when a trial is to begin there, and tells it twice: as the end of the worker, on which it tries the
trial again, and as the failure of the call that turns the worker to the trial. Ray 2.60 takes the
second for the failure of the new try, whose worker has not started: to it, a trial that has none
and fails is lost for good.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

_TUNE: Any = tune
"""The module that makes Tune's controller."""


class PatientController(TuneController):
    """Tune's own, but for what it makes of the death of a kept worker."""

    def _trial_task_failure(self, trial: Any, exception: Exception) -> None:
        self._resetting_trials.discard(trial)  # Tune would wait for its begin without end
        told = trial.status == Trial.PENDING and trial not in self._trial_to_actor
        if not told:
            super()._trial_task_failure(trial, exception)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Let Tune run its trials with a `PatientController` inside the block."""
    own = _TUNE.TuneController
    _TUNE.TuneController = PatientController
    try:
        yield
    finally:
        _TUNE.TuneController = own
