"""The configurations of a search with their upstream seeds, compared as the search itself does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpt.config import fresh_seeds
from mpt.metrics.choice import Reported, compared_seeds, reported
from mpt.metrics.replicates import Comparison, Replicates, compare
from mpt.seeds import numpy_generator

from .cells import Cell, scores_of
from .upstream_seeds import upstream_seed

DRAWS = 2000
"""Resamples of data seeds."""

Configuration = dict[int, Cell]
"""Upstream seed → cell, of one configuration at one rung."""


def without_seed(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return settings but for the upstream seed, fit for a key."""
    return tuple(sorted((name, repr(v)) for name, v in config.items() if name != "seed"))


def configurations_of(cells: Sequence[Cell]) -> list[Configuration]:
    """Return the configurations of a search at their rungs, each with its upstream seeds."""
    whole = (_whole(configuration) for configuration in _run(cells))
    return [configuration for configuration in whole if configuration]


def _whole(configuration: Configuration) -> Configuration:
    return {s: cell for s, cell in configuration.items() if cell.status == "ok" and cell.tasks}


def _run(cells: Sequence[Cell]) -> list[Configuration]:
    """Return what was run: those that diverged or were stopped too."""
    groups: dict[object, Configuration] = {}
    for cell in (point for entry in cells for point in entry.points):
        seed, key = upstream_seed(cell), (without_seed(cell.config), cell.steps)
        groups.setdefault(key, {}).setdefault(cell.train_seed if seed is None else seed, cell)
    return list(groups.values())


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A search's winner."""

    comparison: Comparison
    """On the upstream seeds that it was chosen on; a configuration is named by its place."""
    reported: Reported
    """The winner on others."""


def choice_of(
    cells: Sequence[Cell],
    configurations: Sequence[Configuration],
    drivers: Sequence[Mapping[str, Any]],
) -> Choice | None:
    """Return what a search has chosen, and how good that is on seeds it was not chosen on.

    Args:
        cells: of one search.
        configurations: theirs; those without every score take no part.
        drivers: notes of drivers, the newest first. They know which seeds are compared and which
            are the winner's alone; what they do not say, `compared_seeds` tells.

    Returns:
        None without a configuration to compare.
    """
    rows, baseline = _replicates(configurations)
    if not rows:
        return None
    own = next(iter(configurations[0].values()))
    noted = next((note for note in drivers if own.study.key in note["studies"]), {})
    told = tuple(noted.get("seeds", ()))
    fresh = fresh_seeds(own.train_seed, told, noted.get("fresh", 0)) if told else ()
    shared = {*compared_seeds(_run(cells)), *told} - set(fresh)
    chosen = [kept for row in rows if (kept := _only(row, shared)).scores]
    if not chosen:
        chosen, shared = rows, {seed for row in rows for seed in row.scores}
    comparison = _compare(own.train_seed, chosen, baseline)
    leader = next(row for row in rows if row.name == comparison.leader)
    rest = _only(leader, set(leader.scores) - shared)
    rng = numpy_generator(own.train_seed, "bootstrap", "fresh replicates")
    return Choice(
        comparison=comparison,
        reported=reported(
            chosen, comparison, rest if rest.scores else None, baseline, rng=rng, resamples=DRAWS
        ),
    )


def _only(row: Replicates, seeds: Collection[int]) -> Replicates:
    """Return the replicates with some seeds."""
    return replace(row, scores={seed: of for seed, of in row.scores.items() if seed in seeds})


def _compare(root: int, rows: Sequence[Replicates], baseline: np.ndarray) -> Comparison:
    return compare(
        rows, baseline, rng=numpy_generator(root, "bootstrap", "replicates"), resamples=DRAWS
    )


def _replicates(
    configurations: Sequence[Configuration],
) -> tuple[list[Replicates], np.ndarray]:
    """Return the configurations that have every score, each named by its place ("0", "1", …).

    And the scores of plain prompt tuning [tasks, data seeds]; tasks on which it gets nothing right
    are left out. No configurations if no task is left.
    """
    rows, baseline = [], np.empty((0, 0))
    for number, cells in enumerate(configurations):
        tables = {seed: _table(cell) for seed, cell in cells.items()}
        whole = {seed: table for seed, table in tables.items() if table is not None}
        if whole:
            scores, events = {seed: t[0] for seed, t in whole.items()}, _events(cells)
            rows.append(Replicates(name=str(number), scores=scores, events=events))
            baseline = next(iter(whole.values()))[1]
    fine = baseline.mean(1) > 0 if rows else np.zeros(0, dtype=bool)
    if not fine.any():
        return [], baseline
    return [
        replace(row, scores={seed: table[fine] for seed, table in row.scores.items()})
        for row in rows
    ], baseline[fine]


def unstable_points(cells: Sequence[Cell]) -> dict[str, tuple[str, ...]]:
    """Return key of a point → why its configuration is unstable, for people; others are absent.

    Args:
        cells: of one method's search in one study.
    """
    configurations = configurations_of(cells)
    rows, baseline = _replicates(configurations)
    comparison = _compare(cells[0].train_seed, rows, baseline) if rows else None
    found: dict[str, tuple[str, ...]] = {
        point.key: (f"seed {upstream_seed(point)}: {point.note or 'diverged'}",)
        for cell in cells
        for point in cell.points
        if point.status == "diverged"
    }
    for name, summary in () if comparison is None else comparison.summaries.items():
        if summary.unstable:
            for point in configurations[int(name)].values():
                found[point.key] = summary.reasons
    return found


def _events(cells: Configuration) -> tuple[str, ...]:
    jumps = {seed: cell.point.jump for seed, cell in cells.items()}
    return tuple(f"seed {seed}: {jump.text}" for seed, jump in jumps.items() if jump is not None)


def _table(cell: Cell) -> tuple[np.ndarray, np.ndarray] | None:
    """Return scores and baseline [tasks, data seeds]; None if one is missing."""
    sides = [scores_of(cell.tasks), scores_of(cell.baseline)]
    tasks = sorted(cell.tasks)
    if not all(
        seed in side.get(task, {}) for side in sides for task in tasks for seed in cell.seeds
    ):
        return None
    own, base = (np.array([[side[t][s] for s in cell.seeds] for t in tasks]) for side in sides)
    return own, base
