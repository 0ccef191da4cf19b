"""What of a job is on disk: courses, points and leaves, compared with the records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mpt.errors import DataError
from mpt.plan import CourseLoad, Load
from mpt.records import LeafStore, PointStore, leaf_key
from mpt.search.objective import Pack, baseline_packs, missing_runs, packs_of
from mpt.search.rungs import load_rung
from mpt.search.trajectory import point_identity, point_is_whole

if TYPE_CHECKING:
    from pathlib import Path

    from mpt.search.job import Course, SearchJob
    from mpt.search.study import Study, StudyPlan


def take_stock(job: SearchJob, studies: Callable[[StudyPlan], Study]) -> Load:
    """Compare a job with the records on disk; nothing is written.

    Args:
        job: the courses.
        studies: opens a study.
    """
    store = LeafStore(job.results, read_only=True)
    points = PointStore(job.results, read_only=True)
    found: dict[int, tuple[CourseLoad, int, int, int]] = {}
    shared: dict[str, bool] = {}
    for plan in job.plans:
        study = studies(plan)
        baseline = baseline_packs(study)
        missing = {run.key for run in missing_runs(baseline, store)}
        shared |= {run.key: run.key not in missing for pack in baseline for run in pack.runs}
        per_point = sum(len(pack.runs) for pack in baseline)
        for place, course in enumerate(job.courses):
            if course.plan == plan:
                found[place] = _course(course, study, job.results, store, points, per_point)
    rows = [found[place] for place in range(len(job.courses))]
    return Load(
        courses=tuple(load for load, *_ in rows),
        points=len(job.points),
        points_there=sum(row[1] for row in rows),
        leaves=sum(row[3] for row in rows),
        leaves_there=sum(row[2] for row in rows),
        shared=len(shared),
        shared_there=sum(shared.values()),
    )


def _course(
    course: Course,
    study: Study,
    results: Path,
    store: LeafStore,
    points: PointStore,
    per_point: int,
) -> tuple[CourseLoad, int, int, int]:
    """Return a course's load, its points on disk, its leaves on disk, and its leaves."""
    key = study.trajectory_key(course.trajectory.config)
    reached, steps, leaves, points_there, leaves_there = 0, 0, 0, 0, 0
    rungs = course.trajectory.rungs
    for rung in rungs:
        if point_is_whole(points.get(leaf_key(point_identity(study, key, rung))), store):
            points_there += 1
            missing = 0
        else:
            packs = _rung_packs(results, study, key, rung)
            steps += 0 if packs else rung - reached
            missing = len(missing_runs(packs, store)) if packs else per_point
        reached = rung
        leaves += missing
        leaves_there += per_point - missing
    load = CourseLoad(steps=steps, leaves=leaves, begin=rungs[-1] - steps)
    return load, points_there, leaves_there, per_point * len(rungs)


def _rung_packs(results: Path, study: Study, key: str, steps: int) -> list[Pack]:
    """Return the packs of a rung whose prompt is on disk, else none."""
    try:
        rung = load_rung(results, key, steps)
    except DataError:
        return []
    return [] if rung is None else packs_of(study, lambda _: rung.prompt)
