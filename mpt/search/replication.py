"""Which replicates a search runs next: one upstream seed for all, more for the better ones.

Round 1 runs all configurations with the first seed. The next round of a race takes the better
half: one seed each says nothing about how far seeds differ. From then on those go on that cannot
be told from the best, or may still be it, as far as the budget goes; when that or the seeds are
used up, or the best stands alone, it is run with fresh seeds, on which it is reported. What is run
next follows from what is stored, so a search that was killed goes on with the same replicates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.search.comparison import name_of, ranking_of, seed_of
from mpt.study.contest.passes import planned_passes

if TYPE_CHECKING:
    from mpt.metrics.replicates import Comparison
    from mpt.search.job import SearchJob
    from mpt.search.leaderboard import Leaderboard, PointStatus
    from mpt.study.specs import TrialSpec
    from mpt.study.study import StudyPlan

BUDGET = 2.0
"""What a race may cost, fresh seeds included, for what the first seed of all points costs."""
CHANCE = 0.01
"""Configurations that are the best with at least this probability go on."""

Point = tuple["TrialSpec", int]
"""A trial and one of its rungs."""

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


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a race may still spend on further upstream seeds.

    Whatever a row costs upstream and a run downstream, a race of `BUDGET` times the points and
    `BUDGET` times the row passes of the first seed costs at most `BUDGET` times as much. Grids of
    few trajectories cost more, see `of`.
    """

    points: int
    passes: float
    """Row passes of upstream learning."""

    @classmethod
    def of(cls, points: Sequence[Point], fresh: int) -> Allowance:
        """Return what is left beside the first seed of all points and `fresh` ones of the best.

        In a small grid these alone use up the budget. One seed names no best point, so two points
        can always be compared on a second one.
        """
        best = max((_passes(trial, steps) for trial, steps in points), default=0.0)
        more = BUDGET - 1
        return cls(
            points=max(2, math.floor(more * len(points)) - fresh),
            passes=max(2 * best, more * passes_of(points) - fresh * best),
        )

    def after(self, points: Sequence[Point]) -> Allowance:
        """Return what is left when these have been run with one more seed."""
        return Allowance(points=self.points - len(points), passes=self.passes - passes_of(points))

    def affordable(self, wanted: Sequence[Point]) -> list[Point]:
        """Return, in their order, the points that it buys; what is too dear is passed over.

        A point costs the row passes by which its trajectory gets longer. One alone would be
        compared with nothing: then it is none.
        """
        bought: list[Point] = []
        steps: dict[TrialSpec, int] = {}
        points, passes = self.points, self.passes
        for trial, rung in wanted:
            longer = max(0, rung - steps.get(trial, 0))
            cost = _passes(trial, longer)
            if points > 0 and cost <= passes:
                bought.append((trial, rung))
                steps[trial] = max(rung, steps.get(trial, 0))
                points, passes = points - 1, passes - cost
        return bought if len(bought) > 1 else []


def survivors(comparison: Comparison, seeds: int) -> list[str]:
    """Return the configurations that should get one more upstream seed, best first.

    The comparison is on `seeds` of them so far.
    """
    order = sorted(comparison.summaries.values(), key=lambda one: -one.arg)
    if seeds == 1:
        going = order[: math.ceil(len(order) / 2)]
    else:
        most = max(one.seeds for one in order)
        going = [one for one in order if one.seeds == most and (one.tied or one.p_best >= CHANCE)]
    return [one.name for one in going]


def raced(
    comparison: Comparison, seeds: int, points: Mapping[str, Point], allowance: Allowance
) -> list[Point]:
    """Return the points that get one more upstream seed, best first; none: the race is over.

    It is over, too, when it cannot pay for the best one, with which others are compared.

    Args:
        comparison: on the seeds so far.
        seeds: how many these are.
        points: of the first seed, by name.
        allowance: what may be spent.
    """
    going = [points[name] for name in survivors(comparison, seeds)]
    bought = allowance.affordable(going)
    return bought if bought[:1] == going[:1] else []


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


def further_replicates(trials: Sequence[TrialSpec], allocation: str) -> list[list[TrialSpec]]:
    """Return the most that upstream seeds which have not begun may ask for, round by round.

    Scores decide who gets them. Until then a race is taken to spend its whole budget, on as many
    and as long trajectories as that buys: a bound, and no forecast.

    Args:
        trials: those of the first seed, and of later ones as far as they are known.
        allocation: "race", or "full" for all seeds of all configurations.
    """
    groups: dict[tuple[StudyPlan, str], list[TrialSpec]] = {}
    for trial in trials:
        if trial.plan.role == "validation" and trial.learned is not None:
            groups.setdefault((trial.plan, trial.method), []).append(trial)
    return [one for (plan, _), own in groups.items() for one in _further_of(plan, own, allocation)]


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


