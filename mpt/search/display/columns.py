"""Which settings tell the trials of a job apart, and how they are written in a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpt.config import adapts
from mpt.search.comparison import seed_of
from mpt.study.study import shots_text

if TYPE_CHECKING:
    from mpt.search.job import SearchJob, TrialSpec
    from mpt.search.leaderboard import PointStatus

_STUDY: dict[str, Callable[[TrialSpec], Any]] = {
    "method": lambda trial: trial.upstream.config.method,
    "partition": lambda trial: trial.plan.config.partition,
    "backbone": lambda trial: trial.plan.config.backbone.rstrip("/").rpartition("/")[2],
    "sources": lambda trial: trial.plan.source_set,
    "source_shots": lambda trial: shots_text(trial.plan.source_shots),
    "target_shots": lambda trial: shots_text(trial.plan.target_shots),
}
"""What may differ between the studies of a job."""

_SETTINGS = (
    *("inner_lr", "outer_lr", "inner_steps", "batch_size", "items_per_step", "items_per_pass"),
    "seed",
)
"""What may differ between trials."""

_INNER = ("inner_lr", "inner_steps")
"""Settings that a method without an inner loop does not read."""


_NARROWEST = 11
"""Two blanks and a number of four digits with an exponent: what will be drawn is not known."""


class Columns:
    """The columns that tell trials apart; the learning rates always, where they are read.

    Settings of trials, and upstream seeds if there are several, have columns only where asked for.
    """

    def __init__(self, job: SearchJob, *, settings: bool = True, replicates: bool = True) -> None:
        searched = (
            [] if job.suggestions is None else [one.name for one in job.suggestions.space.domains]
        )
        self.names: list[str] = []
        self._widths: list[int] = []
        own = [
            name for trial in job.trials for name, _ in getattr(trial.upstream.config, "extra", ())
        ]
        listed = (*_STUDY, *((*_SETTINGS, *dict.fromkeys(own)) if settings else ()), "seed")
        for name in dict.fromkeys(listed):
            if name == "seed" and not replicates:
                continue
            values = [_value(trial, name) for trial in job.trials]
            # fine-tuning has no upstream seed to differ in
            told_apart = set(values) - {None} if name == "seed" else set(values)
            different = len(told_apart) > 1 or name in searched
            if different or (name.endswith("_lr") and set(values) != {None}):
                self.names.append(name)
                least = 0 if name == "seed" else _NARROWEST  # a seed is never drawn
                words = (name, *map(_text, values))
                self._widths.append(max(least, *(len(word) + 2 for word in words)))

    def of(self, trial: TrialSpec) -> list[str]:
        """Return a trial's values, in the order of `names`."""
        return [_text(_value(trial, name)) for name in self.names]

    def name(self, entry: PointStatus) -> str:
        """Return a point's settings and steps in words."""
        pairs = zip(self.names, self.of(entry.trial), strict=True)
        return ", ".join([*(f"{key} {value}" for key, value in pairs), f"steps {entry.steps}"])

    def line(self, words: Sequence[str]) -> str:
        """Return one word a column, flush right."""
        pairs = zip(words, self._widths, strict=True)
        return "".join(f"{word:>{width}}" for word, width in pairs)


def _value(trial: TrialSpec, name: str) -> Any:
    config = trial.upstream.config
    if name == "seed" and trial.learned is not None:
        return seed_of(trial)
    if name in _INNER and not adapts(config.method):
        return None
    return _STUDY[name](trial) if name in _STUDY else getattr(config, name, None)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
