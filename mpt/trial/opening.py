"""A method's settings → the trial that computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mpt.store.records import BASELINE, ZERO_SHOT
from mpt.study.specs import FINE_TUNING
from mpt.trial.task_trials import FineTuningTrial, PromptTuningTrial, ZeroShotTrial
from mpt.trial.trial import Trial, TrialOptions
from mpt.trial.upstream_trial import UpstreamTrial

if TYPE_CHECKING:
    from mpt.store.artifacts import Artifacts
    from mpt.study.specs import TrialSpec
    from mpt.study.study import OpenStudy
    from mpt.trial.store import TrialStore

_TRIALS: Mapping[str, type[Trial]] = {
    BASELINE: PromptTuningTrial,
    FINE_TUNING: FineTuningTrial,
    ZERO_SHOT: ZeroShotTrial,
}
"""Trials of the methods that learn nothing upstream."""


def open_trial(
    studies: Sequence[OpenStudy],
    specs: Sequence[TrialSpec],
    store: TrialStore,
    artifacts: Artifacts,
    options: TrialOptions | None = None,
) -> Trial:
    """Return the trial of some specs; arguments as of `Trial`."""
    kind = _TRIALS.get(specs[0].method, UpstreamTrial)
    return kind(studies, specs, store, artifacts, options)
