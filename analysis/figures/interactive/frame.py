"""What all interactive figures share: looks of methods, hover texts, plain JSON.

Colours of text, axes and grid are the page's (light or dark) and are set there; `INK` and `PAPER`
stand for its text and background.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from matplotlib.colors import to_rgb
from plotly.colors import sample_colorscale

from ...results.names import method_label
from ...tables.table import shown, shown_interval
from ..charts.data import Estimate
from ..drawing.style import BLACK, look

INK = BLACK
"""Stands for the page's colour of text."""
PAPER = "#ffffff"
"""Stands for the page's background."""
Plot = Mapping[str, Any]
"""Data and layout, as Plotly takes them."""
SCALE = "Cividis"
"""Colour map of scores, even in lightness and to every kind of eye."""
DIVERGING = [
    [0.0, "#b2182b"],
    [0.25, "#f4a582"],
    [0.5, "#f7f7f7"],
    [0.75, "#92c5de"],
    [1.0, "#2166ac"],
]
"""Colour map of gains: red below 0, blue above."""


DIGITS = ("#010101", "#fefefe")
"""Colours of numbers on coloured cells, which are the same on a light and on a dark page."""


def plot(traces: Sequence[Any], **layout: Any) -> Plot:
    """Return checked traces with their layout as plain JSON; no template of Plotly's is in it.

    The texts of heat maps become traces of their own, behind all others.
    """
    heated = [one for one in traces if one["type"] == "heatmap" and "text" in one]
    figure = go.Figure([*traces, *map(digits, heated)])
    figure.update_layout(template=None, **layout)
    made: Plot = json.loads(figure.to_json())
    made["layout"].pop("template", None)
    return made


def digits(heat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts of a heat map, each in the one of `DIGITS` that stands out more.

    Plotly's own are grey on every light colour and white on every dark one, and hard to read on
    those in between.
    """
    columns, rows = heat["x"], heat["y"]
    cells = [
        (columns[x], rows[y], heat["text"][y][x], float(value))
        for y, line in enumerate(heat["z"])
        for x, value in enumerate(line)
        if value is not None and heat["text"][y][x]
    ]
    low, high = heat["zmin"], heat["zmax"]
    shares = [min(1.0, max(0.0, (cell[3] - low) / ((high - low) or 1.0))) for cell in cells]
    return {
        "type": "scatter",
        "mode": "text",
        "x": [cell[0] for cell in cells],
        "y": [cell[1] for cell in cells],
        "text": [cell[2] for cell in cells],
        "textfont": {"color": [_digit_on(heat["colorscale"], share) for share in shares]},
        "hoverinfo": "skip",
        "showlegend": False,
        **{axis: heat[axis] for axis in ("xaxis", "yaxis") if axis in heat},
    }


def _digit_on(scale: Any, share: float) -> str:
    (under,) = sample_colorscale(scale, [share], colortype="tuple")
    dark, light = DIGITS
    return dark if contrast(under, to_rgb(dark)) >= contrast(under, to_rgb(light)) else light


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the contrast of two colours (red, green, blue in [0, 1]), from 1 to 21.

    https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio; text needs 4.5.
    """
    low, high = sorted(_luminance(color) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: Sequence[float]) -> float:
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color
    ]
    return sum(
        weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )


def marker(method: str, size: int = 8) -> dict[str, Any]:
    """Return the marker of a method: that of the printed figures."""
    own = look(method)
    return {"color": own.color, "symbol": own.symbol, "size": size}


def hover(estimate: Estimate, *lines: str, unit: str = " %") -> str:
    """Return a hover text: what it is, the number, its interval, and what is to be known."""
    value = "no value" if estimate.value is None else f"{shown(estimate.value, 2)}{unit}"
    if estimate.interval is not None:
        value += f" {shown_interval(estimate.interval, 2)}"
    return "<br>".join(map(escaped, (*lines, value, *([estimate.note] if estimate.note else []))))


def escaped(text: str) -> str:
    """Return a text for Plotly, which takes a few tags of HTML; long ones are cut."""
    short = text if len(text) <= 160 else f"{text[:160]} …"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def whiskers(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Return the error bars of values with intervals; none where there is no interval."""
    rows = [
        (0.0, 0.0)
        if one.value is None or one.low is None or one.high is None
        else (max(0.0, one.high - one.value), max(0.0, one.value - one.low))
        for one in estimates
    ]
    return {
        "type": "data",
        "symmetric": False,
        "array": [up for up, _ in rows],
        "arrayminus": [down for _, down in rows],
        "thickness": 1,
        "width": 0,
    }


def dots(
    estimates: Sequence[Estimate],
    places: Iterable[float | str],
    hovers: Iterable[str],
    *,
    along: str = "x",
    **more: Any,
) -> dict[str, Any]:
    """Return the trace of a dot with its interval for each estimate.

    Args:
        estimates: values on the axis `along`.
        places: on the other axis.
        hovers: what is said of each.
        along: "x" or "y".
        **more: of the trace.
    """
    return {
        "type": "scatter",
        "mode": "markers",
        along: [one.value for one in estimates],
        "y" if along == "x" else "x": list(places),
        f"error_{along}": whiskers(estimates),
        "hovertext": list(hovers),
        "hoverinfo": "text",
        **more,
    }


def rows_axis(labels: Sequence[str]) -> dict[str, Any]:
    """Return a y axis of rows with labels, the first on top."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": list(labels),
        "range": [len(labels) - 0.4, -0.6],
        "zeroline": False,
        "automargin": True,
    }


def name(method: str) -> str:
    """Return a method's label for a legend."""
    return escaped(method_label(method))


def page(key: str | None) -> str:
    """Return the address that a click leads to; empty without one."""
    return f"cells/{key}.html" if key else ""
