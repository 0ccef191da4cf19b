"""Gains and scores by task, numbers against a setting, learning curves: one trace a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..charts.data import CurvePanel, Estimate, StepsTo, Sweep, TaskChart
from ..drawing.style import by_method, look
from ..drawing.tasks import limits, reach, shorten
from .frame import Plot, dots, escaped, hover, marker, name, page, plot, rows_axis


def task_plot(chart: TaskChart) -> Plot:
    """Return a row for each task, in it a dot and an interval for each method.

    The axis is that of the printed figure (`limits`): behind it stands how far a row reaches.
    """
    methods = by_method(chart.series)
    values = {method: chart.row_values(method) for method in methods}
    labels = [escaped(row) for row in shorten(chart.rows)]
    traces = []
    for at, (method, estimates) in enumerate(values.items()):
        offset = 0.7 * ((at + 0.5) / len(methods) - 0.5)
        key = chart.points.get(method)
        called = f"{name(method)}, point {key[:8]}" if key else name(method)
        traces.append(
            dots(
                estimates,
                [row + offset for row in range(len(estimates))],
                [
                    hover(one, task, called)
                    for task, one in zip(chart.rows, estimates, strict=True)
                ],
                name=name(method),
                marker=marker(method, 6),
                customdata=[page(key)] * len(estimates),
            )
        )
    axis: dict[str, Any] = {"title": {"text": chart.axis}, "zeroline": chart.zero}
    ends: list[dict[str, Any]] = []
    if chart.zero:  # scores are never far from each other
        low, high = limits([one for own in values.values() for one in own], chart.zero)
        axis["range"] = [low, high]
        ends = _ends(list(zip(*values.values(), strict=True)), low, high)
    return plot(
        traces,
        height=130 + max(22, 9 * len(methods)) * len(labels),
        xaxis=axis,
        annotations=ends,
        margin={"r": 56 if ends else 10},
        yaxis=rows_axis(labels),
    )


def _ends(lines: Sequence[Sequence[Estimate]], low: float, high: float) -> list[dict[str, Any]]:
    notes = []
    for row, line in enumerate(lines):
        words = reach(line, low, high)
        if words:
            notes.append(
                {
                    "text": words,
                    "xref": "paper",
                    "x": 1.0,
                    "xanchor": "left",
                    "y": row,
                    "showarrow": False,
                    "font": {"size": 10},
                }
            )
    return notes


def sweep_plot(sweep: Sweep) -> Plot:
    """Return a line for each method with its intervals; the paper's numbers are dotted."""
    traces: list[dict[str, Any]] = []
    values = [f" {value}" for value in sweep.values]  # a text, or Plotly takes it for a number
    for method in by_method(sweep.series):
        estimates = sweep.series[method]
        hovers = (
            hover(one, name(method), f"{sweep.setting}: {value}")
            for value, one in zip(sweep.values, estimates, strict=True)
        )
        line = {"color": look(method).color, "width": 1.5}
        looks = {"name": name(method), "marker": marker(method), "line": line}
        traces.append(dots(estimates, values, hovers, along="y", mode="lines+markers", **looks))
    for method in by_method(sweep.published):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{name(method)}, published",
                "x": values,
                "y": list(sweep.published[method]),
                "marker": {**marker(method), "symbol": "circle-open"},
                "line": {"color": look(method).color, "width": 1, "dash": "dot"},
            }
        )
    return plot(
        traces,
        height=360,
        xaxis={"title": {"text": sweep.setting}, "type": "category"},
        yaxis={"title": {"text": sweep.axis}, "zeroline": True},
    )


def curve_plot(panels: Sequence[CurvePanel]) -> Plot:
    """Return dev scores against downstream steps; the band is the range over data seeds.

    Several panels stand in two columns.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"grid": {"rows": rows, "columns": columns, "pattern": "independent"}}
    seen: set[str] = set()
    notes = []
    for at, panel in enumerate(panels):
        end = "" if at == 0 else str(at + 1)
        layout[f"xaxis{end}"] = {"title": {"text": "steps" if at >= len(panels) - columns else ""}}
        layout[f"yaxis{end}"] = {"title": {"text": "dev score, %" if len(panels) == 1 else ""}}
        traces += _curves(panel, end, seen)
        if len(panels) > 1:
            notes.append(_heading(panel.title, end))
    height = 380 if rows == 1 else 120 + 190 * rows
    return plot(traces, height=height, annotations=notes, hovermode="closest", **layout)


def _heading(title: str, end: str) -> dict[str, Any]:
    return {
        "text": escaped(shorten([title], 28)[0]),
        "xref": f"x{end} domain",
        "yref": f"y{end} domain",
        "x": 0,
        "y": 1.12,
        "showarrow": False,
        "font": {"size": 11},
    }


def _curves(panel: CurvePanel, end: str, seen: set[str]) -> list[dict[str, Any]]:
    traces = []
    for method in by_method(panel.bands):
        band, own = panel.bands[method], look(method)
        both = {"xaxis": f"x{end}", "yaxis": f"y{end}", "legendgroup": method, "type": "scatter"}
        steps = [s for s, low in zip(band.steps, band.low, strict=True) if low is not None]
        low = [one for one in band.low if one is not None]
        high = [one for one in band.high if one is not None]
        traces.append(
            {
                **both,
                "x": [*steps, *steps[::-1]],
                "y": [*high, *low[::-1]],
                "fill": "toself",
                "fillcolor": own.color,
                "opacity": 0.15,
                "mode": "none",
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
        traces.append(
            {
                **both,
                "x": list(band.steps),
                "y": list(band.mean),
                "mode": "lines",
                "name": name(method),
                "showlegend": method not in seen,
                "line": {"color": own.color, "width": 1.6},
                "hovertext": [
                    escaped(
                        f"{name(method)}, {panel.title}, step {s}: "
                        + ("no value" if m is None else f"{m:.1f} %, seeds {lo:.1f} to {hi:.1f}")
                    )
                    for s, m, lo, hi in zip(
                        band.steps, band.mean, band.low, band.high, strict=True
                    )
                ],
                "hoverinfo": "text",
            }
        )
        seen.add(method)
    return traces


def steps_plot(chart: StepsTo) -> Plot:
    """Return the median number of steps to each share of the final dev score, by method."""
    methods = by_method(chart.series)
    traces = []
    for at, method in enumerate(methods):
        offset = 0.4 * ((at + 0.5) / len(methods) - 0.5)
        estimates = chart.series[method]
        places = [share + offset for share in range(len(chart.shares))]
        hovers = [hover(one, name(method), unit=" steps") for one in estimates]
        looks = {"name": name(method), "marker": marker(method)}
        traces.append(dots(estimates, places, hovers, along="y", **looks))
    return plot(
        traces,
        height=360,
        xaxis={
            "tickvals": list(range(len(chart.shares))),
            "ticktext": [f"{100 * share:g} %" for share in chart.shares],
            "title": {"text": "share of PT's final dev score"},
            "zeroline": False,
        },
        yaxis={"title": {"text": "downstream steps (median)"}, "rangemode": "tozero"},
    )
