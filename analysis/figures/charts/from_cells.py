"""Cells → charts of tasks (Figures 4–23) and sweeps (Figure 3, Tables 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpt.gym.catalogue import ALL_SHOTS
from mpt.metrics.relative_gain import Scores, average_relative_gain
from mpt.seeds import numpy_generator

from ...published.numbers import published_numbers
from ...results.cells import OWN, Cell, scores_of
from ...results.names import BASELINE, paper_backbone, partition_label
from ...results.summary import summary_of
from ...results.upstream_seeds import mean_scores, upstream_summary
from .data import Estimate, Sweep, TaskChart, missing

RESAMPLES = 2000
"""Bootstrap draws of an interval."""
PUBLISHED_SHOTS = "16"
"""How the catalogue's own sample size is written: 16 per class in the published gym."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The cells that stand in one figure: one a method, of one setting."""

    partition: str
    cells: tuple[Cell, ...]
    """At least one; all have one backbone and edition."""
    scored: str
    """What the tasks are, for titles ("20 target tasks")."""

    @property
    def label(self) -> str:
        """Setting and backbone, for titles."""
        group_place = self.cells[0].place
        edition = f", study {group_place.edition}" if group_place.edition else ""
        return (
            f"{partition_label(self.partition)}, {short_backbone(group_place.backbone)}{edition}"
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of any of the cells, in the order in which they are first named."""
        return tuple(dict.fromkeys(task for cell in self.cells for task in cell.tasks))


def short_backbone(name: str) -> str:
    """Return what a backbone is called in a title."""
    return paper_backbone(name) or name.rstrip("/").rsplit("/", 1)[-1]


def gain_chart(group: Group) -> TaskChart:
    """Return each method's relative gain over prompt tuning on each task, in %.

    The interval of a task is `average_relative_gain`'s over this one task: a bootstrap over the
    data seeds, the same draw for method and baseline. Of several upstream seeds it is that of the
    expected gain over both (`results.upstream_seeds`).
    """
    return TaskChart(
        title=f"Relative gain over prompt tuning by task: {group.label}",
        axis="relative gain, %",
        tasks=group.tasks,
        series={
            cell.place.method: tuple(_gain(cell, task) for task in group.tasks)
            for cell in group.cells
        },
        summary={cell.place.method: arg_of(cell) for cell in group.cells},
        summary_label="ARG",
        zero=True,
        points={cell.place.method: cell.key for cell in group.cells},
    )


def _gain(cell: Cell, task: str) -> Estimate:
    if task not in cell.tasks:
        return missing(cell.note or "not run on this task")
    gain = average_relative_gain(
        mean_scores(cell),
        scores_of(cell.baseline),
        [task],
        cell.seeds,
        rng=numpy_generator(cell.train_seed, "bootstrap", task),
        resamples=RESAMPLES,
    )
    if gain.arg is None:
        return missing(gain.tasks[0].reason or "no relative gain")
    upstream = upstream_summary(cell, [task])
    if upstream is not None:
        return Estimate.of(gain.arg, upstream.expected)
    return Estimate(value=gain.arg, low=gain.low, high=gain.high)


def arg_of(cell: Cell) -> Estimate:
    """Return a cell's ARG in % with its interval; a note says over how many of its tasks.

    Missing, with the reason: a cell that diverged or was stopped, and one that lacks a score on a
    task with a positive baseline, whose mean would be one over other tasks than the others'. The
    rule is that of the search's own ranking (`mpt.trial.score`).
    """
    if cell.status != "ok":
        return missing(f"{cell.status}: {cell.note}" if cell.note else cell.status)
    summary = summary_of(cell)
    if summary is None:
        return missing("no task was scored")
    if summary.lacking:
        return missing("; ".join(summary.lacking))
    gain = summary.gain
    if gain.arg_of_defined is None:
        return missing("; ".join(gain.reasons))
    note = "" if summary.whole else f"{gain.defined} of {gain.of} tasks have a relative gain"
    return Estimate.of(gain.arg_of_defined, summary.interval, note)


def score_chart(group: Group) -> TaskChart:
    """Return the mean test score over data seeds of each method and of prompt tuning, in %.

    The interval is a bootstrap over the data seeds; scores are means over upstream seeds.
    """
    series = {
        cell.place.method: tuple(
            _score(mean_scores(cell), task, cell, named=task in cell.tasks) for task in group.tasks
        )
        for cell in group.cells
    }
    series[BASELINE] = tuple(_baseline_score(group, task) for task in group.tasks)
    return TaskChart(
        title=f"Test score by task: {group.label}",
        axis="test score, %",
        tasks=group.tasks,
        series=series,
        points={cell.place.method: cell.key for cell in group.cells},
    )


def _baseline_score(group: Group, task: str) -> Estimate:
    cell = next((cell for cell in group.cells if task in cell.baseline), None)
    if cell is None:
        return missing("no baseline")
    return _score(scores_of(cell.baseline), task, cell, named=True)


def _score(scores: Scores, task: str, cell: Cell, *, named: bool) -> Estimate:
    if not named:
        return missing(cell.note or "not run on this task")
    row = scores.get(task, {})
    lacking = [seed for seed in cell.seeds if seed not in row]
    if lacking:
        return missing(f"lacks data seed {', '.join(map(str, lacking))}")
    tests = np.array([100 * row[seed] for seed in cell.seeds])
    value = math.fsum(tests) / len(tests)
    if len(tests) < 2:
        return Estimate(value=value)
    rng = numpy_generator(cell.train_seed, "bootstrap", "score", task)
    draws = tests[rng.integers(len(tests), size=(RESAMPLES, len(tests)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(value=value, low=float(low), high=float(high))


def shots_label(shots: str) -> str:
    """Return a sample size as it is written on an axis."""
    if shots == OWN:
        return PUBLISHED_SHOTS
    return "all" if shots in ("all", str(ALL_SHOTS)) else shots


def sweep_of(
    cells: Sequence[Cell], values: Sequence[str], *, title: str, setting: str, paper_table: str
) -> Sweep | None:
    """Return ARG against a setting, or None where it has one value only.

    Args:
        cells: cells of one backbone, gym and partition that differ in method and this setting.
        values: the setting's value of each cell, as it is written.
        title: of the figure.
        setting: name of the x axis.
        paper_table: the paper's table with the same numbers, which are drawn too where partition
            and backbone are the paper's; "" if there is none.
    """
    order = sorted(set(values), key=lambda v: (not v.isdigit(), int(v) if v.isdigit() else 0, v))
    if len(order) < 2:
        return None
    series: dict[str, list[Estimate]] = {}
    for cell, value in zip(cells, values, strict=True):
        empty = [missing("not run") for _ in order]
        series.setdefault(cell.place.method, empty)[order.index(value)] = arg_of(cell)
    where = cells[0].place
    published: dict[str, tuple[float | None, ...]] = {}
    if where.partition == "cls_to_cls" and paper_backbone(where.backbone) == "T5-large":
        printed = {
            (n.row, n.column): n.value for n in published_numbers() if n.place == paper_table
        }
        for method in {row for row, _ in printed}:
            published[method] = tuple(printed.get((method, value)) for value in order)
    return Sweep(
        title=title,
        setting=setting,
        axis="ARG, %",
        values=tuple(order),
        series={method: tuple(estimates) for method, estimates in series.items()},
        published=published,
    )
