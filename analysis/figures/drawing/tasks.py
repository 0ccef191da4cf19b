"""Figures with a row for each task: relative gains (4–13) and absolute scores (14–23)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from ..charts.data import Estimate, TaskChart
from . import style
from .style import Axes, Canvas

_PITCH_CM = 0.14
"""Height of one method's line within a task's row."""
_GAP_CM = 0.12
"""Free height between two tasks."""
_NAME_CM = 0.32
"""Height that a task's name takes."""
_NAME = 26
"""Letters of a task's name; a longer one loses its middle."""


def shorten(names: Sequence[str], letters: int = _NAME) -> list[str]:
    """Return names of at most this many letters, different wherever the names are.

    A long name loses its middle; where two would come out alike, they keep their whole length.
    """
    head = letters - letters // 3 - 1
    short = [
        name if len(name) <= letters else f"{name[:head]}…{name[-(letters // 3) :]}"
        for name in names
    ]
    return [name if short.count(s) > 1 else s for name, s in zip(names, short, strict=True)]


def limits(estimates: Sequence[Estimate], zero: bool) -> tuple[float, float]:
    """Return the range of the axis: all values and intervals, but for a few extreme gains.

    Where 0 is a mark (gains), a relative gain over a baseline near zero would squeeze all the
    others. So a side whose outermost end is more than 4 times as far from the median as nine
    tenths of all ends are reaches 2.5 times as far only; and beyond the outermost value in there
    is room for intervals as long as the range of values or a usual interval, no longer.
    What lies outside, and where an interval ends that is cut, stands as a number on the edge.
    """
    ends = [
        end
        for estimate in estimates
        for end in (estimate.value, estimate.low, estimate.high)
        if end is not None
    ]
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    if zero:
        middle = float(np.median(ends))
        usual = float(np.quantile(np.abs(np.subtract(ends, middle)), 0.9))
        low = low if middle - low <= 4 * usual else middle - 2.5 * usual
        high = high if high - middle <= 4 * usual else middle + 2.5 * usual
        inside = [0.0, *(e.value for e in estimates if _within(e.value, low, high))]
        first, last = min(inside), max(inside)
        room = max(last - first, _usual_length(estimates))
        if room > 0:
            low, high = max(low, first - room), min(high, last + room)
        low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.04 * (high - low) or max(0.05 * abs(high), 0.5)
    return low - margin, high + margin


def _usual_length(estimates: Sequence[Estimate]) -> float:
    lengths = [ends[1] - ends[0] for one in estimates if (ends := one.interval) is not None]
    return float(np.median(lengths)) if lengths else 0.0


def _within(value: float | None, low: float, high: float) -> TypeGuard[float]:
    return value is not None and low <= value <= high


def reach(estimates: Sequence[Estimate], low: float, high: float) -> str:
    """Return how far values and intervals of a row reach beyond an axis; empty if they do not."""
    ends = [end for one in estimates for end in (one.value, one.low, one.high) if end is not None]
    left, right = min(ends, default=low), max(ends, default=high)
    words = [f"← {left:.0f}"] if left < low else []
    return " ".join([*words, *([f"→ {right:.0f}"] if right > high else [])])


@style.drawn
def draw_tasks(chart: TaskChart) -> Canvas:
    """Return a dot plot: a row for each task, in it a dot and an interval for each method.

    A missing value is a question mark on the left edge. What is outside of the axis (see `limits`)
    is an arrow on its edge with the number beside it; where intervals are cut, the outermost end
    of the row stands behind the edge.
    """
    methods = style.by_method(chart.series)
    rows = shorten(chart.rows)
    values = {method: chart.row_values(method) for method in methods}
    pitch = max(_PITCH_CM * len(methods) + _GAP_CM, _NAME_CM)
    figure, ax = style.axes(height_cm=1.9 + pitch * len(rows))
    everything = [estimate for column in values.values() for estimate in column]
    ax.set_xlim(limits(everything, chart.zero))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    for row in range(0, len(rows), 2):
        ax.axhspan(row - 0.5, row + 0.5, color=style.PALE, lw=0, zorder=0)
    if chart.summary:
        ax.axhline(0.5, color=style.GREY, lw=0.5)
    if chart.zero:
        ax.axvline(0, color=style.GREY, lw=0.7, zorder=1)
    for number, method in enumerate(methods):
        offset = (number - (len(methods) - 1) / 2) * _PITCH_CM / pitch
        _draw_method(ax, method, values[method], offset)
    for row, line in enumerate(zip(*values.values(), strict=True)):
        _draw_cut(ax, row, line)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(axis="y", length=0, labelsize=style.SMALL + 0.3)
    if chart.summary:
        ax.get_yticklabels()[0].set_fontweight("bold")
    ax.grid(axis="x")
    ax.set_xlabel(chart.axis)
    style.title(figure, chart.title)
    lacking = any(estimate.value is None for estimate in everything)
    handles = [style.method_handle(method) for method in methods]
    style.legend(figure, [*handles, *([style.missing_handle()] if lacking else [])])
    return figure


def _draw_method(ax: Axes, method: str, values: Sequence[Estimate], offset: float) -> None:
    shown = style.look(method)
    left, right = ax.get_xlim()
    dots, segments = [], []
    for row, estimate in enumerate(values):
        y = row + offset
        if estimate.value is None:
            style.mark_missing(ax, y, shown.color, along="y")
            continue
        if estimate.interval is not None:
            segments.append((y, *estimate.interval))
        if left <= estimate.value <= right:
            dots.append((estimate.value, y))
        else:
            _draw_outside(ax, estimate.value, y, shown.color)
    if segments:
        places, lows, highs = zip(*segments, strict=True)
        ax.hlines(places, lows, highs, colors=shown.color, lw=0.7, gid=f"interval:{method}")
    ax.plot(
        [x for x, _ in dots], [y for _, y in dots], marker=shown.marker, color=shown.color, lw=0,
        ms=2.4, gid=f"value:{method}",
    )  # fmt: skip


def _draw_cut(ax: Axes, row: int, estimates: Sequence[Estimate]) -> None:
    """Write behind the edge how far intervals reach that the axis cuts, of values in it."""
    low, high = ax.get_xlim()
    words = reach([one for one in estimates if _within(one.value, low, high)], low, high)
    if words:  # behind the right edge: left of the axis are the names
        ax.annotate(
            words,
            (1.01, row),
            xycoords=ax.get_yaxis_transform(),
            va="center",
            color=style.GREY,
            fontsize=style.SMALL,
            gid="cut",
        )


def _draw_outside(ax: Axes, value: float, y: float, color: str) -> None:
    """Put an arrow on the edge of the axes with the value that lies beyond it."""
    over = value > ax.get_xlim()[1]
    ax.annotate(
        f"{value:.0f} →" if over else f"← {value:.0f}",
        (1.0 if over else 0.0, y),
        xycoords=ax.get_yaxis_transform(),
        ha="right" if over else "left",
        va="center",
        color=color,
        fontsize=style.SMALL,
        gid="outside",
        zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )
