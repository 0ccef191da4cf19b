"""How long a running search will still take, from what it has done so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpt.plan import estimate, work_seconds

if TYPE_CHECKING:
    from mpt.plan import Load, Rates

_TRUSTED = 0.05
"""Share of the work after which the search's own speed replaces the probe's."""


class TimeLeft:
    """Counts the work that reports tell of, in the probe's seconds, against the clock.

    Args:
        load: what was left when the search began.
        rates: measured rates; their ratio weighs steps against leaves.
        slots: trials that run at once.
        clock: seconds, monotonic.
    """

    def __init__(
        self, load: Load, rates: Rates, slots: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._rates = clock, rates
        self._first = estimate(load, rates, slots)
        each, shared = work_seconds(load, rates)
        self._total = sum(each) + shared
        self._begun = clock()
        self._seen: dict[int, tuple[int, float]] = {}
        self._begin = [part.begin for part in load.courses]

    def report(self, result: dict[str, Any]) -> None:
        """Take in a trial's report."""
        index, steps, leaves = result["index"], result["steps"], result["leaves"]
        old = self._seen.get(index, (0, 0))
        # a trial that was started again counts its leaves from 0
        self._seen[index] = max(old[0], steps), max(old[1], leaves)

    @property
    def seconds(self) -> float:
        """Seconds left."""
        elapsed = self._clock() - self._begun
        done = sum(
            max(0, steps - self._begin[index]) * self._rates.step_s + leaves * self._rates.leaf_s
            for index, (steps, leaves) in self._seen.items()
        )
        share = min(1.0, done / self._total) if self._total > 0 else 1.0
        if share < _TRUSTED:
            return max(0.0, self._first - elapsed)
        return elapsed * (1 - share) / share


def clock_text(seconds: float) -> str:
    """Return a duration for people: "40 s", "6 min", "3.5 h", "2.1 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
