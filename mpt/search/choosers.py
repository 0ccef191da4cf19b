"""Choosing what is tried next: from a list, or by Optuna's TPE from what is known so far.

A chooser hands out courses and is told how they ended. Nothing here knows Ray; the same objects
serve a live search and a simulated one.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mpt.records import append_line, read_lines
from mpt.search.job import Course, SearchJob
from mpt.seeds import derive, numpy_generator
from mpt.storage import digest
from mpt.study.domains import to_optuna

if TYPE_CHECKING:
    import optuna

    from mpt.study.spaces import Space
    from mpt.study.study import StudyPlan

Point = dict[str, Any]
"""The searched settings of a trajectory."""

STARTUP = 5
"""Suggestions that TPE draws at random before it models anything: searches here are tens long."""

_TRIES = 50
"""Suggestions that are asked for until one is new."""


class Chooser(Protocol):
    """Says which course is next, and learns from how courses went."""

    def next(self) -> Course | None:
        """Return the next course; None if there is none any more."""

    def report(self, course: Course, scores: Mapping[int, float], *, final: bool) -> None:
        """Take in a course's scores.

        Args:
            course: one that `next` has given, or that an earlier session had.
            scores: rung → score, of the rungs reached so far; all finite.
            final: no further rung will come; without any score the course failed.
        """


class ListChooser:
    """Courses in the order they are given: a grid, or random draws."""

    def __init__(self, courses: Sequence[Course]) -> None:
        self._courses = deque(courses)

    def next(self) -> Course | None:
        """Return the next course of the list."""
        return self._courses.popleft() if self._courses else None

    def report(self, course: Course, scores: Mapping[int, float], *, final: bool) -> None:
        """Do nothing: what is next does not depend on it."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search that chooses its trajectories while it runs."""

    space: Space
    """What is searched; where it counts epochs, with the study's rows."""
    plan: StudyPlan
    """The study all trajectories are scored in."""
    count: int
    """Trajectories in all."""
    seed: int
    """Root of the suggestions' randomness."""

    @property
    def first(self) -> Course:
        """The first suggestion, which is known before any score: the space's first point."""
        return Course(plan=self.plan, trajectory=self.space.sample(1, self.seed)[0])

    def log(self, results: Path) -> Path:
        """Return the file that keeps what was suggested.

        It is named by what the suggestions depend on; more rungs or a larger count go on with it.
        """
        space = self.space
        domains = [
            [domain.name, domain.values, domain.low, domain.high, domain.scale]
            for domain in space.domains
        ]
        parts = [space.method, domains, dict(space.fixed), dict(space.first)]
        name = digest(["tpe", *parts, dataclasses.asdict(self.plan), self.seed])
        return results / "searches" / f"{name[:16]}.jsonl"


class TpeChooser:
    """Optuna's TPE through ask and tell, rebuilt from the log of what it suggested.

    The value of a trajectory is its best score over its rungs. Suggestion n is drawn with a
    generator of its own, named by the seed and n, from what has been told until then; so no state
    but the log is needed to go on. No trajectory is suggested twice.

    Args:
        search: space, study, count and seed.
        known: what was suggested in earlier sessions, in order (`suggested_before`).
        suggested: called with the settings of every new suggestion before it is handed out.
    """

    def __init__(
        self,
        search: Search,
        known: Sequence[Point] = (),
        suggested: Callable[[Point], None] = lambda point: None,
    ) -> None:
        self._search, self._suggested = search, suggested
        self._domains = {domain.name: to_optuna(domain) for domain in search.space.domains}
        self._study = _quiet_study()
        self._trials: dict[Course, optuna.trial.Trial] = {}
        self._ended: set[Course] = set()
        for point in known[: search.count]:
            self._take(point)
        self._left_over = deque(self._trials)

    @property
    def courses(self) -> list[Course]:
        """What has been suggested so far, in order."""
        return list(self._trials)

    def next(self) -> Course | None:
        """Return a suggestion of an earlier session that has not ended, or a new one."""
        while self._left_over:
            course = self._left_over.popleft()
            if course not in self._ended:
                return course
        if len(self._trials) >= self._search.count:
            return None
        point = self._new_point()
        if point is None:
            return None
        self._suggested(point)
        return self._take(point)

    def report(self, course: Course, scores: Mapping[int, float], *, final: bool) -> None:
        """Tell the sampler how a course ended; one without any score counts as failed."""
        if not final or course in self._ended:
            return
        self._ended.add(course)
        if scores:
            self._study.tell(self._trials[course], max(scores.values()))
        else:
            self._fail(self._trials[course])

    def _take(self, point: Point) -> Course:
        """Take a suggestion as a running trial."""
        search = self._search
        course = Course(plan=search.plan, trajectory=search.space.trajectory(point))
        self._study.enqueue_trial(point)
        self._trials[course] = self._study.ask(self._domains)
        return course

    def _new_point(self) -> Point | None:
        """Return settings that were not suggested before; None if the space holds no more."""
        space, seed, number = self._search.space, self._search.seed, len(self._trials)
        if number == 0:
            return space.settings(self._search.first.trajectory)
        known = [trial.params for trial in self._trials.values()]
        for attempt in range(_TRIES):
            self._study.sampler = _sampler(derive(seed, "tpe", number, attempt))
            trial = self._study.ask(self._domains)
            self._fail(trial)  # it is asked for again as a fixed point
            if trial.params not in known:
                return dict(trial.params)
        # TPE insists on what it has: draw among the rest
        rng = numpy_generator(seed, "tpe rest", number)
        rest = [point for point in space.every_point() if point not in known]
        return rest[int(rng.integers(len(rest)))] if rest else None

    def _fail(self, trial: optuna.trial.Trial) -> None:
        import optuna

        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)


def suggested_before(search: Search, results: Path) -> list[Point]:
    """Return what a search suggested in earlier sessions, in order.

    Entries that are torn or not of the space are left out, and so are repeated ones.
    """
    points: list[Point] = []
    names = {domain.name: domain for domain in search.space.domains}
    for entry in read_lines(search.log(results)):
        point = entry.get("point") if isinstance(entry, dict) else None
        if not isinstance(point, dict) or set(point) != set(names) or point in points:
            continue
        if all(_is_number(value) and names[name].holds(value) for name, value in point.items()):
            points.append(point)
    return points


def open_chooser(job: SearchJob, *, read_only: bool = False) -> TpeChooser | None:
    """Return the chooser of a job that chooses while it runs, as its log has it; else None."""
    search = job.search
    if search is None:
        return None
    log = search.log(job.results)

    def write(point: Point) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        append_line(log, {"time": now, "method": search.space.method, "point": point})

    known = suggested_before(search, job.results)
    return TpeChooser(search, known) if read_only else TpeChooser(search, known, write)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _quiet_study() -> optuna.Study:
    import optuna

    logging.getLogger("optuna").setLevel(logging.WARNING)
    return optuna.create_study(direction="maximize")


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler that takes searched settings together, and running trials as bad ones."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed % 2**32, multivariate=True, constant_liar=True, n_startup_trials=STARTUP
        )
