"""Racing: whether a point can still reach the leader, decided on the runs that are there.

The optimistic bound of a point with missing runs is the upper end of its interval, or its ARG if
that is higher, with every missing (task, data seed, downstream start) at the highest score there
is. A further run can only lower it: s, a mean over starts, enters each resample's ARG with a
positive weight, and the resamples are drawn from the same generator for every point. So a point
whose bound is below the lower end of the leader's interval would end there too, whatever its
missing runs are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mpt.metrics.relative_gain import Scores
from mpt.store.records import Run, StudyRecord
from mpt.trial.score import PlannedScore, PointScore, gain_of, scores_by_start, upper_end

BEST = 1.0
"""The highest score of every metric of the gym (a fraction, or a correlation)."""


def leader_low(scores: Sequence[PointScore]) -> float | None:
    """Return the lower end of the leader's interval, in %.

    The leader is the point with the highest score; the first of equal ones. None if there is no
    point, or the leader has no interval.
    """
    known = [score for score in scores if score.gain is not None]
    if not known:
        return None
    best = max(known, key=lambda score: score.score)
    assert best.gain is not None
    return best.gain.low


def hopeless(
    runs: Sequence[PlannedScore],
    stored: Mapping[str, Run],
    baseline: Scores,
    study: StudyRecord,
    low: float,
) -> str | None:
    """Return why a point cannot reach the leader, or None if it may.

    Args:
        runs: all runs the point will have.
        stored: those that are stored, by key.
        baseline: selected scores of plain prompt tuning.
        study: the study.
        low: lower end of the leader's interval, ARG in %.
    """
    bound = optimistic_bound(runs, stored, baseline, study)
    if bound is None or bound >= low:
        return None
    return (
        f"with {len(stored)} of {len(runs)} runs it ends at most at ARG {bound:+.2f}, below the "
        f"lower end of the leader's interval, {low:+.2f}"
    )


def optimistic_bound(
    runs: Sequence[PlannedScore], stored: Mapping[str, Run], baseline: Scores, study: StudyRecord
) -> float | None:
    """Return the most that the ARG of a point, or its interval's upper end, can still become.

    None where no task has a positive baseline.
    """
    lrs = list(dict.fromkeys(run.lr for run in runs))
    starts = list(dict.fromkeys(run.train_seed for run in runs))
    scored = [
        run._replace(dev=stored[run.key].dev, test=stored[run.key].test)
        for run in runs
        if run.key in stored
    ]
    known = scores_by_start(scored, lrs)
    best: dict[str, dict[int, float]] = {}
    for run in runs:
        of_cell = known.get((run.task, run.data_seed), {})
        score = math.fsum(of_cell.get(start, BEST) for start in starts) / len(starts)
        best.setdefault(run.task, {})[run.data_seed] = score
    return upper_end(gain_of(best, baseline, study))
