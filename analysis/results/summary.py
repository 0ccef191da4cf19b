"""What is said about one comparison with plain prompt tuning: ARG, intervals, median, flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpt.metrics.relative_gain import (
    Gain,
    Scores,
    average_relative_gain,
    interval_over_tasks,
)
from mpt.seeds import numpy_generator

from .cells import Cell, scores_of
from .upstream_seeds import mean_scores, upstream_summary

if TYPE_CHECKING:
    from mpt.metrics.differences import Interval
    from mpt.metrics.replicates import Summary as Replicated


@dataclass(frozen=True, kw_only=True)
class Summary:
    """ARG of a method over plain prompt tuning, with what is needed to judge it."""

    gain: Gain
    """ARG with its interval over data seeds, and the gain of every task."""
    seeds: tuple[int, ...]
    """Data seeds that every task must have."""
    low_tasks: float | None
    """Lower end of the 95 % interval over tasks, in %."""
    high_tasks: float | None
    upstream: Replicated | None = None
    """What several upstream seeds say together; None where there is one. `gain` is then that of
    the mean scores, and its interval is over data seeds alone."""

    @property
    def value(self) -> float | None:
        """ARG in % over the tasks that have a gain; `whole` says whether all have one."""
        return self.gain.arg_of_defined

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the ARG.

        Of the expected ARG over upstream seeds and data seeds where there are several upstream
        seeds; else over data seeds, so that another upstream seed may lie outside.
        """
        if self.upstream is not None:
            return self.upstream.expected
        return self.gain.interval

    @property
    def whole(self) -> bool:
        """Whether every task has a gain."""
        return self.gain.arg is not None

    @property
    def lacking(self) -> list[str]:
        """The tasks without a gain that other settings may have, with the reasons.

        Those that lack a positive baseline lack it in all settings.
        """
        return [
            f"{task.task}: {task.reason}"
            for task in self.gain.tasks
            if task.gain is None
            and (task.score is None or task.baseline is None or task.baseline > 0)
        ]

    @property
    def without_near_zero(self) -> float | None:
        """ARG in % without the tasks whose baseline is near zero; None if no task is left."""
        kept = [task.gain for task in self.gain.tasks if task.task not in self.gain.near_zero]
        gains = [gain for gain in kept if gain is not None]
        return 100 * sum(gains) / len(gains) if gains else None


def summarise(
    method: Scores, baseline: Scores, tasks: Sequence[str], seeds: Sequence[int], root: int
) -> Summary:
    """Compare a method with its baseline.

    Args:
        method: test scores of the method.
        baseline: test scores of plain prompt tuning.
        tasks: the tasks ARG runs over, at least one.
        seeds: the data seeds every task must have, at least one.
        root: root seed of the resamples; the interval over data seeds then is the one that a
            search with this train seed shows.
    """
    gain = average_relative_gain(
        method, baseline, sorted(tasks), sorted(seeds), rng=numpy_generator(root, "bootstrap")
    )
    low, high = interval_over_tasks(gain, rng=numpy_generator(root, "bootstrap", "tasks"))
    return Summary(gain=gain, seeds=tuple(sorted(seeds)), low_tasks=low, high_tasks=high)


def summary_of(cell: Cell, tasks: Sequence[str] | None = None) -> Summary | None:
    """Return the summary of a cell, or of some of its tasks; None if it has none of them.

    A diverged cell names no task and has no summary.
    """
    chosen = [task for task in cell.tasks if tasks is None or task in tasks]
    if not chosen or not cell.seeds:
        return None
    scores, baseline = mean_scores(cell), scores_of(cell.baseline)
    summary = summarise(scores, baseline, chosen, cell.seeds, cell.train_seed)
    return dataclasses.replace(summary, upstream=upstream_summary(cell, tasks))
