"""A method's settings → the trial that computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.study.specs import FineTuningConfig, PromptTuningConfig, ZeroShotConfig
from mpt.trial.task_trials import FineTuningTrial, PromptTuningTrial, ZeroShotTrial
from mpt.trial.trial import Trial, TrialOptions
from mpt.trial.upstream_trial import UpstreamTrial

if TYPE_CHECKING:
    from mpt.store.artifacts import Artifacts
    from mpt.study.specs import TrialSpec
    from mpt.study.study import OpenStudy
    from mpt.trial.store import TrialStore


def open_trial(
    studies: Sequence[OpenStudy],
    specs: Sequence[TrialSpec],
    store: TrialStore,
    artifacts: Artifacts,
    options: TrialOptions | None = None,
) -> Trial:
    """Return the trial of some specs; arguments as of `Trial`."""
    config = specs[0].upstream.config
    kind: type[Trial] = UpstreamTrial
    if isinstance(config, PromptTuningConfig):
        kind = PromptTuningTrial
    elif isinstance(config, FineTuningConfig):
        kind = FineTuningTrial
    elif isinstance(config, ZeroShotConfig):
        kind = ZeroShotTrial
    return kind(studies, specs, store, artifacts, options)
