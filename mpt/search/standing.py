"""Where a search stands: its points with their scores, read from the records alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.records import LeafStore, PointStore, leaf_key
from mpt.search.objective import PointScore, leaf_counts, score_point
from mpt.search.trajectory import point_identity, point_is_whole

if TYPE_CHECKING:
    from mpt.search.job import SearchJob
    from mpt.search.spaces import Trajectory
    from mpt.search.study import Study


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One point of a search."""

    index: int
    """Position of its trajectory in the job."""
    trajectory: Trajectory
    steps: int
    record: Mapping[str, Any] | None
    """The point record; None if it is not on disk, or a leaf it names is not."""
    score: PointScore | None
    """None without a record."""


class Standings:
    """Reads the points of one search; every reading is fresh from disk."""

    def __init__(self, job: SearchJob, study: Study, *, read_only: bool = False) -> None:
        self.job = job
        self._leaves = LeafStore(job.results, read_only=read_only)
        self._points = PointStore(job.results, read_only=read_only)
        self._keys = {}
        for index, trajectory in enumerate(job.trajectories):
            key = study.trajectory_key(trajectory.config)
            for rung in trajectory.rungs:
                self._keys[index, rung] = leaf_key(point_identity(study, key, rung))

    @property
    def problems(self) -> list[str]:
        """Files that were found broken, one line each."""
        return [*self._leaves.problems, *self._points.problems]

    def entry(self, index: int, steps: int) -> Entry:
        """Return one point."""
        record = self._points.get(self._keys[index, steps])
        if record is not None and not point_is_whole(record, self._leaves):
            record = None
        return Entry(
            index=index,
            trajectory=self.job.trajectories[index],
            steps=steps,
            record=record,
            score=None if record is None else score_point(record, self._leaves),
        )

    def entries(self) -> list[Entry]:
        """Return all points in the job's order."""
        return [self.entry(*place) for place in self._keys]

    def baseline_of(self, entries: list[Entry]) -> tuple[int, int]:
        """Return (leaves on disk, leaves) of the shared baseline."""
        for entry in entries:
            if entry.record is not None and entry.record["baseline"]:
                return leaf_counts(self._leaves, entry.record["baseline"])
        return 0, 0

    def leaf_costs(self, entries: list[Entry]) -> dict[str, float]:
        """Return the summed cost of every different leaf behind the points."""
        keys = {
            key
            for entry in entries
            if entry.record is not None
            for part in ("leaves", "baseline")
            for seeds in entry.record[part].values()
            for lrs in seeds.values()
            for _, key in lrs
        }
        total = {"leaves": 0.0, "steps": 0.0, "tokens": 0.0, "seconds": 0.0}
        for key in sorted(keys):
            leaf = self._leaves.get(key)
            if leaf is not None:
                total["leaves"] += 1
                for name in ("steps", "tokens", "seconds"):
                    total[name] += leaf["cost"].get(name, 0.0)
        return total


def ranked(entries: list[Entry]) -> list[Entry]:
    """Return the recorded points, best first: the argmax over (trajectory, rung) stands in front.

    Equal scores keep the job's order, and within a trajectory fewer steps come first.
    """
    done = [entry for entry in entries if entry.score is not None]
    return sorted(done, key=lambda entry: -entry.score.score if entry.score else 0.0)
