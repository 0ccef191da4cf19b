"""Numbers against steps or a setting: learning curves, how soon they near their end, sweeps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..charts.data import CurvePanel, Estimate, StepsTo, Sweep
from . import style
from .style import Axes, Canvas
from .tasks import shorten


@style.drawn
def draw_curves(title: str, panels: Sequence[CurvePanel]) -> Canvas:
    """Return dev scores against downstream steps: mean (line) and range (band) over data seeds.

    One panel takes the whole width; several stand in two columns.
    """
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = style.canvas(height_cm=6.5 if rows == 1 else 1.8 + 2.6 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=len(panels) > 1)
    names = shorten([panel.title for panel in panels], 30)
    for number, ax in enumerate(grid.flat):
        if number >= len(panels):
            ax.set_axis_off()
            grid.flat[number - columns].tick_params(labelbottom=True)  # the last of its column
            continue
        _draw_panel(ax, panels[number])
        if len(panels) > 1:
            ax.set_title(names[number], fontsize=style.SMALL + 0.5, pad=2)
    for column in range(columns):
        last = (len(panels) - 1 - column) // columns
        grid[last, column].set_xlabel("downstream steps")
    figure.supylabel("dev score, %")
    style.title(figure, title)
    methods = style.by_method({method for panel in panels for method in panel.bands})
    style.legend(figure, [style.method_handle(m, line=True) for m in methods])
    return figure


def _draw_panel(ax: Axes, panel: CurvePanel) -> None:
    ax.grid()
    for method in style.by_method(panel.bands):
        band, shown = panel.bands[method], style.look(method)
        mean, low, high = (
            [math.nan if number is None else number for number in numbers]
            for numbers in (band.mean, band.low, band.high)
        )
        few = len(band.steps) <= 12
        ax.plot(
            band.steps, mean, color=shown.color, marker=shown.marker if few else "",
            ms=2.2, gid=f"mean:{method}",
        )  # fmt: skip
        ax.fill_between(band.steps, low, high, color=shown.color, alpha=0.15, lw=0)
    if panel.note:
        ax.text(
            0.5, 0.03, panel.note, transform=ax.transAxes, ha="center", color=style.GREY,
            fontsize=style.SMALL, gid="note",
        )  # fmt: skip


@style.drawn
def draw_steps_to(chart: StepsTo) -> Canvas:
    """Return the median number of steps to each share of the final dev score, by method.

    Where half of the runs or more never came there, there is no median: a question mark.
    """
    methods = style.by_method(chart.series)
    figure, ax = style.axes(height_cm=6.0)
    lacking = False
    for number, method in enumerate(methods):
        shown = style.look(method)
        offset = 0.4 * ((number + 0.5) / len(methods) - 0.5)
        xs, ys = [], []
        for share, estimate in enumerate(chart.series[method]):
            x = share + offset
            if estimate.value is None:
                style.mark_missing(ax, x, shown.color, along="x")
                lacking = True
                continue
            xs.append(x)
            ys.append(estimate.value)
            if estimate.interval is not None:
                ax.vlines(x, *estimate.interval, colors=shown.color, lw=0.7)
        ax.plot(xs, ys, color=shown.color, marker=shown.marker, lw=0, gid=f"value:{method}")
    ax.set_xticks(range(len(chart.shares)), [f"{100 * share:g} %" for share in chart.shares])
    ax.set_xlim(-0.5, len(chart.shares) - 0.5)
    ax.set_ylim(bottom=0)
    ax.grid(axis="y")
    ax.set_xlabel("share of PT's final dev score")
    ax.set_ylabel("downstream steps (median)")
    style.title(figure, chart.title)
    handles = [style.method_handle(method) for method in methods]
    style.legend(figure, [*handles, *([style.missing_handle()] if lacking else [])])
    return figure


_SPREAD = 0.3
"""Share of the distance between two values over which the methods stand side by side."""


@style.drawn
def draw_sweep(sweep: Sweep) -> Canvas:
    """Return a line for each method, with intervals; published numbers are hollow and dashed.

    Where a value is missing the line has a gap, and a question mark stands on the lower edge.
    """
    methods = style.by_method({*sweep.series, *sweep.published})
    figure, ax = style.axes(height_cm=6.5)
    ax.axhline(0, color=style.GREY, lw=0.7, zorder=1)
    lacking = False
    for number, method in enumerate(methods):
        offset = _SPREAD * ((number + 0.5) / len(methods) - 0.5)
        if method in sweep.published:
            _draw_published(ax, method, sweep.published[method], offset)
        if method in sweep.series:
            lacking |= _draw_series(ax, method, sweep.series[method], offset)
    ax.set_xticks(range(len(sweep.values)), sweep.values)
    ax.set_xlim(-0.5, len(sweep.values) - 0.5)
    ax.margins(y=0.08)
    ax.grid(axis="y")
    ax.set_xlabel(sweep.setting)
    ax.set_ylabel(sweep.axis)
    style.title(figure, sweep.title)
    handles = [style.method_handle(method, line=True) for method in methods]
    if sweep.published:
        handles.append(style.published_handle())
    if lacking:
        handles.append(style.missing_handle())
    style.legend(figure, [*handles], columns=4)
    return figure


def _draw_series(ax: Axes, method: str, estimates: tuple[Estimate, ...], offset: float) -> bool:
    """Draw one method; return whether a value is missing."""
    shown = style.look(method)
    xs = [x + offset for x in range(len(estimates))]
    values = [math.nan if e.value is None else e.value for e in estimates]  # NaN breaks a line
    ax.plot(xs, values, color=shown.color, marker=shown.marker, gid=f"value:{method}")
    for x, estimate in zip(xs, estimates, strict=True):
        if estimate.value is None:
            style.mark_missing(ax, x, shown.color, along="x")
        elif estimate.interval is not None:
            ends, gid = estimate.interval, f"interval:{method}"
            ax.vlines(x, *ends, colors=shown.color, lw=0.7, gid=gid)
    return any(math.isnan(value) for value in values)


def _draw_published(
    ax: Axes, method: str, values: tuple[float | None, ...], offset: float
) -> None:
    shown = style.look(method)
    ax.plot(
        [x + offset for x in range(len(values))],
        [math.nan if value is None else value for value in values],
        color=shown.color, marker=shown.marker, mfc="white", lw=0.8, ls=":", alpha=0.8,
        gid=f"published:{method}",
    )  # fmt: skip
