"""The forest plot of a contest, printed and for a page: a row a partition, one for all pooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..figures.charts.data import Estimate
from ..figures.drawing import style
from ..figures.drawing.style import Axes, Canvas
from ..figures.interactive.frame import Plot, dots, escaped, hover, marker, plot, rows_axis
from ..findings.paired import side_of
from ..results.names import partition_label
from .verdict import Against, Verdict

CAPTION = (
    "Dot: the contestant's ARG minus that of the best multitask learning; line: its 95 % interval "
    "over upstream seeds and data seeds, simultaneous for all contestants in the pooled row."
)
_ROW_CM, _FRAME_CM, _WIDTH_CM = 0.4, 1.6, 16.0
_KINDS = ("", "-open", "-dot", "-open-dot")
"""Ends of the markers of contestants that share a method, and so its colour."""


@style.drawn
def draw_contest(verdict: Verdict) -> Canvas:
    """Return a panel a contestant; the ids of its artists are "KIND:contestant:partition"."""
    shown = verdict.against
    rows = max(len(one.partitions) for one in shown) + 1
    figure = style.canvas(_FRAME_CM + _ROW_CM * rows, _WIDTH_CM)
    panels = figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True).ravel()
    for ax, one in zip(panels, shown, strict=True):
        _panel(ax, one, verdict.confirmed.frozen.entries[one.name].upstream.config.method)
    smoke = ". Smoke run: the numbers mean nothing" if verdict.confirmed.smoke else ""
    style.title(
        figure,
        "ARG minus that of the best multitask learning, % points, with 95 % intervals over "
        f"{len(verdict.confirmed.seeds)} fresh upstream seeds and data seeds; pooled: "
        f"simultaneous for {len(shown)} comparisons{smoke}",
    )
    return figure


def _panel(ax: Axes, one: Against, method: str) -> None:
    color = style.look(method).color
    rows = [
        *((name, pair.value, pair.interval) for name, pair in one.partitions.items()),
        ("pooled", one.pooled.value, one.interval),
    ]
    # "pooled" is no partition, so its label is its name
    style.rows(ax, [partition_label(name) for name, *_ in rows])
    for row, (name, value, ends) in enumerate(rows):
        gid = f"{one.name}:{name}"
        if ends is not None:
            ax.hlines(row, *ends, colors=color, lw=1.4, gid=f"interval:{gid}")
        ax.plot(
            [value], [row], marker="D" if name == "pooled" else "o", ms=3.4, lw=0, color=color,
            mfc=color if side_of(ends) else "white", mew=0.8, zorder=3, gid=f"value:{gid}",
        )  # fmt: skip
    ax.set_title(one.name, loc="left")


def forest_plot(verdict: Verdict) -> Plot:
    """Return a row for all partitions pooled and one for each, in it a dot for each contestant."""
    partitions = list(dict.fromkeys(n for one in verdict.against for n in one.partitions))
    labels = ["pooled", *map(partition_label, partitions)]
    entries = verdict.confirmed.frozen.entries
    shared: Counter[str] = Counter()
    traces = []
    for at, one in enumerate(verdict.against):
        method = entries[one.name].upstream.config.method
        look = marker(method, 7)
        look["symbol"] += _KINDS[shared[method] % len(_KINDS)]
        shared[method] += 1
        offset = 0.7 * ((at + 0.5) / len(verdict.against) - 0.5)
        traces.append(_trace(one, partitions, labels, look, offset))
    return plot(
        traces,
        height=150 + max(30, 13 * len(traces)) * len(labels),
        showlegend=True,
        xaxis={"title": {"text": "points of ARG"}, "zeroline": True},
        shapes=[{"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0,
                 "line": {"color": style.BLACK, "width": 1}, "layer": "below"}],
        yaxis=rows_axis([*map(escaped, labels)]),
    )  # fmt: skip


def _trace(
    one: Against, partitions: Sequence[str], labels: Sequence[str], look: Any, offset: float
) -> dict[str, Any]:
    estimates = [Estimate.of(one.pooled.value, one.interval)]
    estimates += [
        Estimate.of(pair.value, pair.interval)
        if (pair := one.partitions.get(name)) is not None
        else Estimate(value=None, note="no arena")
        for name in partitions
    ]
    hovers = [
        hover(estimate, label, one.name, unit=" points")
        for label, estimate in zip(labels, estimates, strict=True)
    ]
    places = [row + offset for row in range(len(estimates))]
    return dots(estimates, places, hovers, name=escaped(one.name), marker=look)
