"""Rounds of replicates: what is missing of a job with several upstream seeds, one round at a time.

Who gets further upstream seeds is decided in `mpt.search.replication`; here is what a job looks
like with them, and the loop that computes round after round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mpt.search.dispatch import TrialGroup, open_groups
from mpt.search.leaderboard import Leaderboard
from mpt.search.replication import next_replicates, of_first_seed

if TYPE_CHECKING:
    from mpt.search.job import SearchJob
    from mpt.store.database import Database
    from mpt.study.specs import TrialSpec
    from mpt.study.study import OpenStudy, StudyPlan

Failures = dict[str, str]
"""Name of a trial → why it failed."""


def with_first_seed(job: SearchJob) -> SearchJob:
    """Return a job whose trials have the first upstream seed of their study.

    A replay (of target tasks) has named its seeds before.
    """
    trials = (
        trial if trial.plan.role == "target" else of_first_seed(trial) for trial in job.trials
    )
    return dataclasses.replace(job, trials=tuple(trials))


def points_missing(board: Leaderboard) -> int:
    """Return how many points are missing, apart from those of stopped trials."""
    return sum(entry.score is None and entry.stopped is None for entry in board.entries())


def with_replicates(
    board: Leaderboard, studies: Callable[[StudyPlan], OpenStudy], database: Database
) -> Leaderboard:
    """Return a leaderboard with the replicates that are there, and those that come next.

    Args:
        board: of the trials with the first upstream seed.
        studies: opens a study.
        database: where results are.
    """
    return run_rounds(
        board, lambda job: Leaderboard(job, studies, database), lambda *_: {}, lambda: True
    )[0]


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


def groups_of_round(
    board: Leaderboard,
    studies: Callable[[StudyPlan], OpenStudy],
    database: Database,
    more: Sequence[TrialSpec],
) -> list[TrialGroup]:
    """Return what is to be run of a round's trials, those that share a trajectory together."""
    groups = open_groups(board, studies, database)
    return [group for group in groups if not set(group.specs).isdisjoint(more)]


def plain_job(job: SearchJob) -> SearchJob:
    """Return a job that only runs its trials: whoever chose or stopped some has done so before."""
    return dataclasses.replace(job, suggestions=None, scheduler="none", racing=False)
