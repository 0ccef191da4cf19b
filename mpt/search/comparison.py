"""The points of a search by configuration: replicates over upstream seeds, compared in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpt.errors import UsageError
from mpt.metrics.choice import Reported, reported
from mpt.metrics.replicates import Comparison, Replicates, Summary, args_of, compare, prior_of
from mpt.seeds import numpy_generator

if TYPE_CHECKING:
    from mpt.metrics.moderation import Prior
    from mpt.metrics.relative_gain import Scores
    from mpt.search.leaderboard import PointStatus, RecordedLeaderboard
    from mpt.store.records import StudyRecord
    from mpt.study.specs import TrialSpec
    from mpt.study.study import StudyPlan


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration at one rung, with its replicates."""

    summary: Summary
    entries: Mapping[int, PointStatus]
    """Upstream seed → point, of the seeds that all configurations are compared on."""

    @property
    def first(self) -> PointStatus:
        """The point of the first upstream seed: it has the settings."""
        return next(iter(self.entries.values()))

    @property
    def cost(self) -> float:
        """Tokens of upstream learning a replicate, or its steps where those are not known."""
        records = [one.record for one in self.entries.values() if one.record is not None]
        return float(np.mean([one.cost.tokens or one.steps for one in records]))


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The configurations of one method in one study, best first, and what may be said of them."""

    comparison: Comparison
    configurations: tuple[Configuration, ...]
    seeds: tuple[int, ...]
    """Upstream seeds the study compares on."""
    reported: Reported
    """The leader's ARG on upstream seeds that it was not chosen on."""

    @property
    def best(self) -> Configuration:
        """The leader."""
        return next(c for c in self.configurations if c.summary.name == self.comparison.leader)

    @property
    def ties(self) -> list[Configuration]:
        """The leader and what cannot be told from it, best first."""
        return [c for c in self.configurations if c.summary.tied]

    @property
    def cheapest(self) -> Configuration:
        """The member of the tie set that costs least upstream; of equal ones the best.

        Only those with as many upstream seeds as the leader count: what a race has left after one
        seed cannot be told from the best because little is known of it.
        """
        known = [c for c in self.ties if c.summary.seeds >= self.best.summary.seeds]
        return min(known, key=lambda c: (c.cost, -c.summary.arg))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method with its settings in one setting, at one rung."""

    entries: tuple[PointStatus, ...]
    """One point an upstream seed, at least one; those that are missing, too."""
    summary: Summary | None
    """What its upstream seeds say together; None where one is asked for, or none has a score."""

    @property
    def scored(self) -> list[PointStatus]:
        """The points that are there."""
        return [entry for entry in self.entries if entry.score is not None]

    @property
    def first(self) -> PointStatus:
        """A point that has the cell's settings: the first that is there, if any."""
        return (self.scored or self.entries)[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Upstream seeds whose points are there; none of a method that learns nothing upstream."""
        if self.first.trial.learned is None:
            return ()
        return tuple(seed_of(entry.trial) for entry in self.scored)

    @property
    def arg(self) -> float | None:
        """ARG in %, the mean over upstream seeds; None if it is undefined or none is there."""
        if self.summary is not None:
            return self.summary.arg
        return None if self.first.score is None else self.first.score.arg

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the expected ARG; with one upstream seed, or none, over data seeds."""
        if self.summary is not None:
            return self.summary.expected
        return None if self.first.score is None else self.first.score.interval

    @property
    def mean_test(self) -> float | None:
        """Mean test score over upstream seeds, a fraction; None if one diverged or none is there.

        A trajectory that diverged has no scores of its own, so there is no mean with it.
        """
        values = [entry.score.mean_test for entry in self.scored if entry.score is not None]
        defined = [value for value in values if value is not None]
        return float(np.mean(defined)) if defined and len(defined) == len(values) else None

    @property
    def runs(self) -> int:
        """Downstream runs behind it."""
        return sum(entry.score.runs for entry in self.scored if entry.score is not None)


def cells_of(entries: Sequence[PointStatus], rankings: Sequence[Ranking]) -> list[Cell]:
    """Return the cells of a replay, in the job's order."""
    summaries = {
        (one.first.trial.plan, one.summary.name): one.summary
        for ranking in rankings
        for one in ranking.configurations
    }
    groups: dict[tuple[TrialSpec, int], list[PointStatus]] = {}
    for entry in entries:
        groups.setdefault((entry.trial.without_seed(), entry.steps), []).append(entry)
    return [
        Cell(
            entries=tuple(group),
            summary=summaries.get((group[0].trial.plan, name_of(group[0])))
            if len(group) > 1
            else None,
        )
        for group in groups.values()
    ]


def seed_of(trial: TrialSpec) -> int:
    """Return the upstream seed of a replicate."""
    own = None if trial.learned is None else trial.learned.seed
    return trial.plan.config.train_seed if own is None else own


def rankings(board: RecordedLeaderboard, entries: Sequence[PointStatus]) -> list[Ranking]:
    """Return one ranking a study and method that has scored points with an upstream seed."""
    groups: dict[tuple[StudyPlan, str], list[PointStatus]] = {}
    for entry in entries:
        if entry.score is not None and entry.trial.learned is not None:
            groups.setdefault((entry.trial.plan, entry.trial.method), []).append(entry)
    priors = _shared_priors(board, groups)
    group_rankings = [
        ranking_of(board, plan, group, _compared_on(plan, group), priors.get(plan.config.backbone))
        for (plan, _), group in groups.items()
    ]
    return [one for one in group_rankings if one is not None]


def _compared_on(plan: StudyPlan, group: Sequence[PointStatus]) -> tuple[int, ...]:
    """Return the upstream seeds to compare on: those of a search's study, or of a replay's job."""
    if plan.role == "validation":
        return plan.config.seeds
    return tuple(dict.fromkeys(seed_of(one.trial) for one in group))


def _shared_priors(
    board: RecordedLeaderboard, groups: Mapping[tuple[StudyPlan, str], Sequence[PointStatus]]
) -> dict[str, Prior]:
    """Return backbone → spread between upstream seeds over all cells of a replay on it.

    A cell of two or three upstream seeds has no other configurations beside it to learn from, as
    those of a search have.
    """
    by_backbone: dict[str, list[dict[int, float]]] = {}
    for (plan, _), group in groups.items():
        held = _held(board, plan) if plan.role == "target" else None
        if held is not None:
            rows = by_backbone.setdefault(plan.config.backbone, [])
            points = _compared(group, _compared_on(plan, group)).items()
            rows += [args_of(held.replicates(*one), held.reference) for one in points]
    return {backbone: prior_of(rows) for backbone, rows in by_backbone.items()}


@dataclass(frozen=True)
class _Held:
    """What the points of one study are compared with."""

    record: StudyRecord
    tasks: Sequence[str]
    """Those that a relative gain is defined on."""
    reference: np.ndarray
    """[T, D] test scores of plain prompt tuning."""

    def table(self, entry: PointStatus) -> np.ndarray:
        """Return a point's test scores [T, D]; a run or trajectory that diverged got none."""
        selected = None if entry.score is None else entry.score.selected
        return _table(selected or {}, self.tasks, self.record)

    def replicates(self, name: str, points: Mapping[int, PointStatus]) -> Replicates:
        """Return the scores of one configuration: upstream seed → point."""
        tables = {seed: self.table(one) for seed, one in points.items()}
        return Replicates(name=name, scores=tables, events=events_of(points))


def events_of(points: Mapping[int, PointStatus]) -> tuple[str, ...]:
    """Return what on the way to replicates, upstream seed → point, makes them unstable."""
    events = []
    for seed, entry in points.items():
        record = entry.record
        if record is not None and record.status == "diverged":
            events.append(f"seed {seed}: {record.note or 'diverged'}")
        elif record is not None and record.jump is not None:
            events.append(f"seed {seed}: {record.jump.text}")
    return tuple(events)


def _held(board: RecordedLeaderboard, plan: StudyPlan) -> _Held | None:
    """Return a study's plain prompt tuning; None if it is not whole or gets nothing right."""
    record, baseline = board.studies[plan], board.baseline_scores(plan)
    tasks = [] if baseline is None else _tasks(record, baseline)
    if baseline is None or not tasks:
        return None
    return _Held(record, tasks, _table(baseline, tasks, record))


def _by_name(group: Sequence[PointStatus]) -> dict[str, dict[int, PointStatus]]:
    """Return configuration → upstream seed → scored point."""
    by_name: dict[str, dict[int, PointStatus]] = {}
    for entry in group:
        if entry.score is not None:
            by_name.setdefault(name_of(entry), {})[seed_of(entry.trial)] = entry
    return by_name


def _compared(
    group: Sequence[PointStatus], seeds: Sequence[int]
) -> dict[str, dict[int, PointStatus]]:
    """Return the same of these upstream seeds alone."""
    compared = {}
    for name, of_seed in _by_name(group).items():
        own = {seed: of_seed[seed] for seed in seeds if seed in of_seed}
        if own:
            compared[name] = own
    return compared


def ranking_of(
    board: RecordedLeaderboard,
    plan: StudyPlan,
    group: Sequence[PointStatus],
    seeds: Sequence[int],
    prior: Prior | None = None,
) -> Ranking | None:
    """Return the ranking of one method in one study; None while there is nothing to compare.

    Points without a score are passed over; without `prior` the spread between upstream seeds is
    that of these points.
    """
    held, compared = _held(board, plan), _compared(group, seeds)
    if held is None or not compared:
        return None
    record, reference = held.record, held.reference
    rows = [held.replicates(name, points) for name, points in compared.items()]
    comparison = compare(
        rows, reference, rng=numpy_generator(record.train_seed, "replicates"), prior=prior
    )
    order = sorted(comparison.summaries.values(), key=lambda one: -one.arg)
    leader = _by_name(group)[comparison.leader]
    fresh = {seed: leader[seed] for seed in plan.config.fresh_seeds if seed in leader}
    return Ranking(
        comparison=comparison,
        configurations=tuple(
            Configuration(summary=one, entries=compared[one.name]) for one in order
        ),
        seeds=tuple(seeds),
        reported=reported(
            rows,
            comparison,
            held.replicates(comparison.leader, fresh) if fresh else None,
            reference,
            rng=numpy_generator(record.train_seed, "fresh replicates"),
        ),
    )


def tables_of(
    board: RecordedLeaderboard, plan: StudyPlan, entries: Sequence[PointStatus]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return test scores [T, D] of plain prompt tuning and of some scored points of a study.

    Raises:
        UsageError: plain prompt tuning is not there as a whole, or gets nothing right on any task.
    """
    held = _held(board, plan)
    if held is None:
        own = board.studies[plan].id
        raise UsageError(f"study {own} has no baseline to compare with; run the search on")
    return held.reference, [held.table(entry) for entry in entries]


def name_of(entry: PointStatus) -> str:
    """Return a name that the replicates of a configuration share at one rung."""
    return f"{entry.trial.upstream.without_seed().name}@{entry.steps}"


def _tasks(record: StudyRecord, baseline: Scores) -> list[str]:
    """Return the tasks that a relative gain is defined on: they are the same for all points."""
    tasks = sorted({task for task, _, _ in record.scored})
    seeds = record.data_seeds
    whole = [t for t in tasks if all(seed in baseline.get(t, {}) for seed in seeds)]
    return [t for t in whole if sum(baseline[t][seed] for seed in seeds) > 0]


def _table(scores: Scores, tasks: Sequence[str], record: StudyRecord) -> np.ndarray:
    seeds = sorted(record.data_seeds)
    return np.array([[scores.get(t, {}).get(d, 0.0) for d in seeds] for t in tasks])
