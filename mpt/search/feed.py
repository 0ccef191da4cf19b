"""Which course is started next, and what the chooser learns of how courses ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from mpt.search.choosers import Chooser, ListChooser, TpeChooser
from mpt.search.job import Course, SearchJob

if TYPE_CHECKING:
    from mpt.search.standing import Standings
    from mpt.study.study import Study, StudyPlan


def with_suggestions(job: SearchJob, chooser: TpeChooser | None) -> SearchJob:
    """Return a job with the courses that earlier sessions suggested; with the first at least."""
    if chooser is None or not chooser.courses:
        return job
    return dataclasses.replace(job, courses=tuple(chooser.courses))


class Feed:
    """The courses of a job in the order they are started; those that are over are passed by.

    Args:
        job: what is searched.
        standings: its courses and records; courses that are chosen on the way are added.
        chooser: of a job that chooses its courses; None: the job's own courses in their order.
        studies: opens a study.
    """

    def __init__(
        self,
        job: SearchJob,
        standings: Standings,
        chooser: TpeChooser | None,
        studies: Callable[[StudyPlan], Study],
    ) -> None:
        self._standings, self._studies = standings, studies
        todo = [course for n, course in enumerate(standings.courses) if not standings.over(n)]
        self._chooser: Chooser = chooser or ListChooser(todo)
        self.left = len(todo)
        """Courses that may have to be started."""
        self.open = chooser is not None and self.left > 0
        """Whether courses may still be chosen that nobody knows yet."""
        if chooser is not None:
            known = set(chooser.courses)
            self.left = len(known.intersection(todo)) + job.total[0] - len(known)
            for course in chooser.courses:
                self._pass_by(course)

    def next(self) -> int | None:
        """Return the position of the next course; None if there is none any more."""
        while (course := self._chooser.next()) is not None:
            if not self._pass_by(course):
                return self._place(course)
        self.open = False
        return None

    def ended(self, index: int) -> None:
        """Tell the chooser what is on record of a course on which no more work is done."""
        course = self._standings.courses[index]
        self._chooser.report(course, self._standings.rung_scores(index), final=True)

    def _pass_by(self, course: Course) -> bool:
        """Return whether a course is over, and if so tell the chooser how it ended."""
        index = self._place(course)
        over = self._standings.over(index)
        if over:
            self.ended(index)
        return over

    def _place(self, course: Course) -> int:
        index = self._standings.index_of(course)
        return self._standings.add(course, self._studies(course.plan)) if index is None else index


def planned(job: SearchJob, standings: Standings) -> SearchJob:
    """Return the job as it is expected to go: without what was stopped, with what will be chosen.

    Args:
        job: its known courses.
        standings: knows what was stopped.

    Returns:
        The courses in their order, stopped ones cut down to what is on record; then random draws
        in the place of courses that have not been chosen yet.
    """
    courses = [_cut(standings, n) for n in range(len(job.courses))]
    if job.search is not None:
        plan, space = job.search.plan, job.search.space
        draws = space.sample(min(job.total[0], space.size or job.total[0]), job.search.seed)
        more = [Course(plan=plan, trajectory=one) for one in draws]
        courses += [one for one in more if one not in job.courses][: job.total[0] - len(courses)]
    return dataclasses.replace(job, courses=tuple(courses), scheduler="none")


def _cut(standings: Standings, index: int) -> Course:
    course = standings.courses[index]
    there = tuple(standings.rung_scores(index))
    if not there or not standings.over(index):
        return course
    return dataclasses.replace(
        course, trajectory=dataclasses.replace(course.trajectory, rungs=there)
    )
