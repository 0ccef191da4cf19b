"""The configurations of a search with their upstream seeds, compared as the search itself does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mpt.config import fresh_seeds
from mpt.metrics.choice import Reported, compared_seeds, reported
from mpt.metrics.replicates import Comparison, Replicates, Summary, compare
from mpt.seeds import numpy_generator

from .cells import Cell, scores_of
from .upstream_seeds import score_at, seed_of

_Settings = tuple[tuple[str, str], ...]
Configuration = dict[int, Cell]
"""Upstream seed → cell, of one configuration at one rung."""


def without_seed(config: Mapping[str, Any]) -> _Settings:
    """Return settings but for the upstream seed, fit for a key."""
    return tuple(sorted((name, repr(v)) for name, v in config.items() if name != "seed"))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A search's winner."""

    comparison: Comparison
    """On the upstream seeds that it was chosen on; a configuration is named by its place among
    `Searched.configurations` ("0", "1", …)."""
    seeds: tuple[int, ...]
    """Those upstream seeds, the study's own first."""
    reported: Reported
    """The winner on others."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The search of one method in one study; what it says is computed once, when it is asked."""

    cells: tuple[Cell, ...]
    drivers: tuple[Mapping[str, Any], ...]
    """Notes of drivers, the newest first. They know which seeds are compared and which are the
    winner's alone; where none is of the study, `compared_seeds` tells."""

    @cached_property
    def configurations(self) -> tuple[Configuration, ...]:
        """What was run, at each rung, with its upstream seeds, in the order of the search.

        That is the order in which it was begun, as far as that is known: the search compares in
        it. Of two equal points the newer counts.
        """
        points = [point for cell in self.cells for point in cell.points]
        begun: dict[object, str] = {}
        by_settings: dict[tuple[_Settings, int], Configuration] = {}
        for one in sorted(points, key=lambda one: (one.point.created, one.trajectory)):
            settings = without_seed(one.config)
            begun.setdefault(settings, one.point.created)
            by_settings.setdefault((settings, one.steps), {})[seed_of(one)] = one
        order = sorted(by_settings, key=lambda at: (begun[at[0]], *at))
        root = points[0].train_seed
        return tuple(
            dict(sorted(by_settings[at].items(), key=lambda item: (item[0] != root, item[0])))
            for at in order
        )

    @cached_property
    def choice(self) -> Choice | None:
        """What the search has chosen; None without a configuration to compare."""
        return _choice(self.configurations, self.drivers)

    @cached_property
    def _places(self) -> dict[str, int]:
        """Key of a point → place of its configuration."""
        return {
            point.key: number
            for number, own in enumerate(self.configurations)
            for point in own.values()
        }

    @property
    def replicated(self) -> bool:
        """Whether any configuration is compared on several upstream seeds."""
        summaries = () if self.choice is None else self.choice.comparison.summaries.values()
        return any(one.seeds > 1 for one in summaries)

    @property
    def leader(self) -> Cell | None:
        """The cell of the winner; None without one."""
        if self.choice is None:
            return None
        leader = int(self.choice.comparison.leader)
        return next((cell for cell in self.cells if self.index_of(cell) == leader), None)

    def index_of(self, cell: Cell) -> int:
        """Return a cell's place among the configurations; -1 if newer points stand for its own."""
        indices = (self._places.get(point.key) for point in cell.points)
        return next((index for index in indices if index is not None), -1)

    def summary(self, cell: Cell) -> Summary | None:
        """Return what the comparison says of a cell; None if it takes no part.

        It takes none if a run is missing, or if a newer point stands for it.
        """
        choice = self.choice
        return (
            None if choice is None else choice.comparison.summaries.get(str(self.index_of(cell)))
        )

    def compared(self, cell: Cell) -> Cell:
        """Return a cell with the points alone that it was compared by, if it has such points."""
        summary = self.summary(cell)
        seeds = () if summary is None else summary.by_seed
        kept = tuple(point for point in cell.points if seed_of(point) in seeds)
        if not kept or len(kept) == len(cell.points):
            return cell
        lead = next((point for point in kept if point.status == "ok"), kept[0])
        return replace(
            lead,
            family=cell.line,
            replicates=kept if len(kept) > 1 else (),
            prior=cell.prior,
            task_priors=cell.task_priors,
        )

    def reasons(self, cell: Cell) -> tuple[str, ...]:
        """Return why a configuration is unstable, for people; nothing if it is not.

        How far its upstream seeds lie apart is judged on those of the choice; that a loss jumped
        or diverged is told of every seed, since it happened.
        """
        summary = self.summary(cell)
        spread = () if summary is None else summary.reasons
        own = {seed_of(point): point for point in cell.points}
        return tuple(dict.fromkeys((*spread, *_events(own))))


