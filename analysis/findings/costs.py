"""What it cost: seconds of workers, upstream and downstream, each counted once."""

from __future__ import annotations

from collections.abc import Iterable

from mpt.words import counted

from ..results.cells import Cell, Sample
from ..results.names import METHODS, in_order, method_label
from ..results.sections import Section
from ..tables.table import quantity
from .finding import Finding, listed


def cost_finding(section: Section) -> Finding:
    """Return what everything in a section cost, and what a method's upstream step costs."""
    rungs = (rung for row in section.rungs.values() for rung in row)
    cells = list({point.key: point for rung in rungs for point in rung.points}.values())
    upstream = sum(cell.cost["seconds"] * cell.devices for cell in longest(cells))
    samples = distinct_samples(cells)
    downstream = sum(sample.cost["seconds"] for sample in samples)
    runs = len({run.key for sample in samples for run in sample.runs if run.key is not None})
    per_step = step_seconds(cells)
    steps = [
        f"{method_label(n)} {quantity(per_step[n]).number} s" for n in in_order(per_step, METHODS)
    ]
    return Finding(
        question="What did it cost?",
        sentence=f"{_time(upstream + downstream)} of device time: {_time(upstream)} upstream "
        f"({counted(len(longest(cells)), 'trajectory', 'trajectories')}) and "
        f"{_time(downstream)} downstream ({counted(runs, 'run')})"
        + (f"; an upstream step takes {listed(steps)}." if steps else "."),
        tables=("costs",),
    )


def longest(cells: Iterable[Cell]) -> list[Cell]:
    """Return the rung with most steps of each trajectory: its cost holds that of the others."""
    best: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        at = (cell.study.key, cell.trajectory)
        if cell.steps > 0 and (at not in best or cell.steps > best[at].steps):
            best[at] = cell
    return list(best.values())


def distinct_samples(cells: Iterable[Cell]) -> list[Sample]:
    """Return every (task, data seed) of cells and baselines once, by the runs that it has."""
    samples: dict[tuple[str | None, ...], Sample] = {}
    for cell in cells:
        for side in (cell.tasks, cell.baseline):
            for row in side.values():
                for sample in row.values():
                    samples.setdefault(tuple(run.key for run in sample.runs), sample)
    return list(samples.values())


def step_seconds(cells: Iterable[Cell]) -> dict[str, float]:
    """Return method → seconds × devices of an upstream step, over all of its trajectories."""
    spent: dict[str, list[float]] = {}
    for cell in longest(cells):
        total = spent.setdefault(cell.place.method.partition(" ")[0], [0.0, 0.0])
        total[0] += cell.cost["seconds"] * cell.devices
        total[1] += cell.cost["steps"]
    return {name: seconds / steps for name, (seconds, steps) in spent.items() if steps > 0}


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
