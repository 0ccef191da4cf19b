"""The figures of one setting: gains and scores by task, learning curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..results.cells import Cell
from ..results.names import method_label, partition_label
from ..results.protocols import scored_alike
from ..results.sections import Section
from ..tables.lookup import column_label
from .charts.data import TaskChart
from .charts.from_cells import Group, gain_chart, score_chart
from .charts.from_curves import (
    curves_of,
    evaluations,
    mean_panel,
    steps_to,
    task_panels,
)
from .drawing.curves import draw_curves, draw_steps_to
from .drawing.tasks import draw_tasks
from .figure import DOT, Figure, beside, by_method, lacks, noted, partial_notes, slug
from .interactive.tasks import curve_plot, steps_plot, task_plot

_BESIDE_ROW = ("gain-", "curves-")
"""Beginnings of names: what stands beside the rows of its setting, if anything of it does."""


def setting_plans(
    section: Section, partition: str, cells: Sequence[Cell], suffix: str
) -> Iterator[Figure]:
    """Yield the figures of a setting's target tasks: gains, scores, curves.

    Args:
        section: what the cells are from.
        partition: the setting.
        cells: all target cells of a backbone and edition. A method without upstream learning
            learns from no source task, so that of another setting that was scored on the same
            data stands in where the setting has none.
        suffix: ends the files' names.
    """
    own = [cell for cell in cells if cell.place.is_plain()]
    main = [cell for cell in own if cell.place.partition == partition]
    ending = f"{slug(partition)}{suffix}"
    if not main:
        if not suffix:
            label = partition_label(partition)
            why = f"no result on the target tasks of {label} is recorded"
            for kind, what in (("gain", "Relative gain"), ("score", "Test score")):
                title = f"{what} by task: {label}"
                yield Figure(name=f"{kind}-{ending}", title=title, missing=why)
        return
    tasks = {task for cell in main for task in cell.tasks}
    scored = f"{len(tasks)} target tasks"
    for cell in own:
        same_data = scored_alike(cell.study, main[0].study)
        lacks_it = cell.place.method not in {other.place.method for other in main}
        if cell.steps == 0 and same_data and lacks_it:
            main.append(cell)
    group = Group(cells=by_method(main), partition=partition, scored=scored)
    at = group.cells[0].place
    row = column_label((partition, at.edition))
    for plan in group_plans(section, group, ending):
        beside_row = plan.name.startswith(_BESIDE_ROW)
        yield replace(plan, backbone=at.backbone, row=row) if beside_row else plan


def group_plans(section: Section, group: Group, ending: str) -> Iterator[Figure]:
    """Yield gains, scores and curves of one group of cells; `ending` ends the files' names."""
    if not group.tasks:
        why = "; ".join(f"{method_label(c.place.method)} {c.status}" for c in group.cells)
        yield Figure(
            name=f"gain-{ending}", title=f"Relative gain by task: {group.label}", missing=why
        )
        return
    partial_ = partial_notes(group.cells)
    for kind, chart in (("gain", gain_chart(group)), ("score", score_chart(group))):
        notes = [
            f"ARG of {method_label(method)}: {estimate.note}"
            for method, estimate in chart.summary.items()
            if estimate.value is not None and estimate.note
        ]
        lacking = lacks(_chart_lacks(chart))
        yield Figure(
            name=f"{kind}-{ending}",
            title=chart.title,
            caption=f"{group.scored}. {DOT}{lacking}{beside([*notes, *partial_])}",
            canvas=draw_tasks(chart),
            plot=task_plot(chart),
        )
    yield from _curve_plans(section, group, ending)


def _chart_lacks(chart: TaskChart) -> list[str]:
    return [
        f"{task} ({method_label(method)}: {estimate.note})"
        for method, row in chart.series.items()
        for task, estimate in zip(chart.tasks, row, strict=True)
        if estimate.value is None
    ]


def _curve_plans(section: Section, group: Group, ending: str) -> Iterator[Figure]:
    curves = curves_of(group, section.runs)
    titles = {
        "curves": f"Learning curves, mean over {group.scored}: {group.label}",
        "curves-tasks": f"Learning curves by task: {group.label}",
        "steps": f"Downstream steps to a share of PT's final dev score: {group.label}",
    }
    if evaluations(curves) < 2:
        why = "the runs have fewer than two dev evaluations each, so there is no curve"
        for kind, title in titles.items():
            yield Figure(name=f"{kind}-{ending}", title=title, missing=why)
        return
    ribbon = "Line: mean over data seeds; band: lowest to highest data seed."
    mean = mean_panel(group, curves)
    yield Figure(
        name=f"curves-{ending}",
        title=titles["curves"],
        caption=f"{ribbon} {mean.note}".strip(),
        canvas=draw_curves(titles["curves"], [mean]),
        plot=curve_plot([mean]),
    )
    panels = task_panels(group, curves)
    yield Figure(
        name=f"curves-tasks-{ending}",
        title=titles["curves-tasks"],
        caption=ribbon,
        canvas=draw_curves(titles["curves-tasks"], panels),
        plot=curve_plot(panels),
    )
    chart = steps_to(group, curves)
    lacking, _ = noted(chart.series, [f"at {100 * share:g} %" for share in chart.shares])
    yield Figure(
        name=f"steps-{ending}",
        title=titles["steps"],
        caption=f"Median over (task, data seed); line: 95 % bootstrap interval.{lacks(lacking)}",
        canvas=draw_steps_to(chart),
        plot=steps_plot(chart),
    )
