"""What a search will cost: what is left to do, measured rates, and the time that follows.

A search is courses of upstream steps, with leaves at their rungs, and leaves of the shared
baselines. Work comes in kinds that differ in speed: upstream steps by backbone, method and batch,
leaves by backbone and what is tuned. A leaf takes (its optimiser steps)·t_step + (the rows it
evaluates)·t_row; a course takes the sum of its steps and leaves; courses run in order on `slots`
workers.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class LeafLoad:
    """Leaves of one kind that are left."""

    kind: str
    """Key of `Rates.leaves`."""
    runs: int
    """Leaves."""
    steps: int
    """Optimiser steps of all of them."""
    rows: int
    """Rows that they evaluate, dev rows once an evaluation."""


@dataclass(frozen=True, kw_only=True)
class CourseLoad:
    """What is left of one course."""

    kind: str
    """Key of `Rates.steps`."""
    steps: int
    """Upstream steps (a checkpoint between two rungs may save some of them)."""
    leaves: LeafLoad
    """Leaves of its own points."""
    points: int
    """Points."""
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
    shared_left: tuple[LeafLoad, ...] = ()
    """Leaves of the baselines that are missing."""

    @property
    def all_leaves(self) -> int:
        """Leaves in all, shared ones counted once."""
        return self.leaves + self.shared

    @property
    def all_there(self) -> int:
        """Leaves on disk."""
        return self.leaves_there + self.shared_there

    @property
    def leaf_loads(self) -> tuple[LeafLoad, ...]:
        """All leaves that are left, those of the baselines among them."""
        return (*self.shared_left, *(course.leaves for course in self.courses))


@dataclass(frozen=True, kw_only=True)
class LeafRate:
    """How fast leaves of one kind are, packed as in a real run."""

    step_s: float
    """Seconds per optimiser step of one run."""
    row_s: float
    """Seconds per evaluated row of one run."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes on disk, of real records made by the probe."""

    leaf: int = 0
    """One leaf record."""
    rung: int = 0
    """The prompt at a rung, with the record of its point."""
    checkpoint: int = 0
    """One checkpoint of a trajectory; there are two at a time."""
    queue: int = 0
    """One checkpoint of a queue of leaves while it is in work; there are two at a time."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How fast this machine is, measured by `mpt.search.cost.probe`."""

    steps: Mapping[str, float]
    """Kind → seconds per upstream step."""
    leaves: Mapping[str, LeafRate]
    """Kind → speed of leaves."""
    start_s: float
    """Seconds until a worker is ready: imports, weights, data."""
    sizes: Sizes = field(default_factory=Sizes)
    gpu_need: int | None = None
    """Most bytes that a trial's tensors took on its GPU in the probe; None: not on a GPU."""
    gpu_bytes: int | None = None
    """Bytes of that GPU."""

    def step_seconds(self, kind: str) -> float:
        """Return seconds per upstream step; what was not measured counts as the slowest."""
        return self.steps.get(kind, max(self.steps.values(), default=0.0))

    def leaf_rate(self, kind: str) -> LeafRate:
        """Return the speed of a kind of leaves; what was not measured counts as the slowest."""
        if kind in self.leaves:
            return self.leaves[kind]
        return LeafRate(
            step_s=max((rate.step_s for rate in self.leaves.values()), default=0.0),
            row_s=max((rate.row_s for rate in self.leaves.values()), default=0.0),
        )

    def with_more(self, other: Rates) -> Rates:
        """Return these rates and those of other kinds; the larger start and sizes count."""
        names = ("leaf", "rung", "checkpoint", "queue")
        larger = {n: max(getattr(self.sizes, n), getattr(other.sizes, n)) for n in names}
        return Rates(
            steps={**other.steps, **self.steps},
            leaves={**other.leaves, **self.leaves},
            start_s=max(self.start_s, other.start_s),
            sizes=Sizes(**larger),
            gpu_need=self.gpu_need if other.gpu_need is None else other.gpu_need,
            gpu_bytes=self.gpu_bytes if other.gpu_bytes is None else other.gpu_bytes,
        )


def step_seconds(course: CourseLoad, rates: Rates) -> float:
    """Return the seconds of a course's upstream steps."""
    return course.steps * rates.step_seconds(course.kind) if course.steps else 0.0


def leaf_seconds(load: LeafLoad, rates: Rates) -> float:
    """Return the seconds of some leaves."""
    rate = rates.leaf_rate(load.kind)
    return load.steps * rate.step_s + load.rows * rate.row_s


def work_seconds(load: Load, rates: Rates) -> tuple[list[float], float]:
    """Return the seconds of work of each course, and of the shared baselines."""
    each = [step_seconds(part, rates) + leaf_seconds(part.leaves, rates) for part in load.courses]
    return each, sum(leaf_seconds(part, rates) for part in load.shared_left)


def estimate(load: Load, rates: Rates, slots: int) -> float:
    """Return the wall-clock seconds a search will take on `slots` workers."""
    each, shared = work_seconds(load, rates)
    todo = [seconds for seconds in each if seconds > 0]
    if not todo and not shared:
        return 0.0
    slots = max(1, min(slots, len(load.courses)))
    return rates.start_s + makespan([shared / slots] * slots + todo, slots)


def makespan(seconds: Sequence[float], slots: int) -> float:
    """Return when the last job ends if each starts, in order, on the first free of `slots`."""
    free = [0.0] * slots
    for job in seconds:
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)


def disk_bytes(load: Load, sizes: Sizes, slots: int, prompt_bytes: int = 0) -> int:
    """Return how many bytes the rest of a search adds to the results directory.

    Args:
        load: what is left.
        sizes: bytes of the parts.
        slots: workers; each has a queue of leaves in work.
        prompt_bytes: of a tuned prompt where they are kept, else 0.
    """
    leaves = sum(part.runs for part in load.leaf_loads)
    points = sum(part.points for part in load.courses)
    trajectories = sum(part.steps > 0 for part in load.courses)
    return (
        leaves * (sizes.leaf + prompt_bytes)
        + points * sizes.rung
        + 2 * trajectories * sizes.checkpoint
        + 2 * min(slots, len(load.courses)) * sizes.queue
    )
