"""The forest plot of a contest for a page: a row a partition, one for all pooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..figures.charts.data import Estimate
from ..figures.drawing.style import BLACK
from ..figures.interactive.frame import Plot, escaped, hover, marker, plot, whiskers
from ..results.names import partition_label
from .verdict import Against, Verdict

CAPTION = (
    "Dot: the contestant's ARG minus that of the best multitask learning; line: its 95 % interval "
    "over upstream seeds and data seeds, simultaneous for all contestants in the pooled row."
)
_KINDS = ("", "-open", "-dot", "-open-dot")
"""Ends of the markers of contestants that share a method, and so its colour."""


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
                 "line": {"color": BLACK, "width": 1}, "layer": "below"}],
        yaxis={
            "tickvals": list(range(len(labels))),
            "ticktext": list(map(escaped, labels)),
            "range": [len(labels) - 0.4, -0.6],
            "zeroline": False,
            "automargin": True,
        },
    )  # fmt: skip


def _trace(
    one: Against, partitions: Sequence[str], labels: Sequence[str], look: Any, offset: float
) -> dict[str, Any]:
    estimates = [_estimate(one.pooled.value, one.interval)]
    estimates += [
        _estimate(one.partitions[name].value, one.partitions[name].interval)
        if name in one.partitions
        else Estimate(value=None, note="no arena")
        for name in partitions
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escaped(one.name),
        "x": [estimate.value for estimate in estimates],
        "y": [row + offset for row in range(len(estimates))],
        "error_x": whiskers(estimates),
        "marker": look,
        "hovertext": [
            hover(estimate, label, one.name, unit=" points")
            for label, estimate in zip(labels, estimates, strict=True)
        ],
        "hoverinfo": "text",
    }


def _estimate(value: float, ends: tuple[float, float] | None) -> Estimate:
    low, high = ends or (None, None)
    return Estimate(value=value, low=low, high=high)