def _choice(
    configurations: Sequence[Configuration], drivers: Sequence[Mapping[str, Any]]
) -> Choice | None:
    own = next(iter(configurations[0].values()))
    rows, baseline = _replicates(configurations)
    if not rows:
        return None
    seeds, fresh = _seeds(own, configurations, drivers)
    chosen = [kept for row in rows if (kept := _only(row, seeds)).scores]
    if not chosen:
        seeds = tuple(dict.fromkeys(seed for row in rows for seed in row.scores))
        chosen, fresh = rows, ()
    rng = numpy_generator(own.train_seed, "replicates")  # the draws of the search's own ranking
    comparison = compare(chosen, baseline, rng=rng)
    leader = next(row for row in rows if row.name == comparison.leader)
    others = set(leader.scores) - set(seeds)
    rest = _only(leader, others if fresh is None else others & set(fresh))
    return Choice(
        comparison=comparison,
        seeds=tuple(seed for seed in seeds if any(seed in row.scores for row in chosen)),
        reported=reported(
            chosen,
            comparison,
            rest if rest.scores else None,
            baseline,
            rng=numpy_generator(own.train_seed, "fresh replicates"),
        ),
    )


def _seeds(
    own: Cell, configurations: Sequence[Configuration], drivers: Sequence[Mapping[str, Any]]
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the upstream seeds of the choice, and those that only the winner is run with.

    The latter are None where no driver has noted them: then they are all others.
    """
    noted = next((note for note in drivers if own.study.key in note["studies"]), {})
    told = tuple(noted.get("seeds", ()))
    if told:
        return told, fresh_seeds(own.train_seed, told, noted.get("fresh", 0))
    shared = compared_seeds(configurations)
    return tuple(sorted(shared, key=lambda seed: (seed != own.train_seed, seed))), None


def _only(row: Replicates, seeds: Collection[int]) -> Replicates:
    return replace(row, scores={seed: of for seed, of in row.scores.items() if seed in seeds})


def _replicates(
    configurations: Sequence[Configuration],
) -> tuple[list[Replicates], np.ndarray]:
    """Return the configurations that have every score, each named by its place ("0", "1", …).

    And the scores of plain prompt tuning [tasks, data seeds]; tasks on which it gets nothing right
    are left out. No configurations if no task is left.
    """
    own = next(iter(configurations[0].values()))
    baseline, seeds = scores_of(own.baseline), sorted(own.study.data_seeds)
    tasks = [
        task
        for task in sorted({task for task, _, _ in own.study.scored})
        if all(seed in baseline.get(task, {}) for seed in seeds)
        and sum(baseline[task][seed] for seed in seeds) > 0
    ]
    if not tasks:
        return [], np.empty((0, 0))
    rows = []
    for number, cells in enumerate(configurations):
        tables = {seed: _table(cell, tasks, seeds) for seed, cell in cells.items()}
        whole = {seed: table for seed, table in tables.items() if table is not None}
        if whole:
            rows.append(Replicates(name=str(number), scores=whole))
    return rows, np.array([[baseline[task][seed] for seed in seeds] for task in tasks])


def _table(cell: Cell, tasks: Sequence[str], seeds: Sequence[int]) -> np.ndarray | None:
    """Return a point's test scores [tasks, data seeds]; None if a run is missing."""
    if cell.status == "stopped":
        return None
    table = [[score_at(cell, task, seed) for seed in seeds] for task in tasks]
    if any(score is None for row in table for score in row):
        return None
    return np.array(table, dtype=np.float64)


def _events(points: Configuration) -> tuple[str, ...]:
    events = []
    for seed, cell in points.items():
        if cell.status == "diverged":
            events.append(f"seed {seed}: {cell.note or 'diverged'}")
        elif cell.point.jump is not None:
            events.append(f"seed {seed}: {cell.point.jump.text}")
    return tuple(events)
