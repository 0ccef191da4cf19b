"""How long a running search will still take, from what it has done so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mpt.search.cost.plan import estimate, run_seconds, work_seconds

if TYPE_CHECKING:
    from mpt.search.cost.plan import Rates, RemainingWork

_SHARED = -1
_COUNTED = ("steps", "runs", "choice_steps", "choice_rows")
"""What of a report is work that was done (`mpt.trial.trial.Progress`)."""
_TRUSTED = 0.05
"""Share of the work after which the search's own speed replaces the probe's."""


class TimeLeft:
    """Counts the work that reports tell of, in the probe's seconds, against the clock.

    Args:
        work: what is planned.
        rates: how fast it is done, and how long workers take to be ready.
        slots: workers.
        clock: gives seconds.
        places: number of a trial in the search → its place in the plan; None: they are the same.
    """

    def __init__(
        self,
        work: RemainingWork,
        rates: Rates,
        slots: int,
        clock: Callable[[], float] = time.monotonic,
        places: Mapping[int, int] | None = None,
    ) -> None:
        self._clock = clock
        self._places = places
        self._first = estimate(work, rates, slots)
        each, shared = work_seconds(work, rates)
        self._each, self._total = each, sum(each) + shared
        self._begun = clock()
        self._seen: dict[tuple[int, int], tuple[float, ...]] = {}
        self._begin = [part.begin for part in work.trials]
        self._step_s = [rates.step_seconds(part.kind) for part in work.trials]
        self._shared_s = shared / max(1, sum(part.runs for part in work.shared_left))
        self._run_rates = [rates.run_rate(part.runs.kind) for part in work.trials]
        self._run_s = [
            (run_seconds(own, rates) - rate.seconds(*own.choosing)) / own.runs
            if own.runs
            else self._shared_s
            for own, rate in zip((p.runs for p in work.trials), self._run_rates, strict=True)
        ]

    def report(self, index: int | None, number: int, result: dict[str, Any]) -> None:
        """Take in a trial's report.

        Args:
            index: its number in the search; None: plain prompt tuning, which is shared.
            number: Tune's trial (several may be one there: fine-tuning is cut by task).
            result: the report.
        """
        key = _SHARED if index is None else self._position(index), number
        counts = [result[name] for name in _COUNTED]
        # a trial that was started again counts its runs from 0
        self._seen[key] = tuple(map(max, self._seen.get(key, counts), counts))

    def stopped(self, index: int) -> None:
        """Take out what is left of a trial that is not carried on."""
        position = self._position(index)
        if position < len(self._each):
            done = self._done(position)
            self._total -= max(0.0, self._each[position] - done)
            self._each[position] = min(self._each[position], done)

    def _position(self, index: int) -> int:
        """Return a trial's place in the plan; that of one which is not planned is behind all."""
        if self._places is None:
            return index
        return self._places.get(index, len(self._each) + index)

    @property
    def runs(self) -> float:
        """Downstream runs that were computed since the search began; half a run counts half."""
        return sum(runs for _, runs, *_ in self._seen.values())

    @property
    def seconds(self) -> float:
        """Seconds left."""
        elapsed = self._clock() - self._begun
        done = sum(map(self._done, {index for index, _ in self._seen}))
        share = min(1.0, done / self._total) if self._total > 0 else 1.0
        if share < _TRUSTED:
            return max(0.0, self._first - elapsed)
        return elapsed * (1 - share) / share

    def _done(self, index: int) -> float:
        """Return what a trial has done in the probe's seconds; a late one counts as the last."""
        seen = [
            reached for (trial_index, _), reached in self._seen.items() if trial_index == index
        ]
        taken, runs, *choosing = zip(*seen, strict=True) if seen else [(0.0,)] * len(_COUNTED)
        if index == _SHARED:
            return sum(runs) * self._shared_s
        begin = self._begin[index] if index < len(self._begin) else 0
        known_index = min(index, len(self._step_s) - 1)
        learning = max(0, max(taken) - begin) * self._step_s[known_index]
        chosen = self._run_rates[known_index].seconds(*map(sum, choosing))
        return learning + sum(runs) * self._run_s[known_index] + chosen


def clock_text(seconds: float) -> str:
    """Return a duration for people: "40 s", "6 min", "3.5 h", "2.1 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
