"""Points that differ in the upstream seed alone: one cell, its mean, intervals and differences.

A configuration that was run with several upstream seeds is one cell, whose `Cell.replicates` are
its points by seed. Its scores are means over them, and so is its ARG, since a relative gain is
linear in the method's score. Its interval is that of the expected ARG (`mpt.metrics.replicates`):
the spread between upstream seeds, moderated by that of the other cells, crossed with the draw of
data seeds. A trajectory that diverged got nothing right, as in the ranking of a search; one that
was stopped is listed and not averaged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpt.keys import digest
from mpt.metrics.replicates import Replicates, Summary, args_of, estimate, prior_of
from mpt.seeds import numpy_generator

from .cells import Cell, scores_of

if TYPE_CHECKING:
    from mpt.metrics.moderation import Prior
    from mpt.metrics.relative_gain import Scores


def upstream_seed(cell: Cell) -> int | None:
    """Return the upstream seed of a point; None of a method that learns nothing upstream."""
    return cell.upstream_seed if cell.steps else None


def seed_of(point: Cell) -> int:
    """Return the upstream seed of a point, or what stands for one that has none."""
    return point.upstream_seed if point.steps else point.train_seed


def with_replicates(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with points of one configuration and several upstream seeds as one.

    Of several trajectories of one configuration and seed, the newest counts; the others stay
    cells of their own.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        config = {name: value for name, value in cell.config.items() if name != "seed"}
        about = [cell.study.key, str(cell.place), config]
        groups.setdefault(digest(about), []).append(cell)
    return [one for group in groups.values() for one in _joined(group)]


def _joined(group: Sequence[Cell]) -> list[Cell]:
    """Return the cells of one configuration, one a rung of what is averaged."""
    newest: dict[int, Cell] = {}
    for cell in sorted(group, key=lambda cell: (cell.point.created, cell.trajectory)):
        seed = upstream_seed(cell)
        if seed is not None:
            newest[seed] = cell
    if len(newest) < 2:
        return list(group)
    seeds = sorted(newest, key=lambda seed: (seed != group[0].train_seed, seed))
    places = {newest[seed].trajectory: position for position, seed in enumerate(seeds)}
    family = newest[seeds[0]].trajectory
    rungs: dict[int, list[Cell]] = {}
    for cell in group:
        if cell.trajectory in places:
            rungs.setdefault(cell.steps, []).append(cell)
    joined = [cell for cell in group if cell.trajectory not in places]
    for members in rungs.values():
        members.sort(key=lambda cell: places[cell.trajectory])
        lead = next((cell for cell in members if cell.status == "ok"), members[0])
        several = tuple(members) if len(members) > 1 else ()
        joined.append(dataclasses.replace(lead, family=family, replicates=several))
    return joined


def with_priors(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with what is known of the spread between upstream seeds.

    That of an ARG is the spread in all replicated cells of a replay on one backbone, or in all
    configurations of one search; that of the gain on a task the spread in those of one study.
    """
    rows: dict[tuple[str, ...], list[dict[int, float]]] = {}
    for cell in cells:
        if cell.replicates:
            _collect(rows, _compared_with(cell), cell)
            for task in cell.tasks:
                _collect(rows, (*_studied_with(cell), task), cell, [task])
    priors = {key: prior_of(of) for key, of in rows.items()}
    return [_with_priors(cell, priors) if cell.replicates else cell for cell in cells]


def _collect(
    rows: dict[tuple[str, ...], list[dict[int, float]]],
    key: tuple[str, ...],
    cell: Cell,
    tasks: Sequence[str] | None = None,
) -> None:
    tables = tables_of(cell, tasks)
    if tables is not None:
        rows.setdefault(key, []).append(args_of(*tables))


def _with_priors(cell: Cell, priors: Mapping[tuple[str, ...], Prior]) -> Cell:
    own = _studied_with(cell)
    of_tasks = {t: priors[(*own, t)] for t in cell.tasks if (*own, t) in priors}
    return dataclasses.replace(cell, prior=priors.get(_compared_with(cell)), task_priors=of_tasks)


