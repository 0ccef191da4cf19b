"""Dev scores of downstream runs over their steps → learning curves and steps to a share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from mpt.seeds import numpy_generator
from mpt.store.records import Run

from ...results.cells import Samples
from ...results.names import BASELINE, ZERO_SHOT, method_label
from .data import Band, CurvePanel, Estimate, StepsTo, missing
from .from_cells import RESAMPLES, Group

SHARES = (0.5, 0.8, 0.9, 0.95, 1.0)
"""Shares of the final dev score that are asked for."""

Curve = Mapping[int, float]
"""Step → dev score, a fraction; evaluations without a finite score are absent."""
Curves = Mapping[str, Mapping[int, Curve]]
"""task → data seed → curve of the run that was taken, of several downstream starts the mean."""


def curves_of(
    group: Group, read: Callable[[Collection[str]], Mapping[str, Run]]
) -> dict[str, Curves]:
    """Return method → curves of the taken runs, prompt tuning's among them; `read` gets runs."""
    sides = [side for cell in group.cells for side in (cell.tasks, cell.baseline)]
    samples = [sample for side in sides for row in side.values() for sample in row.values()]
    runs = read({row.run for sample in samples for row in sample.taken})
    curves: dict[str, Curves] = {
        cell.place.method: _curves(cell.tasks, runs)
        for cell in group.cells
        if cell.place.method.partition(" ")[0] != ZERO_SHOT  # nothing is tuned: no curve
    }
    baseline: dict[str, Mapping[int, Curve]] = {}
    for cell in group.cells:
        baseline = {**_curves(cell.baseline, runs), **baseline}
    curves[BASELINE] = {task: row for task, row in baseline.items() if task in group.tasks}
    return curves


def _curves(samples: Samples, runs: Mapping[str, Run]) -> dict[str, Mapping[int, Curve]]:
    return {
        task: {
            seed: _mean_curve([_curve(runs[taken.run]) for taken in sample.taken])
            for seed, sample in row.items()
            if sample.taken and all(taken.run in runs for taken in sample.taken)
        }
        for task, row in samples.items()
    }


def _curve(run: Run) -> Curve:
    return {step: dev for step, dev, _ in run.curve if dev is not None}


def evaluations(curves: Mapping[str, Curves]) -> int:
    """Return the most dev evaluations that any run has."""
    rows = [row for tasks in curves.values() for row in tasks.values()]
    return max((len(curve) for row in rows for curve in row.values()), default=0)


def band(curves: Sequence[Curve]) -> Band | None:
    """Return mean, lowest and highest of several curves, in %; None if there are none.

    Where one of them has no score there is none: a mean over the others would jump.
    """
    steps = tuple(sorted({step for curve in curves for step in curve}))
    if not steps:
        return None
    rows = [
        [100 * curve[step] for curve in curves] if all(step in curve for curve in curves) else None
        for step in steps
    ]
    return Band(
        steps=steps,
        mean=tuple(None if row is None else math.fsum(row) / len(row) for row in rows),
        low=tuple(None if row is None else min(row) for row in rows),
        high=tuple(None if row is None else max(row) for row in rows),
    )


def task_panels(group: Group, curves: Mapping[str, Curves]) -> list[CurvePanel]:
    """Return a panel for each task: mean and range over its data seeds.

    A method that lacks a data seed has no curve there, and the panel says so.
    """
    seeds = set(_seeds(group))
    panels = []
    for task in group.tasks:
        rows = {method: tasks.get(task, {}) for method, tasks in curves.items()}
        whole = {m: list(row.values()) if set(row) == seeds else [] for m, row in rows.items()}
        panels.append(_panel(task, whole))
    return panels


def mean_panel(group: Group, curves: Mapping[str, Curves]) -> CurvePanel:
    """Return the mean over all tasks; the band is the range over data seeds of that mean.

    A method that lacks a run of any (task, data seed) has no curve; where runs have ended at
    different steps, the curve ends with the first.
    """
    means = {}
    for method, tasks in curves.items():
        seeds = _seeds(group)
        whole = all(set(tasks.get(task, {})) == set(seeds) for task in group.tasks)
        means[method] = [
            _mean_curve([tasks[task][seed] for task in group.tasks])
            for seed in (seeds if whole else ())
        ]
    return _panel("mean over tasks", means)


