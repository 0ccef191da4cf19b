"""Where a search stands: its points with their scores, read from the records alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.records import LeafStore, PointStore, leaf_key
from mpt.search.objective import PointScore, score_point
from mpt.search.trajectory import point_identity, point_is_whole

if TYPE_CHECKING:
    from mpt.search.job import Course, SearchJob
    from mpt.search.study import Study, StudyPlan


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One point of a search."""

    index: int
    """Position of its course among the standings' courses."""
    course: Course
    steps: int
    record: Mapping[str, Any] | None
    """The point record; None if it is not on disk, or a leaf it names is not."""
    score: PointScore | None
    """None without a record."""


class Standings:
    """Reads the points of a job; every reading is fresh from disk.

    Args:
        job: the courses.
        studies: opens a study, which is needed for the names of its points.
        read_only: create nothing in the results directory.
    """

    def __init__(
        self, job: SearchJob, studies: Callable[[StudyPlan], Study], *, read_only: bool = False
    ) -> None:
        self._leaves = LeafStore(job.results, read_only=read_only)
        self._points = PointStore(job.results, read_only=read_only)
        self.courses: list[Course] = []
        self.keys: list[str] = []
        """Trajectory key of each course; a worker that finds another has other data."""
        self._points_of: dict[tuple[int, int], str] = {}
        names: dict[Course, tuple[str, dict[int, str]]] = {}
        for plan in job.plans:  # each study is opened once
            study = studies(plan)
            names |= {c: _names(study, c) for c in job.courses if c.plan == plan}
        for course in job.courses:
            self._add(course, *names[course])

    def add(self, course: Course, study: Study) -> int:
        """Take in a course that the job did not list; return its position."""
        self._add(course, *_names(study, course))
        return len(self.courses) - 1

    def _add(self, course: Course, key: str, points: Mapping[int, str]) -> None:
        for rung, point in points.items():
            self._points_of[len(self.courses), rung] = point
        self.courses.append(course)
        self.keys.append(key)

    @property
    def problems(self) -> list[str]:
        """Files that were found broken, one line each."""
        return [*self._leaves.problems, *self._points.problems]

    def entry(self, index: int, steps: int) -> Entry:
        """Return one point."""
        record = self._points.get(self._points_of[index, steps])
        if record is not None and not point_is_whole(record, self._leaves):
            record = None
        return Entry(
            index=index,
            course=self.courses[index],
            steps=steps,
            record=record,
            score=None if record is None else score_point(record, self._leaves),
        )

    def entries(self) -> list[Entry]:
        """Return all points in the job's order."""
        return [self.entry(*place) for place in self._points_of]

    def complete(self, index: int) -> bool:
        """Return whether every point of a course is recorded."""
        rungs = self.courses[index].trajectory.rungs
        return all(self.entry(index, rung).score is not None for rung in rungs)

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


def _names(study: Study, course: Course) -> tuple[str, dict[int, str]]:
    """Return a course's trajectory key and its points' keys by rung."""
    key = study.trajectory_key(course.trajectory.config)
    rungs = course.trajectory.rungs
    return key, {rung: leaf_key(point_identity(study, key, rung)) for rung in rungs}


def ranked(entries: list[Entry]) -> list[Entry]:
    """Return the recorded points, best first: the argmax over (trajectory, rung) stands in front.

    Equal scores keep the job's order, and within a trajectory fewer steps come first.
    """
    done = [entry for entry in entries if entry.score is not None]
    return sorted(done, key=lambda entry: -entry.score.score if entry.score else 0.0)
