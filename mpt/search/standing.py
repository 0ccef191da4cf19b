"""Where a search stands: its points with their scores, read from the records alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.records import LeafStore, PointStore, leaf_key
from mpt.search.stops import Stop, read_stops, record_stop
from mpt.trial.objective import PointScore, score_point
from mpt.trial.points import point_identity, point_is_whole

if TYPE_CHECKING:
    from mpt.search.job import Course, SearchJob
    from mpt.study.study import Study, StudyPlan


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
    stopped: Stop | None = None
    """Why there is no record and none is waited for; None if there is one, or it is to come."""


class Standings:
    """Reads the points of a job from disk; a point that is whole is read once.

    Args:
        job: the courses.
        studies: opens a study, which is needed for the names of its points.
        read_only: create nothing in the results directory.
    """

    def __init__(
        self, job: SearchJob, studies: Callable[[StudyPlan], Study], *, read_only: bool = False
    ) -> None:
        self._results = job.results
        self._leaves = LeafStore(job.results, read_only=read_only)
        self._points = PointStore(job.results, read_only=read_only)
        self._stops = {
            stop.point: stop for stop in read_stops(job.results) if stop.by in job.stoppers
        }
        self.courses: list[Course] = []
        self.keys: list[str] = []
        """Trajectory key of each course; a worker that finds another has other data."""
        self._points_of: dict[tuple[int, int], str] = {}
        self._index_of: dict[Course, int] = {}
        self._whole: dict[tuple[int, int], Entry] = {}
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
        self._index_of[course] = len(self.courses) - 1

    def index_of(self, course: Course) -> int | None:
        """Return the position of a course, or None if it is not one of them."""
        return self._index_of.get(course)

    @property
    def problems(self) -> list[str]:
        """Files that were found broken, one line each."""
        return [*self._leaves.problems, *self._points.problems]

    def entry(self, index: int, steps: int) -> Entry:
        """Return one point."""
        place = index, steps
        if place not in self._whole:
            entry = self._read(index, steps)
            if entry.score is None:
                return entry
            self._whole[place] = entry
        return self._whole[place]

    def point_key(self, entry: Entry) -> str:
        """Return the key of a point's record."""
        return self._points_of[entry.index, entry.steps]

    def _read(self, index: int, steps: int) -> Entry:
        record = self._points.get(self._points_of[index, steps])
        if record is not None and not point_is_whole(record, self._leaves):
            record = None
        return Entry(
            index=index,
            course=self.courses[index],
            steps=steps,
            record=record,
            score=None if record is None else score_point(record, self._leaves),
            stopped=self._stop_at(index, steps) if record is None else None,
        )

    def entries(self) -> list[Entry]:
        """Return all points in the job's order."""
        return [self.entry(*place) for place in self._points_of]

    def complete(self, index: int) -> bool:
        """Return whether every point of a course is recorded."""
        rungs = self.courses[index].trajectory.rungs
        return all(self.entry(index, rung).score is not None for rung in rungs)

    def rung_scores(self, index: int) -> dict[int, float]:
        """Return rung → score of a course's points that are recorded."""
        entries = [self.entry(index, rung) for rung in self.courses[index].trajectory.rungs]
        return {entry.steps: entry.score.score for entry in entries if entry.score is not None}

    def over(self, index: int) -> bool:
        """Return whether nothing is left to do on a course: it is complete, or was stopped."""
        rungs = self.courses[index].trajectory.rungs
        entries = [self.entry(index, rung) for rung in rungs]
        return all(entry.score is not None or entry.stopped is not None for entry in entries)

    @property
    def stops(self) -> list[Stop]:
        """What was stopped of these courses, in their order."""
        places = [(n, rung) for n, c in enumerate(self.courses) for rung in c.trajectory.rungs]
        found = (self._stops.get(self._points_of[place]) for place in places)
        return [stop for stop in found if stop is not None]

    def stop(self, index: int, steps: int, by: str, reason: str) -> Stop:
        """Put on record that a course is stopped at a rung, or on the way to it."""
        stop = record_stop(
            self._results,
            Stop(
                point=self._points_of[index, steps],
                course=self.courses[index].name,
                steps=steps,
                by=by,
                reason=reason,
            ),
        )
        self._stops[stop.point] = stop
        return stop

    def _stop_at(self, index: int, steps: int) -> Stop | None:
        """Return the stop because of which a point is not computed: at it, or at a rung before."""
        for rung in self.courses[index].trajectory.rungs:
            stop = self._stops.get(self._points_of[index, rung])
            if stop is not None and rung <= steps:
                return stop
        return None

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