def _panel(title: str, curves: Mapping[str, Sequence[Curve]]) -> CurvePanel:
    """Return a panel of method → curves; the methods without any are named in its note."""
    bands = {method: band(own) for method, own in curves.items()}
    lacking = [method_label(method) for method, own in bands.items() if own is None]
    return CurvePanel(
        title=title,
        bands={method: own for method, own in bands.items() if own is not None},
        note=f"incomplete: {', '.join(lacking)}" if lacking else "",
    )


def _seeds(group: Group) -> tuple[int, ...]:
    return tuple(sorted({seed for cell in group.cells for seed in cell.seeds}))


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    steps = set(curves[0]).intersection(*curves[1:])
    return {
        step: math.fsum(curve[step] for curve in curves) / len(curves) for step in sorted(steps)
    }


def steps_to(
    group: Group, curves: Mapping[str, Curves], shares: Sequence[float] = SHARES
) -> StepsTo:
    """Return how many steps each method needs to come to a share of prompt tuning's final score.

    For each (task, data seed) the goal is share × the best dev score of the prompt tuning run, the
    same for all methods; a run's number is the first evaluated step at which its dev score is at
    least the goal, or ∞. The median runs over all (task, data seed) that both have, ∞ included
    (of an even number, the upper middle one): it is missing where half of the runs or more never
    came there. A prompt tuning run without a positive score is no goal and left out. The interval
    (95 %) is a bootstrap over the data seeds of each task.
    """
    series: dict[str, tuple[Estimate, ...]] = {}
    for share in shares:
        for method, steps in reaches(group, curves, share).items():
            median = median_steps(steps, group.cells[0].train_seed)
            series[method] = (*series.get(method, ()), median)
    return StepsTo(
        title=f"Downstream steps to a share of PT's final dev score: {group.label}",
        shares=tuple(shares),
        series=series,
    )


def reaches(
    group: Group, curves: Mapping[str, Curves], share: float
) -> dict[str, dict[tuple[str, int], float]]:
    """Return method → (task, data seed) → first step at a share of prompt tuning's score, or ∞."""
    by_method = {}
    for method, tasks in curves.items():
        pairs = [
            (task, seed)
            for task in group.tasks
            for seed in _seeds(group)
            if _best(curves[BASELINE], task, seed) > 0 and tasks.get(task, {}).get(seed)
        ]
        by_method[method] = {
            (task, seed): _first(tasks[task][seed], share * _best(curves[BASELINE], task, seed))
            for task, seed in pairs
        }
    return by_method


def _best(curves: Curves, task: str, seed: int) -> float:
    """Return the best dev score of a run; 0, which is no goal, if it has none."""
    return max(curves.get(task, {}).get(seed, {}).values(), default=0.0)


def _first(curve: Curve, goal: float) -> float:
    """Return the first step at which the score is at least the goal, up to rounding; or ∞."""
    reached = (step for step in sorted(curve) if curve[step] >= goal - 1e-12)
    return float(next(reached, math.inf))


def median_steps(steps: Mapping[tuple[str, int], float], root_seed: int) -> Estimate:
    """Return the median of (task, data seed) → steps or ∞, with its interval (see `steps_to`)."""
    if not steps:
        return missing("no run to compare")
    every = sorted(steps.values())
    arrived = sum(math.isfinite(number) for number in every)
    note = f"{arrived} of {len(every)} runs came there"
    value = float(_median(np.array(every)))
    if not math.isfinite(value):
        return missing(note)
    tasks = list(dict.fromkeys(task for task, _ in steps))
    rows = [np.array([n for (task, _), n in steps.items() if task == name]) for name in tasks]
    if min(map(len, rows)) < 2:
        return Estimate(value=value, note=note)
    rng = numpy_generator(root_seed, "bootstrap", "steps")
    draws = np.concatenate(
        [row[rng.integers(len(row), size=(RESAMPLES, len(row)))] for row in rows], axis=1
    )
    medians = _median(draws)
    # Order statistics, not interpolated: ∞ − ∞ has no meaning.
    low, high = np.percentile(medians, [2.5, 97.5], method="inverted_cdf")
    if not math.isfinite(high):
        return Estimate(value=value, note=f"{note}; the interval has no upper end")
    return Estimate(value=value, low=float(low), high=float(high), note=note)


def _median(numbers: np.ndarray) -> np.ndarray:
    """Return the median over the last axis; of an even number of them, the upper middle one."""
    return np.asarray(np.sort(numbers, axis=-1)[..., numbers.shape[-1] // 2])
