"""What all interactive figures share: looks of methods, hover texts, plain JSON.

Colours of text, axes and grid are the page's (light or dark) and are set there; `INK` and `PAPER`
stand for its text and background.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ...results.names import method_label
from ...tables.table import shown
from ..charts.data import Estimate
from ..drawing.style import BLACK, look

INK = BLACK
"""Stands for the page's colour of text."""
PAPER = "#ffffff"
"""Stands for the page's background."""
_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "x": "x",
    "P": "cross",
    "X": "x-open",
    "*": "star",
}
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


def plot(traces: Sequence[Any], **layout: Any) -> Plot:
    """Return checked traces with their layout as plain JSON; no template of Plotly's is in it."""
    figure = go.Figure(list(traces))
    figure.update_layout(template=None, **layout)
    made: Plot = json.loads(figure.to_json())
    made["layout"].pop("template", None)
    return made


def marker(method: str, size: int = 8) -> dict[str, Any]:
    """Return the marker of a method: that of the printed figures."""
    own = look(method)
    return {"color": own.color, "symbol": _SYMBOLS[own.marker], "size": size}


def hover(estimate: Estimate, *lines: str, unit: str = " %") -> str:
    """Return a hover text: what it is, the number, its interval, and what is to be known."""
    value = "no value" if estimate.value is None else f"{shown(estimate.value, 2)}{unit}"
    if estimate.low is not None and estimate.high is not None:
        value += f" [{shown(estimate.low, 2)}, {shown(estimate.high, 2)}]"
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


def name(method: str) -> str:
    """Return a method's label for a legend."""
    return escaped(method_label(method))


def page(key: str | None) -> str:
    """Return the address that a click leads to; empty without one."""
    return f"cells/{key}.html" if key else ""
