"""A search: ranking, parallel coordinates, importance of settings, maps of two settings."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..charts.data import Search, SearchPoint, name_of, point_label, write
from ..charts.sensitivity import Importance, heights, marginal, on_log_scale
from ..drawing.style import BLUE, GREY, ORANGE, shade
from .frame import INK, PAPER, SCALE, Plot, dots, escaped, hover, page, plot, whiskers


def _said(search: Search, point: SearchPoint) -> list[str]:
    settings = [f"{name_of(name)}: {write(point.settings[name])}" for name in search.varied]
    return [*settings, *([f"point {point.key[:8]}"] if point.key else [])]


def ranking_plot(search: Search) -> Plot:
    """Return all points, best first, with intervals; the strip is the interval of the best one."""
    points = search.scored
    estimates = [point.score for point in points]
    best = None if search.best is None else search.best.score
    strip = []
    if best is not None and best.low is not None:
        strip.append(
            {
                "type": "rect",
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "x0": best.low,
                "x1": best.high,
                "fillcolor": GREY,
                "opacity": 0.15,
                "line": {"width": 0},
                "layer": "below",
            }
        )
    ranks = list(range(1, len(points) + 1))
    hovers = [
        hover(point.score, f"rank {rank}", *_said(search, point))
        for rank, point in zip(ranks, points, strict=True)
    ]
    trace = dots(
        estimates,
        ranks,
        hovers,
        marker={"color": BLUE, "size": 6},
        customdata=[page(point.key) for point in points],
    )
    labels = [escaped(point_label(point, search.varied)) for point in points]
    few = len(points) <= 40
    axis: dict[str, Any] = {"title": {"text": "rank"}, "range": [len(points) + 0.6, 0.4]}
    if few:
        axis |= {
            "tickvals": ranks,
            "ticktext": labels,
            "title": {"text": escaped(" · ".join(map(name_of, search.varied)))},
            "automargin": True,
        }
    return plot(
        [trace],
        height=120 + (17 * len(points) if few else min(6 * len(points), 700)),
        shapes=strip,
        showlegend=False,
        xaxis={"title": {"text": "ARG, %"}, "zeroline": True},
        yaxis={**axis, "zeroline": False},
    )


def importance_plot(importance: Importance) -> Plot:
    """Return a bar for each setting and evaluator; the line is the range of fANOVA's forests."""
    names = list(next(iter(importance.evaluators.values())))[::-1]
    traces = []
    for color, (evaluator, shares) in zip(
        (BLUE, ORANGE), importance.evaluators.items(), strict=True
    ):
        estimates = [shares[name] for name in names]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": evaluator,
                "y": [escaped(name_of(name)) for name in names],
                "x": [one.value for one in estimates],
                "error_x": whiskers(estimates) | {"color": INK},
                "marker": {"color": color},
                "hovertext": [
                    hover(one, name_of(name), evaluator, unit=" of the variation")
                    for name, one in zip(names, estimates, strict=True)
                ],
                "hoverinfo": "text",
            }
        )
    return plot(
        traces,
        height=130 + 46 * len(names),
        barmode="group",
        xaxis={"title": {"text": "share of the variation of ARG"}, "range": [0, 1.02]},
        yaxis={"automargin": True},
    )


