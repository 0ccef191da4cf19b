"""The configurations of a search with their upstream seeds, compared as the search itself does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt.metrics.replicates import Comparison, Replicates, compare
from mpt.seeds import numpy_generator

from .cells import Cell, scores_of
from .upstream_seeds import upstream_seed

Configuration = dict[int, Cell]
"""Upstream seed → cell, of one configuration at one rung."""


def without_seed(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return settings but for the upstream seed, fit for a key."""
    return tuple(sorted((name, repr(v)) for name, v in config.items() if name != "seed"))


def configurations_of(cells: Sequence[Cell]) -> list[Configuration]:
    """Return the configurations of a search at their rungs, each with its upstream seeds."""
    groups: dict[object, Configuration] = {}
    for cell in (point for entry in cells for point in entry.points):
        if cell.status == "ok" and cell.tasks:
            seed, key = upstream_seed(cell), (without_seed(cell.config), cell.steps)
            groups.setdefault(key, {}).setdefault(cell.train_seed if seed is None else seed, cell)
    return list(groups.values())


def compared(configurations: Sequence[Configuration]) -> Comparison | None:
    """Compare configurations by their replicates; those without every score take no part.

    Returns:
        The comparison, in which each is named by its place ("0", "1", …); None without any.
    """
    rows, baseline = [], None
    for number, cells in enumerate(configurations):
        tables = {seed: _table(cell) for seed, cell in cells.items()}
        whole = {seed: table for seed, table in tables.items() if table is not None}
        if whole:
            scores, events = {seed: t[0] for seed, t in whole.items()}, _events(cells)
            rows.append(Replicates(name=str(number), scores=scores, events=events))
            baseline = next(iter(whole.values()))[1]
    if baseline is None:
        return None
    fine = baseline.mean(1) > 0
    rows = [
        Replicates(
            name=row.name,
            scores={seed: table[fine] for seed, table in row.scores.items()},
            events=row.events,
        )
        for row in rows
    ]
    if not fine.any():
        return None
    root = next(iter(configurations[0].values())).train_seed
    rng = numpy_generator(root, "bootstrap", "replicates")
    return compare(rows, baseline[fine], rng=rng, resamples=2000)


def unstable_points(cells: Sequence[Cell]) -> dict[str, tuple[str, ...]]:
    """Return key of a point → why its configuration is unstable, for people; others are absent.

    Args:
        cells: of one method's search in one study.
    """
    configurations = configurations_of(cells)
    comparison = compared(configurations)
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
