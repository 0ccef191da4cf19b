"""Who is stopped at a rung: successive halving over the rungs (ASHA), and racing.

`RungScheduler` is what Ray Tune asks after every report of a trial; a simulated search asks the
same class. Scores are those of our own records. Tune's state is never used: what earlier sessions
have computed is told again (`Judge.replay`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

if TYPE_CHECKING:
    from mpt.search.job import Course
    from mpt.study.study import StudyPlan
    from mpt.trial.objective import PointScore


class Verdict(NamedTuple):
    """Why a course is stopped."""

    steps: int
    """The rung."""
    by: str
    """"asha" or "racing"."""
    reason: str
    """With the numbers that decided."""


@dataclass(frozen=True)
class _Ticket:
    """What Ray's scheduler wants to know of a trial."""

    trial_id: str


class Halving:
    """Ray's ASHA over the rungs of courses that compete with each other.

    A course is stopped at a rung if its score there is below the (1 − 1/r) quantile of the scores
    that other courses had at the same rung before it, with r the ratio of two rungs. The first
    course at a rung always passes. Courses whose rungs are other steps (multitask learning counts
    epochs) are compared rung by rung.

    Args:
        rungs: the rungs of one of the courses.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self._rungs, self._ratio = tuple(rungs), rungs[1] / rungs[0]
        self._asha = ASHAScheduler(
            time_attr="steps",
            metric="score",
            mode="max",
            max_t=rungs[-1],
            grace_period=rungs[0],
            reduction_factor=self._ratio,
        )
        self._scores: list[dict[int, float]] = [{} for _ in rungs]

    def passed(self, index: int, place: int, score: float) -> str | None:
        """Take in a course's score at a rung; return why it is stopped, or None.

        A score that is known already changes nothing.

        Args:
            index: which course.
            place: which of its rungs, from 0.
            score: finite.
        """
        others = self._scores[place]
        if index in others:
            return None
        ticket: Any = _Ticket(str(index))
        controller: Any = None
        if all(index not in scores for scores in self._scores):
            self._asha.on_trial_add(controller, ticket)
        cut = np.percentile(list(others.values()), 100 * (1 - 1 / self._ratio)) if others else None
        others[index] = score
        # milestones are formed by powers of the ratio in floating point
        steps = self._rungs[place] * (1 + 1e-9)
        decision = self._asha.on_trial_result(controller, ticket, {"steps": steps, "score": score})
        last = place == len(self._rungs) - 1
        if decision != TrialScheduler.STOP or last:
            return None
        return (
            f"score {score:+.4g} is below the cut {cut:+.4g}, the best 1 in {self._ratio:.3g} of "
            f"{len(others) - 1} courses there before it"
        )


class Judge:
    """Decides over courses as their rungs are scored.

    Courses compete with those of the same study and method.

    Args:
        courses: by index; the list may grow.
        asha: stop courses that fall behind at a rung.
        racing: stop courses whose interval ends below the leader's.
        score_of: (index, steps) → the score on record; needed for racing.
    """

    def __init__(
        self,
        courses: Sequence[Course],
        *,
        asha: bool,
        racing: bool,
        score_of: Callable[[int, int], PointScore | None] = lambda index, steps: None,
    ) -> None:
        self._courses, self._asha, self._racing = courses, asha, racing
        self._score_of = score_of
        self._halvings: dict[tuple[StudyPlan, str, int], Halving] = {}
        self._leaders: dict[tuple[StudyPlan, str], tuple[float, float | None]] = {}
        self._seen: set[tuple[int, int]] = set()

    def replay(self, index: int, scores: Mapping[int, float]) -> None:
        """Take in what is on record of a course; nothing is decided."""
        self.verdict(index, scores)

    def verdict(self, index: int, scores: Mapping[int, float]) -> Verdict | None:
        """Take in the scores of a course's rungs; return why it is stopped there, or None.

        Args:
            index: which course.
            scores: rung → score; those that were taken in before are passed over.
        """
        rungs = self._courses[index].trajectory.rungs
        found = None
        for place, steps in enumerate(rungs):
            if steps not in scores or (index, steps) in self._seen:
                continue
            self._seen.add((index, steps))
            reasons = {
                "asha": self._halve(index, place, scores[steps]),
                "racing": self._race(index, steps),
            }
            for by, reason in reasons.items():
                if reason is not None and found is None and steps == max(scores) != rungs[-1]:
                    found = Verdict(steps, by, reason)
        return found

    def _halve(self, index: int, place: int, score: float) -> str | None:
        if not self._asha:
            return None
        rungs = self._courses[index].trajectory.rungs
        group = (*self._group(index), len(rungs))
        if group not in self._halvings:
            self._halvings[group] = Halving(rungs)
        return self._halvings[group].passed(index, place, score)

    def _race(self, index: int, steps: int) -> str | None:
        """Compare a point's interval with the leader's, which it may have become itself."""
        from mpt.trial.racing import upper_end

        point = self._score_of(index, steps) if self._racing else None
        if point is None or point.gain is None:
            return None
        group = self._group(index)
        leader = self._leaders.get(group)
        if leader is None or point.score > leader[0]:
            self._leaders[group] = (point.score, point.gain.low)
            return None
        bound, low = upper_end(point.gain), leader[1]
        if bound is None or low is None or bound >= low:
            return None
        return (
            f"its interval ends at ARG {bound:+.2f}, below the lower end of the leader's "
            f"interval, {low:+.2f}"
        )

    def _group(self, index: int) -> tuple[StudyPlan, str]:
        course = self._courses[index]
        return course.plan, course.trajectory.config.method


class RungScheduler(FIFOScheduler):
    """First come, first served; after a rung, the judge may end a trial.

    Tune ends the experiment if a scheduler raises; so an error here is given to `on_problem` and
    the trial goes on.

    Args:
        judge: decides.
        on_stop: called with the course's index and the verdict before the trial ends.
        on_problem: called with one line if judging fails.
    """

    def __init__(
        self,
        judge: Judge,
        on_stop: Callable[[int, Verdict], None],
        on_problem: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._judge, self._on_stop, self._on_problem = judge, on_stop, on_problem

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its scheduler, and nobody reads that."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return STOP or CONTINUE for a report (as Tune flattens it: ``rung_scores/25``)."""
        verdict = None
        with self._shielded():
            verdict = self._judge.verdict(result["index"], rung_scores(result))
            if verdict is not None:
                self._on_stop(result["index"], verdict)
        return str(TrialScheduler.CONTINUE if verdict is None else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take in the last report of a trial, which `on_trial_result` is not asked about."""
        with self._shielded():
            if "index" in result:
                self._judge.replay(result["index"], rung_scores(result))

    @contextlib.contextmanager
    def _shielded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):
                self._on_problem(f"the scheduler failed: {error!r}; the trial goes on")


def rung_scores(result: Mapping[str, Any]) -> dict[int, float]:
    """Return rung → score from a report, as a trial makes it or as Tune flattens it."""
    nested = result.get("rung_scores") or {}
    flat = {
        name.removeprefix("rung_scores/"): value
        for name, value in result.items()
        if name.startswith("rung_scores/")
    }
    return {int(rung): float(score) for rung, score in {**nested, **flat}.items()}
