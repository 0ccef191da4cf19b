"""A number against an ordered setting: source shots (Figure 3), target shots, source tasks."""

from __future__ import annotations

import math

from ..charts.data import Estimate, Sweep
from . import style
from .style import Axes, Canvas

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
        elif estimate.low is not None and estimate.high is not None:
            ax.vlines(
                x, estimate.low, estimate.high, colors=shown.color, lw=0.7,
                gid=f"interval:{method}",
            )  # fmt: skip
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