def replicate_config(trials: Sequence[TrialSpec], replicate: TrialSpec) -> dict[str, int | str]:
    """Return, flat, of which of some trials a trial is a replicate, and which one."""
    seed, rungs = seed_of(replicate), replicate.upstream.rungs
    learned = ((n, one) for n, one in enumerate(trials) if one.learned is not None)
    number = next(n for n, one in learned if with_seed(one, seed, rungs) == replicate)
    return {"of": number, "upstream_seed": seed, "rungs": ", ".join(map(str, rungs))}


def configured_replicate(trials: Sequence[TrialSpec], config: Mapping[str, Any]) -> TrialSpec:
    """Return the replicate that `replicate_config` has described."""
    rungs = [int(rung) for rung in str(config["rungs"]).split(",")]
    return with_seed(trials[int(config["of"])], int(config["upstream_seed"]), rungs)


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
    allowance = Allowance.of(list(points.values()), len(config.fresh_seeds))
    going = list(points.values())
    if allocation == "full":
        if any(entry.score is None and entry.stopped is None for entry in first):
            return []
        missing = [one for seed in config.seeds[1:] for one in _missing(board, going, seed)]
        if missing:
            return missing
    for number, seed in enumerate(config.seeds[1:] if allocation == "race" else (), start=1):
        ranking = ranking_of(board, plan, entries, config.seeds[:number])
        if ranking is None:
            return []
        going = raced(ranking.comparison, number, points, allowance)
        if not going:
            break
        allowance = allowance.after(going)
        missing = _missing(board, going, seed)
        if missing:
            return missing
    if not config.fresh_seeds or len(config.seeds) < 2:
        return []
    ranking = ranking_of(board, plan, entries, config.seeds)
    if ranking is None:
        return []
    leader = [points[ranking.comparison.leader]]
    return [trial for seed in config.fresh_seeds for trial in _missing(board, leader, seed)]


def _further_of(
    plan: StudyPlan, trials: Sequence[TrialSpec], allocation: str
) -> list[list[TrialSpec]]:
    config, race = plan.config, allocation == "race"
    points = _longest_first([one for one in trials if seed_of(one) == config.seeds[0]])
    allowance = Allowance.of(points, len(config.fresh_seeds))
    most = math.ceil(len(points) / 2)
    rounds = []
    for seed in config.seeds[1:]:
        begun = _longest_first([one for one in trials if seed_of(one) == seed])
        going = begun or points
        if race and not begun:
            own = dataclasses.replace(allowance, points=min(most, allowance.points))
            going = own.affordable(points)
        if not going:
            break
        if not begun:
            rounds.append(_replicates(going, seed))
        allowance, most = allowance.after(going), len(going)
    if rounds and not race:
        rounds = [[one for own in rounds for one in own]]
    fresh = config.fresh_seeds if len(config.seeds) > 1 and points else ()
    if fresh and not any(seed_of(trial) == fresh[0] for trial in trials):
        rounds.append([one for seed in fresh for one in _replicates(points[:1], seed)])
    return rounds


def _longest_first(trials: Sequence[TrialSpec]) -> list[Point]:
    """Return the points of some trials: last rungs, which cost whole trajectories, come first."""
    points = [(trial, steps) for trial in trials for steps in trial.upstream.rungs]
    return sorted(points, key=lambda one: (one[1] < one[0].upstream.rungs[-1], -one[1]))


def _passes(trial: TrialSpec, steps: int) -> float:
    """Return the row passes of some steps of a trajectory."""
    return planned_passes(dataclasses.replace(trial.upstream, rungs=(steps,)))


def passes_of(points: Iterable[Point]) -> float:
    """Return the row passes of the trajectories on which some points lie."""
    steps: dict[TrialSpec, int] = {}
    for trial, rung in points:
        steps[trial] = max(rung, steps.get(trial, 0))
    return sum(_passes(trial, rung) for trial, rung in steps.items())


def _missing(board: Leaderboard, points: Sequence[Point], seed: int) -> list[TrialSpec]:
    """Return the replicates of some points with a seed that are not done, one a trajectory."""
    places = {trial: board.index_of(trial) for trial in _replicates(points, seed)}
    return [trial for trial, index in places.items() if index is None or not board.over(index)]


def _replicates(points: Sequence[Point], seed: int) -> list[TrialSpec]:
    """Return the replicates of some points with a seed, one a trajectory.

    A trial is the same whether some of its points are there or not, so that a killed search goes
    on with it.
    """
    rungs: dict[TrialSpec, list[int]] = {}
    for trial, steps in points:
        rungs.setdefault(trial, []).append(steps)
    return [with_seed(trial, seed, sorted(steps)) for trial, steps in rungs.items()]
