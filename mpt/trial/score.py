"""The score of a point: its runs and those of plain prompt tuning, and the ARG that follows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mpt.metrics.relative_gain import (
    Candidate,
    Gain,
    Scores,
    average_relative_gain,
    or_nan,
    select_by_dev,
)
from mpt.seeds import numpy_generator
from mpt.store.records import Point, ScoreRow, StudyRecord, lr_order, start_order

BAD_SCORE = -100.0
"""Score of a point without an ARG: the ARG of a prompt that gets nothing right (in %). Searchers
and schedulers need a finite number; the record says that it stands for a failure."""


class PlannedScore(NamedTuple):
    """A run that a point has or will have."""

    key: str
    task: str
    data_seed: int
    lr: float
    train_seed: int
    dev: float | None = None
    """Dev score; None if the run diverged, or is not done."""
    test: float | None = None
    """Test score likewise."""


ScoredRun = ScoreRow | PlannedScore


@dataclass(frozen=True, kw_only=True)
class PointScore:
    """What the stored runs say about one point."""

    gain: Gain | None
    """ARG with interval; None if the trajectory diverged before this rung."""
    score: float
    """Finite score to rank by: ARG in %, over the tasks that have a positive baseline;
    `BAD_SCORE` if the point has no ARG."""
    mean_test: float | None
    """Mean test score of the point over the tasks where it has one (a fraction)."""
    runs: int
    """The point's own runs."""
    note: str
    """What a reader must know: divergence, tasks left out; empty if nothing."""
    selected: Scores | None = None
    """Task → data seed → test score of the taken run, the mean over downstream starts; None if the
    trajectory diverged."""

    @property
    def arg(self) -> float | None:
        """ARG in %, over the tasks that have a gain; None if it is undefined."""
        return None if self.gain is None else self.gain.arg_of_defined

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of its 95 % interval over data seeds, in %; None if there is none."""
        return None if self.gain is None else self.gain.interval


def selected_scores(
    runs: Iterable[ScoredRun], lrs: Sequence[float], starts: Sequence[int]
) -> Scores:
    """Return task → data seed → test score, the mean over downstream starts.

    At each start it is that of the run with the best dev score. A (task, seed) that lacks the run
    of a learning rate at a start has no score: the choice would not be the recipe's. Neither has
    one all of whose runs at a start diverged.

    Args:
        runs: of one point.
        lrs: learning rates in the order that decides ties.
        starts: train seeds of the starts; runs of others are passed over.
    """
    scores: dict[str, dict[int, float]] = {}
    for (task, seed), by_start in scores_by_start(runs, lrs).items():
        scores.setdefault(task, {})
        if all(start in by_start for start in starts):
            scores[task][seed] = math.fsum(by_start[start] for start in starts) / len(starts)
    return scores


def scores_by_start(
    runs: Iterable[ScoredRun], lrs: Sequence[float]
) -> dict[tuple[str, int], dict[int, float]]:
    """Return (task, data seed) → train seed of a start → test score of the run with the best dev.

    A start that lacks the run of a learning rate, or all of whose runs diverged, is absent.
    """
    by_cell: dict[tuple[str, int], dict[int, dict[float, Candidate]]] = {}
    for run in runs:
        one = Candidate(lr=float(run.lr), dev=or_nan(run.dev), test=or_nan(run.test))
        by_start = by_cell.setdefault((run.task, run.data_seed), {})
        by_start.setdefault(run.train_seed, {})[one.lr] = one
    return {
        cell: {
            start: best.test
            for start, by_lr in by_start.items()
            if all(float(lr) in by_lr for lr in lrs)
            and (best := select_by_dev([by_lr[float(lr)] for lr in lrs])) is not None
        }
        for cell, by_start in by_cell.items()
    }


def gain_of(method: Scores, baseline: Scores, study: StudyRecord) -> Gain:
    """Return the ARG of a method in a study, with its interval.

    The interval's generator depends on the study's train seed alone, so that all points are
    compared on the same resamples.
    """
    return average_relative_gain(
        method,
        baseline,
        sorted({task for task, _, _ in study.scored}),
        sorted(study.data_seeds),
        rng=numpy_generator(study.train_seed, "bootstrap"),
    )


def score_point(
    point: Point, runs: Sequence[ScoredRun], baseline: Scores, study: StudyRecord
) -> PointScore:
    """Compute a point's score."""
    if point.status == "diverged":
        return PointScore(gain=None, score=BAD_SCORE, mean_test=None, runs=0, note=point.note)
    selected = selected_scores(runs, lr_order(point, study), start_order(point, study))
    gain = gain_of(selected, baseline, study)
    tests = [task.score for task in gain.tasks if task.score is not None]
    return PointScore(
        gain=gain,
        score=_rank_score(gain),
        mean_test=sum(tests) / len(tests) if tests else None,
        runs=len(runs),
        note="" if gain.arg is not None else f"* ARG over {gain.defined} of {gain.of} tasks",
        selected=selected,
    )


def upper_end(gain: Gain) -> float | None:
    """Return the upper end of an interval, or the ARG where that is higher or has no interval."""
    ends = [end for end in (gain.high, gain.arg_of_defined) if end is not None]
    return max(ends) if ends else None


def _rank_score(gain: Gain) -> float:
    """Return the ARG over the tasks with a positive baseline, which are the same for all points.

    A point without a score on one of these tasks has no ARG that could be compared.
    """
    for task in gain.tasks:
        comparable = task.baseline is not None and task.baseline > 0
        if task.gain is None and (comparable or task.score is None):
            return BAD_SCORE
    arg = gain.arg_of_defined
    return BAD_SCORE if arg is None else max(BAD_SCORE, arg)
