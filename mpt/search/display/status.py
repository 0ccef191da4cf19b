"""What a running search is doing right now, added up over its trials, as one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpt.search.cost.time_left import clock_text

COUNTS = ("finished", "running", "waiting")
"""What a queue of runs is counted by; together they are all runs of a point."""


class Status:
    """Adds up what trials report of their downstream runs (`QueueStatus` as a dictionary)."""

    def __init__(self) -> None:
        self._trials: dict[int, Mapping[str, Any] | None] = {}

    def report(self, index: int, tuning: Mapping[str, Any] | None) -> None:
        """Take in one trial's state.

        Args:
            index: the trial's trial.
            tuning: its queue of runs; None while it learns upstream, or when it has ended.
        """
        if tuning is None:
            self._trials.pop(index, None)
        else:
            self._trials[index] = tuning

    def text(self, left_s: float) -> str:
        """Return the line; empty while no runs are under way.

        Args:
            left_s: seconds the search will still take.
        """
        found = [tuning for tuning in self._trials.values() if tuning is not None]
        if not found:
            return ""
        total = {name: sum(tuning[name] for tuning in found) for name in (*COUNTS, "steps_s")}
        shown = [name for name in COUNTS if total[name] or name == "finished"]
        counts = ", ".join(f"{total[name]} {name}" for name in shown)
        # a terminal of 80 columns has room for these; what stands last is what a narrower one cuts
        return f"runs     {counts} · {clock_text(left_s)} left · {total['steps_s']:.3g} steps/s"
