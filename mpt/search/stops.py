"""What was stopped, when and why: ``results/stops.jsonl``, one line a stop, only ever appended.

A stop is tied to a point (the rung at which, or on the way to which, the course was stopped), so
it holds for any later job with that point, also one with more rungs. It holds as long as whoever
stopped the course is asked to: without a scheduler, the course is computed after all.
"""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path

from mpt.records import append_line, read_lines

FILE = "stops.jsonl"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A course that is not carried on."""

    point: str
    """Key of the point at `steps`."""
    course: str
    """The course's readable name."""
    steps: int
    """The rung at which it was stopped, or on the way to which."""
    by: str
    """"asha" or "racing"."""
    reason: str
    """With the numbers that decided."""
    time: str = ""
    """When (UTC, ISO 8601)."""

    @property
    def text(self) -> str:
        """One line for people."""
        return f"stopped by {self.by} at rung {self.steps}: {self.reason}"


def record_stop(results: Path, stop: Stop) -> Stop:
    """Append a stop to the log; return it with its time."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    stop = dataclasses.replace(stop, time=now)
    append_line(results / FILE, dataclasses.asdict(stop))
    return stop


def read_stops(results: Path) -> list[Stop]:
    """Return all stops on record; lines that are torn or not ours are left out."""
    names = {field.name: field.type for field in dataclasses.fields(Stop)}
    stops = []
    for entry in read_lines(results / FILE):
        if isinstance(entry, dict) and set(entry) == set(names):
            kinds = {name: int if kind == "int" else str for name, kind in names.items()}
            if all(isinstance(entry[name], kind) for name, kind in kinds.items()):
                stops.append(Stop(**entry))
    return stops
