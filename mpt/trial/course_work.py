"""A course → the work that computes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpt.trial.fine_tuning import FineTuning, FineTuningWork
from mpt.trial.trajectory import TrajectoryWork

if TYPE_CHECKING:
    from mpt.search.job import Course
    from mpt.study.study import Study


def course_work(
    study: Study,
    course: Course,
    results: Path,
    chunk_s: float = 5.0,
    *,
    keep_prompts: bool = False,
    racing: bool = False,
) -> TrajectoryWork:
    """Return the units of a course; arguments as of `TrajectoryWork`."""
    if isinstance(course.trajectory, FineTuning):
        return FineTuningWork(study, course.trajectory, results)
    return TrajectoryWork(
        study, course.trajectory, results, chunk_s, keep_prompts=keep_prompts, racing=racing
    )