def _studied_with(cell: Cell) -> tuple[str, ...]:
    return "task", *_compared_with(cell), cell.study.key


def _compared_with(cell: Cell) -> tuple[str, ...]:
    cell_place = cell.place
    if cell_place.role == "target":
        return cell_place.role, cell_place.backbone
    return cell_place.role, cell.study.key, cell_place.method


def averaged(cell: Cell) -> tuple[Cell, ...]:
    """Return the points that a cell's numbers are means of: the cell itself where it is one."""
    return tuple(one for one in cell.points if one.status != "stopped") or (cell,)


def mean_scores(cell: Cell) -> Scores:
    """Return task → data seed → test score, the mean over upstream seeds.

    What one of them lacks is absent; a run or trajectory that diverged counts as 0 among others.
    """
    members = averaged(cell)
    if len(members) == 1:
        return scores_of(members[0].tasks)
    means: dict[str, dict[int, float]] = {}
    for task, row in cell.tasks.items():
        values = {seed: [score_at(one, task, seed) for one in members] for seed in row}
        means[task] = {
            seed: float(np.mean([one for one in of if one is not None]))
            for seed, of in values.items()
            if None not in of
        }
    return means


def score_at(cell: Cell, task: str, seed: int) -> float | None:
    """Return a replicate's test score; None if it is missing."""
    if cell.status == "diverged":
        return 0.0
    sample = cell.tasks.get(task, {}).get(seed)
    if sample is None or (not sample.taken and sample.done < len(sample.runs)):
        return None
    return 0.0 if sample.test is None else sample.test


def gain_tasks(cell: Cell, tasks: Iterable[str] | None = None) -> list[str]:
    """Return the tasks (None: of all) on which a cell has a relative gain, sorted."""
    scores, baseline, seeds = mean_scores(cell), scores_of(cell.baseline), cell.seeds
    return [
        task
        for task in sorted(cell.tasks if tasks is None else tasks)
        if all(seed in scores.get(task, {}) and seed in baseline.get(task, {}) for seed in seeds)
        and sum(baseline.get(task, {}).values()) > 0
    ]


def tables_of(
    cell: Cell, tasks: Iterable[str] | None = None
) -> tuple[Replicates, np.ndarray] | None:
    """Return the test scores of a cell by upstream seed, and those of plain prompt tuning [T, D].

    Args:
        cell: of a method that learns upstream, or not: then its only "seed" is its train seed.
        tasks: some of its tasks; None: all. Those without a relative gain are left out.

    Returns:
        None if no task is left.
    """
    whole, seeds = gain_tasks(cell, tasks), cell.seeds
    if not whole or not seeds:
        return None
    by_seed = {}
    for one in averaged(cell):
        table = [[score_at(one, task, seed) for seed in seeds] for task in whole]
        by_seed[seed_of(one)] = np.array(table, dtype=np.float64)
    baseline = scores_of(cell.baseline)
    reference = np.array([[baseline[task][seed] for seed in seeds] for task in whole])
    return Replicates(name=cell.key, scores=by_seed), reference


def upstream_summary(cell: Cell, tasks: Sequence[str] | None = None) -> Summary | None:
    """Return what the upstream seeds of a cell say together; None where there is one.

    Args:
        cell: the cell.
        tasks: some of its tasks; None: all. The spread of several, but not all, is judged by
            itself alone.
    """
    tables = tables_of(cell, tasks) if len(averaged(cell)) > 1 else None
    if tables is None:
        return None
    prior: Prior | None = cell.prior
    if tasks is not None and set(tasks) != set(cell.tasks):
        prior = cell.task_priors.get(tasks[0]) if len(tasks) == 1 else None
    if prior is None:
        prior = prior_of([])
    rng = numpy_generator(cell.train_seed, "replicates")
    return estimate(*tables, prior, rng=rng)
