"""What a running search is doing right now, added up over its trials, as one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpt.search.cost.time_left import clock_text
from mpt.trial.starts import choosing_text

COUNTS = ("finished", "running", "waiting")
"""What a queue of runs is counted by; together they are all runs of a point."""


class Status:
    """Adds up what trials report of their downstream runs, and of the starts they choose."""

    def __init__(self) -> None:
        self._tuning: dict[int, Mapping[str, Any]] = {}
        self._choosing: dict[int, Mapping[str, Any]] = {}

    def report(
        self,
        index: int,
        tuning: Mapping[str, Any] | None,
        choosing: Mapping[str, Any] | None = None,
    ) -> None:
        """Take in one trial's state.

        `tuning` and `choosing` are `QueueStatus` and `Choosing` as dictionaries; None of
        what it is not at, or when that has ended.
        """
        for kept, own in ((self._tuning, tuning), (self._choosing, choosing)):
            if own is None:
                kept.pop(index, None)
            else:
                kept[index] = own

    def text(self, left_s: float) -> str:
        """Return the line; empty while no runs are under way and no starts are chosen."""
        if not self._tuning and not self._choosing:
            return ""
        time_left, starts = f"{clock_text(left_s)} left", self._starts()
        if not self._tuning:
            return f"runs     {' · '.join([*starts, time_left])}"
        tunings = self._tuning.values()
        total = {name: sum(tuning[name] for tuning in tunings) for name in (*COUNTS, "steps_s")}
        shown = [name for name in COUNTS if total[name] or name == "finished"]
        counts = ", ".join(f"{total[name]} {name}" for name in shown)
        # a terminal of 80 columns has room for these; what stands last is what a narrower one cuts
        parts = [counts, time_left, *starts, f"{total['steps_s']:.3g} steps/s"]
        return f"runs     {' · '.join(parts)}"

    def _starts(self) -> list[str]:
        """Return how far choices of starts are, one a kind."""
        kinds = dict.fromkeys(one["how"] for one in self._choosing.values())
        texts = []
        for how in kinds:
            own = [one for one in self._choosing.values() if one["how"] == how]
            made, of = (sum(one[name] for one in own) for name in ("made", "of"))
            texts.append(choosing_text(how, made, of))
        return texts
