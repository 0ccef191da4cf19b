"""The cells of a replay: a method in a setting, averaged over its upstream seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpt.search.comparison import name_of, seed_of
from mpt.search.leaderboard import PointStatus

if TYPE_CHECKING:
    from mpt.metrics.replicates import Summary
    from mpt.search.comparison import Ranking
    from mpt.study.specs import TrialSpec


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method with its settings in one setting, at one rung."""

    entries: tuple[PointStatus, ...]
    """One point an upstream seed, at least one; those that are missing, too."""
    summary: Summary | None
    """What its upstream seeds say together; None where one is asked for, or none has a score."""

    @property
    def scored(self) -> list[PointStatus]:
        """The points that are there."""
        return [entry for entry in self.entries if entry.score is not None]

    @property
    def first(self) -> PointStatus:
        """A point that has the cell's settings: the first that is there, if any."""
        return (self.scored or self.entries)[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Upstream seeds whose points are there; none of a method that learns nothing upstream."""
        if self.first.trial.learned is None:
            return ()
        return tuple(seed_of(entry.trial) for entry in self.scored)

    @property
    def arg(self) -> float | None:
        """ARG in %, the mean over upstream seeds; None if it is undefined or none is there."""
        if self.summary is not None:
            return self.summary.arg
        return None if self.first.score is None else self.first.score.arg

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the expected ARG; with one upstream seed, or none, over data seeds."""
        if self.summary is not None:
            return self.summary.expected
        return None if self.first.score is None else self.first.score.interval

    @property
    def mean_test(self) -> float | None:
        """Mean test score over upstream seeds, a fraction; None if one diverged or none is there.

        A trajectory that diverged has no scores of its own, so there is no mean with it.
        """
        values = [entry.score.mean_test for entry in self.scored if entry.score is not None]
        defined = [value for value in values if value is not None]
        return float(np.mean(defined)) if defined and len(defined) == len(values) else None

    @property
    def runs(self) -> int:
        """Downstream runs behind it."""
        return sum(entry.score.runs for entry in self.scored if entry.score is not None)


def cells_of(entries: Sequence[PointStatus], rankings: Sequence[Ranking]) -> list[Cell]:
    """Return the cells of a replay, in the job's order."""
    summaries = {
        (one.first.trial.plan, one.summary.name): one.summary
        for ranking in rankings
        for one in ranking.configurations
    }
    groups: dict[tuple[TrialSpec, int], list[PointStatus]] = {}
    for entry in entries:
        groups.setdefault((entry.trial.without_seed(), entry.steps), []).append(entry)
    return [
        Cell(
            entries=tuple(group),
            summary=summaries.get((group[0].trial.plan, name_of(group[0])))
            if len(group) > 1
            else None,
        )
        for group in groups.values()
    ]
