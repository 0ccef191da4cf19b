"""What a search will cost: what is left to do, measured rates, and the time that follows.

A search is courses of upstream steps, with leaves at their rungs, and leaves of the shared
baselines. With s seconds per upstream step and l seconds per leaf, a course takes
steps·s + leaves·l; the courses run in order on `slots` workers.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CourseLoad:
    """What is left of one course."""

    steps: int
    """Upstream steps (a checkpoint between two rungs may save some of them)."""
    leaves: int
    """Leaves of its own points."""
    begin: int = 0
    """Upstream steps that are on disk."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a search consists of, and what is on disk of it."""

    courses: tuple[CourseLoad, ...]
    """What is left, in the job's order."""
    points: int
    points_there: int
    leaves: int
    """Leaves of all points, the shared baselines not counted."""
    leaves_there: int
    shared: int
    """Leaves of the baselines, each counted once however many points it serves."""
    shared_there: int

    @property
    def all_leaves(self) -> int:
        """Leaves in all, shared ones counted once."""
        return self.leaves + self.shared

    @property
    def all_there(self) -> int:
        """Leaves on disk."""
        return self.leaves_there + self.shared_there

    @property
    def shared_left(self) -> int:
        """Leaves of the baselines that are missing."""
        return self.shared - self.shared_there


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How fast this machine is, measured by `mpt.search.probe`."""

    step_s: float
    """Seconds per upstream step."""
    leaf_s: float
    """Seconds per leaf, mean over the scored tasks."""
    start_s: float
    """Seconds until a worker is ready: imports, weights, data."""


def work_seconds(load: Load, rates: Rates) -> tuple[list[float], float]:
    """Return the seconds of work of each course, and of the shared baselines."""
    each = [part.steps * rates.step_s + part.leaves * rates.leaf_s for part in load.courses]
    return each, load.shared_left * rates.leaf_s


def estimate(load: Load, rates: Rates, slots: int) -> float:
    """Return the wall-clock seconds a search will take on `slots` workers."""
    each, shared = work_seconds(load, rates)
    todo = [seconds for seconds in each if seconds > 0]
    if not todo:
        return 0.0
    slots = max(1, min(slots, len(todo)))
    return rates.start_s + makespan([shared / slots] * slots + todo, slots)


def makespan(seconds: Sequence[float], slots: int) -> float:
    """Return when the last job ends if each starts, in order, on the first free of `slots`."""
    free = [0.0] * slots
    for job in seconds:
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)
