"""A search on recorded results: the real chooser and scheduler, simulated workers and time.

A course is a row of stages: upstream learning up to a rung, then the leaves of one data seed after
the other. Each takes the seconds on record. Between stages the same rules decide as in a live
search. The plain prompt tuning that all points share is taken as done.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpt.errors import UsageError
from mpt.search.choosers import Chooser
from mpt.search.job import Course
from mpt.search.ray.schedulers import Judge, RungScheduler, Verdict
from mpt.search.simulation.recorded import Recorded
from mpt.trial.objective import PointScore
from mpt.trial.racing import hopeless


@dataclass
class Trial:
    """What became of one course."""

    course: Course
    began: float
    """Simulated seconds."""
    ended: float = 0.0
    busy: float = 0.0
    """Seconds of work."""
    scores: dict[int, float] = field(default_factory=dict)
    """Rung → score, of the rungs it reached."""
    stopped: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a simulated search found, and at what cost."""

    trials: tuple[Trial, ...]
    """In the order they were started."""
    winner: tuple[Course, int, float]
    """Course, rung and score of the best point found."""
    regret: float
    """Best score of all recorded points minus the winner's (ARG, points of %)."""
    saved: float
    """Share of the cost of all recorded points that was not spent."""
    seconds: float
    """Simulated seconds until the end."""


class Simulation:
    """One search on recorded results.

    Args:
        recorded: scores and seconds.
        chooser: what is tried next.
        workers: courses that run at once.
        asha: stop courses that fall behind at a rung.
        racing: stop courses that cannot reach the leader any more.
    """

    def __init__(
        self, recorded: Recorded, chooser: Chooser, workers: int, *, asha: bool, racing: bool
    ) -> None:
        self._recorded, self._chooser, self._racing = recorded, chooser, racing
        self._workers = workers
        self._trials: list[Trial] = []
        self._courses: list[Course] = []
        self._leader: PointScore | None = None
        self._problems: list[str] = []
        judge = Judge(self._courses, asha=asha, racing=racing, score_of=self._score_of)
        self._scheduler = RungScheduler(judge, self._stop, self._problems.append)

    def run(self) -> Outcome:
        """Run to the end.

        Raises:
            UsageError: a point is not recorded (named), or there is nothing to try.
        """
        events: list[tuple[float, int, int, Iterator[float]]] = []
        count, now = itertools.count(), 0.0
        for _ in range(self._workers):
            self._start(events, count, now)
        while events:
            now, _, index, stages = heapq.heappop(events)
            trial = self._trials[index]
            trial.ended = now
            seconds = next(stages, None)
            if seconds is None:
                self._chooser.report(trial.course, trial.scores, final=True)
                self._start(events, count, now)
            else:
                trial.busy += seconds
                heapq.heappush(events, (now + seconds, next(count), index, stages))
        return self._outcome(now)

    def _start(self, events: list[Any], count: Iterator[int], now: float) -> None:
        course = self._chooser.next()
        if course is not None:
            self._courses.append(course)
            self._trials.append(Trial(course, now, now))
            index = len(self._trials) - 1
            heapq.heappush(events, (now, next(count), index, self._stages(index)))

    def _stages(self, index: int) -> Iterator[float]:
        """Yield the seconds of one stage after the other; what follows happens at its end."""
        trial = self._trials[index]
        spent = 0.0
        for steps in trial.course.trajectory.rungs:
            point = self._recorded.point(trial.course, steps)
            yield point["cost"]["seconds"] - spent
            spent = point["cost"]["seconds"]
            if point["status"] == "diverged":  # and so it is at all later rungs
                self._land(index, [n for n in trial.course.trajectory.rungs if n >= steps])
                return
            seconds = self._recorded.leaf_seconds(point)
            for number, seed in enumerate(seconds, start=1):
                yield seconds[seed]
                if self._racing and number < len(seconds):
                    there = self._recorded.leaves(point, set(list(seconds)[:number]))
                    reason = hopeless(point["leaves"], point["baseline"], there, self._low)
                    if reason is not None:
                        trial.stopped = Verdict(steps, "racing", reason)
                        return
            if self._land(index, [steps]) == "STOP":
                return

    @property
    def _low(self) -> float | None:
        """Lower end of the leader's interval."""
        gain = None if self._leader is None else self._leader.gain
        return None if gain is None else gain.low

    def _land(self, index: int, rungs: Sequence[int]) -> str:
        """Take in points; return what the scheduler says to their report."""
        trial = self._trials[index]
        for steps in rungs:
            score = self._recorded.score(trial.course, steps)
            trial.scores[steps] = score.score
            better = self._leader is None or score.score > self._leader.score
            if score.gain is not None and better:
                self._leader = score
        report = {"index": index, "steps": rungs[-1], "rung_scores": dict(trial.scores)}
        answer = self._scheduler.on_trial_result(None, trial, report)
        if self._problems:
            raise RuntimeError(self._problems[0])
        return answer

    def _stop(self, index: int, verdict: Verdict) -> None:
        self._trials[index].stopped = verdict

    def _score_of(self, index: int, steps: int) -> PointScore:
        return self._recorded.score(self._courses[index], steps)

    def _outcome(self, now: float) -> Outcome:
        found = [
            (trial.course, steps, score)
            for trial in self._trials
            for steps, score in trial.scores.items()
        ]
        if not found:
            raise UsageError("the simulated search has no point: there is nothing to try")
        winner = max(found, key=lambda one: one[2])
        return Outcome(
            trials=tuple(self._trials),
            winner=winner,
            regret=self._recorded.best - winner[2],
            saved=1 - sum(trial.busy for trial in self._trials) / self._recorded.seconds,
            seconds=now,
        )


def simulate(
    recorded: Recorded,
    chooser_of: Callable[[int], Chooser],
    seeds: int,
    workers: int,
    *,
    asha: bool,
    racing: bool,
) -> list[Outcome]:
    """Run the same search with several seeds.

    Args:
        recorded: scores and seconds.
        chooser_of: number of the seed, from 0 → what is tried next.
        seeds: how many.
        workers: courses that run at once.
        asha: see `Simulation`.
        racing: see `Simulation`.
    """
    return [
        Simulation(recorded, chooser_of(number), workers, asha=asha, racing=racing).run()
        for number in range(seeds)
    ]


def check_recorded(recorded: Recorded, courses: Sequence[Course]) -> None:
    """Refuse a list of courses with points that are not recorded.

    Raises:
        UsageError: some are not; up to five are named.
    """
    missing = [name for course in courses for name in recorded.missing(course)]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UsageError(
            f"--simulate lacks {len(missing)} points of this search: {', '.join(missing[:5])}"
            f"{more}; run it there first, without --scheduler and --racing"
        )