def parallel_plot(search: Search) -> Plot:
    """Return a line for each point through its settings to its score, coloured by the score.

    Lines through one value are fanned out in the order of their scores, as in the printed figure.
    """
    names = search.varied
    at = {name: heights(search, name) for name in names}
    scores = [float(point.score.value or 0.0) for point in search.scored]
    low, high = min(scores), max(scores)
    span = (high - low) or 1.0
    points = search.scored[::-1]  # the best is drawn last, on top
    fan = np.linspace(-0.03, 0.03, len(points)) if len(points) > 1 else np.zeros(1)
    traces: list[dict[str, Any]] = []
    for offset, point in zip(fan.tolist(), points, strict=True):
        share = (float(point.score.value or 0.0) - low) / span
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": list(range(len(names) + 1)),
                "y": [*(at[n][point.settings[n]] + offset for n in names), share],
                "line": {
                    "color": shade(share)[0],
                    "width": 3 if point is search.best else 1.2,
                },
                "marker": {"size": 4, "color": shade(share)[0]},
                "customdata": [page(point.key)] * (len(names) + 1),
                "hovertext": hover(point.score, *_said(search, point)),
                "hoverinfo": "text",
                "showlegend": False,
            }
        )
    ticks = [
        (number, height, write(value))
        for number, name in enumerate(names)
        for value, height in _few(at[name])
    ]
    ticks += [(len(names), t, f"{low + t * span:.1f}") for t in (0.0, 0.5, 1.0)]
    return plot(
        traces,
        height=380,
        annotations=[_tick(*tick) for tick in ticks],
        xaxis={
            "tickvals": list(range(len(names) + 1)),
            "ticktext": [*(escaped(name_of(name)) for name in names), "ARG, %"],
            "range": [-0.3, len(names) + 0.2],
            "zeroline": False,
        },
        yaxis={"visible": False, "range": [-0.1, 1.1]},
    )


def _tick(x: float, y: float, text: str) -> dict[str, Any]:
    return {
        "x": x,
        "y": y,
        "text": text,
        "showarrow": False,
        "xanchor": "right",
        "xshift": -6,
        "font": {"size": 10},
        "bgcolor": PAPER,
    }


def _few(places: dict[float, float]) -> list[tuple[float, float]]:
    items = list(places.items())
    if len(items) <= 6:
        return items
    return [items[round(at)] for at in np.linspace(0, len(items) - 1, 6)]


def map_plot(search: Search) -> Plot:
    """Return mean ARG over two settings, a panel a pair of settings.

    A few values each are a table of colours, more are contours (of the points as they are).
    """
    pairs = list(itertools.combinations(search.varied, 2))
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    scores = [float(point.score.value or 0.0) for point in search.scored]
    layout: dict[str, Any] = {"grid": {"rows": rows, "columns": columns, "pattern": "independent"}}
    traces = []
    for at, (x, y) in enumerate(pairs):
        end = "" if at == 0 else str(at + 1)
        trace = _map(search, x, y)
        color = {"zmin": min(scores), "zmax": max(scores), "showscale": at == 0}
        traces.append({**trace, **color, "xaxis": f"x{end}", "yaxis": f"y{end}"})
        kind = "category" if trace["type"] == "heatmap" else None
        for letter, setting in (("x", x), ("y", y)):
            layout[f"{letter}axis{end}"] = {
                "title": {"text": escaped(name_of(setting))},
                "type": kind or _scale(search, setting),
            }
    return plot(traces, height=90 + 260 * rows, **layout)


def _scale(search: Search, name: str) -> str:
    return "log" if on_log_scale([point.settings[name] for point in search.points]) else "linear"


def _map(search: Search, x: str, y: str) -> dict[str, Any]:
    marginals = marginal(search, x, y)
    xs, ys = (sorted({at[axis] for at in marginals}) for axis in (0, 1))
    both = {"colorscale": SCALE, "colorbar": {"title": {"text": "ARG %"}, "thickness": 10}}
    if max(len(xs), len(ys)) > 8:
        scored = {at: row[0] for at, row in marginals.items() if row[1]}
        return {
            **both,
            "type": "contour",
            "x": [at[0] for at in scored],
            "y": [at[1] for at in scored],
            "z": list(scored.values()),
            "connectgaps": True,
        }
    cells = [[marginals.get((one, other)) for one in xs] for other in ys]
    return {
        **both,
        "type": "heatmap",
        "x": [f" {write(value)}" for value in xs],
        "y": [f" {write(value)}" for value in ys],
        "z": [[c[0] if c and c[1] else None for c in row] for row in cells],
        "text": [[f"{c[0]:.1f}" if c and c[1] else "" for c in row] for row in cells],
        "hovertext": [
            [f"mean of {c[1]} of {c[2]} points" if c else "" for c in row] for row in cells
        ],
        "hovertemplate": "%{x} ×%{y}: %{z:.2f} %<br>%{hovertext}<extra></extra>",
        "xgap": 2,
        "ygap": 2,
    }
