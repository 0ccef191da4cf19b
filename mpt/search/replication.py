"""Which replicates a search runs next: one upstream seed for all, more for the better ones.

Round 1 runs all configurations with the first seed. The next round takes the better half: one
seed each says nothing about how far seeds differ. From then on those go on that cannot be told
from the best, or may still be it; when the seeds are used up, or the best stands alone, it is run
with fresh seeds, on which it is reported. What is run next follows from what is stored, so a
search that was killed goes on with the same replicates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mpt.search.comparison import name_of, ranking_of

if TYPE_CHECKING:
    from mpt.metrics.replicates import Comparison
    from mpt.search.job import SearchJob
    from mpt.search.leaderboard import Leaderboard, PointStatus
    from mpt.study.specs import TrialSpec
    from mpt.study.study import StudyPlan

BUDGET = 2.0
"""Points of a race, fresh ones included, for every point of the first round."""
CHANCE = 0.01
"""Configurations that are the best with at least this probability go on."""


Failures = dict[str, str]
"""Name of a trial → why it failed."""


def run_rounds(
    board: Leaderboard,
    board_of: Callable[[SearchJob], Leaderboard],
    compute: Callable[[Leaderboard, Sequence[TrialSpec]], Failures],
    going: Callable[[], bool],
) -> tuple[Leaderboard, Failures]:
    """Compute round after round until nobody gets more seeds, or one is not whole.

    Args:
        board: with the trials so far.
        board_of: makes the leaderboard of a job with further trials.
        compute: runs the trials that are new on a leaderboard.
        going: whether another round may start.

    Returns:
        The leaderboard with all trials, and what failed in the last round.
    """
    failures: Failures = {}
    while not (failures or points_missing(board)) and going():
        more = next_replicates(board, board.job.allocation)
        if not more:
            break
        board = board_of(dataclasses.replace(board.job, trials=(*board.trials, *more)))
        failures = compute(board, more)
    return board, failures


def points_missing(board: Leaderboard) -> int:
    """Return how many points are missing, apart from those of stopped trials."""
    return sum(entry.score is None and entry.stopped is None for entry in board.entries())


def survivors(comparison: Comparison, seeds: int, points_left: int) -> list[str]:
    """Return the configurations that get one more upstream seed, best first.

    The comparison is on `seeds` of them so far; the budget has `points_left`.
    """
    order = sorted(comparison.summaries.values(), key=lambda one: -one.arg)
    if seeds == 1:
        going = order[: math.ceil(len(order) / 2)]
    else:
        most = max(one.seeds for one in order)
        going = [one for one in order if one.seeds == most and (one.tied or one.p_best >= CHANCE)]
    names = [one.name for one in going[: max(0, points_left)]]
    return names if len(names) > 1 else []


def next_replicates(board: Leaderboard, allocation: str) -> list[TrialSpec]:
    """Return the trials whose points are to be computed next; none if all are there."""
    groups: dict[tuple[StudyPlan, str], list[PointStatus]] = {}
    for entry in board.entries():
        searched = entry.trial.plan.role == "validation"  # a replay's job names all of its seeds
        if searched and entry.trial.learned is not None:
            groups.setdefault((entry.trial.plan, entry.trial.method), []).append(entry)
    trials: list[TrialSpec] = []
    for (plan, _), entries in groups.items():
        trials += _next_of(board, plan, entries, allocation)
    return trials


def with_first_seed(job: SearchJob) -> SearchJob:
    """Return a job whose trials have the first upstream seed of their study.

    A replay (of target tasks) has named its seeds before.
    """
    trials = (
        trial if trial.plan.role == "target" else of_first_seed(trial) for trial in job.trials
    )
    return dataclasses.replace(job, trials=tuple(trials))


def of_first_seed(trial: TrialSpec) -> TrialSpec:
    """Return a trial with the study's first upstream seed, if it has no seed of its own."""
    learned = trial.learned
    if learned is None or learned.seed is not None:
        return trial
    return with_seed(trial, trial.plan.config.seeds[0])


def with_seed(trial: TrialSpec, seed: int, rungs: Sequence[int] | None = None) -> TrialSpec:
    """Return the replicate of a trial with an upstream seed, at some of its rungs."""
    upstream, train_seed = trial.upstream, trial.plan.config.train_seed
    assert upstream.learned is not None  # else there is nothing that a seed would change
    config = dataclasses.replace(upstream.learned, seed=None if seed == train_seed else seed)
    spec = dataclasses.replace(
        upstream, config=config, rungs=tuple(rungs) if rungs else upstream.rungs
    )
    return dataclasses.replace(trial, upstream=spec)


def replicates_of(trial: TrialSpec, seeds: Iterable[int] = ()) -> tuple[TrialSpec, ...]:
    """Return the replicates of a cell of a replay.

    What learns nothing upstream has one run, which all seeds share. Without `seeds` it is the
    trial's own, or else the study's first one.
    """
    seeds = tuple(seeds)
    if trial.learned is None or not seeds:
        return (of_first_seed(trial),)
    return tuple(with_seed(trial, seed) for seed in seeds)


def _next_of(
    board: Leaderboard, plan: StudyPlan, entries: list[PointStatus], allocation: str
) -> list[TrialSpec]:
    config = plan.config
    first = [e for e in entries if e.trial == of_first_seed(e.trial.without_seed())]
    points = {name_of(entry): (entry.trial, entry.steps) for entry in first}
    points_left = math.floor((BUDGET - 1) * len(points)) - len(config.fresh_seeds)
    going = list(points)
    for number, seed in enumerate(config.seeds[1:], start=1):
        ranking = ranking_of(board, plan, entries, config.seeds[:number])
        if ranking is None:
            return []
        if allocation == "race":
            going = survivors(ranking.comparison, number, points_left)
        elif any(entry.score is None and entry.stopped is None for entry in first):
            return []
        points_left -= len(going)
        if not going:
            break
        missing = _missing(board, [points[name] for name in going], seed)
        if missing:
            return missing
    if not config.fresh_seeds or len(config.seeds) < 2:
        return []
    ranking = ranking_of(board, plan, entries, config.seeds)
    if ranking is None:
        return []
    leader = [points[ranking.comparison.leader]]
    return [trial for seed in config.fresh_seeds for trial in _missing(board, leader, seed)]


def _missing(
    board: Leaderboard, points: Sequence[tuple[TrialSpec, int]], seed: int
) -> list[TrialSpec]:
    """Return the replicates of some points with a seed that are not done, one a trajectory.

    A trial is the same whether some of its points are there or not, so that a killed search goes
    on with it.
    """
    rungs: dict[TrialSpec, list[int]] = {}
    for trial, steps in points:
        rungs.setdefault(trial, []).append(steps)
    trials = [with_seed(trial, seed, sorted(steps)) for trial, steps in rungs.items()]
    places = {trial: board.index_of(trial) for trial in trials}
    return [trial for trial, index in places.items() if index is None or not board.over(index)]
