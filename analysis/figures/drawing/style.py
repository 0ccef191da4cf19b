"""How every figure looks: one palette, one set of sizes, one way to write files.

Colours are those of Okabe and Ito (2008), which stay apart under the common colour blindnesses; a
method has a marker of its own too, so that a figure reads in grey. Figures are 8 cm wide, a column
of a paper; the smallest letters are 5 points.

Files are a pure function of what was drawn: no date, no version, ids from a fixed salt. Text in
SVG stays text. Nothing of matplotlib's global state is changed: figures are made without pyplot,
and the settings hold inside `drawing` only.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from ...results.names import BASELINE, in_order, method_label

__all__ = ["Axes", "Canvas"]

_Args = ParamSpec("_Args")

WIDTH_CM = 8.0
"""Width of a figure unless it says otherwise."""
DPI = 240
"""Of PNG files."""
_TITLE_CM = 0.32
"""Height of a line of the title."""
SMALL = 5.0
"""Points of the smallest letters: numbers within a figure, names of many tasks."""

BLACK, GREY, PALE = "#000000", "#767676", "#f0f0f0"
ORANGE, SKY, GREEN, BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"
VERMILION, PURPLE = "#D55E00", "#CC79A7"
SEQUENTIAL = "cividis"
"""Colour map of scores, even in lightness and to every kind of eye."""

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 6.5,
    "axes.titlesize": 6.5,
    "figure.labelsize": 6.5,
    "axes.labelsize": 6.5,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.4,
    "xtick.labelsize": 6.0,
    "ytick.labelsize": 6.0,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "legend.fontsize": 6.0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.0,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "svg.fonttype": "none",
    "svg.hashsalt": "mpt",
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    color: str
    marker: str
    """As matplotlib calls it."""
    symbol: str
    """The marker as Plotly calls it."""


METHODS: dict[str, Look] = {
    "maml": Look(BLUE, "o", "circle"),
    "fomaml": Look(SKY, "s", "square"),
    "reptile": Look(GREEN, "^", "triangle-up"),
    "multitask": Look(ORANGE, "D", "diamond"),
    "fine_tuning": Look(VERMILION, "v", "triangle-down"),
    BASELINE: Look(BLACK, "x", "x"),
}
"""Method → look, in the order of the paper's tables."""
_OTHERS = (
    Look(PURPLE, "P", "cross"),
    Look(GREY, "X", "x-open"),
    Look(BLACK, "*", "star"),
)


def look(method: str) -> Look:
    """Return a method's look; methods that are not the paper's share the colours left over."""
    if method in METHODS:
        return METHODS[method]
    return _OTHERS[sum(method.encode()) % len(_OTHERS)]


def by_method(methods: Iterable[str]) -> list[str]:
    """Return names of methods in the order of `METHODS`, others behind them by name."""
    return in_order(methods, METHODS)


def drawing() -> AbstractContextManager[None]:
    """Return a context in which matplotlib's settings are ours."""
    return matplotlib.rc_context(_RC)


def drawn(function: Callable[_Args, Canvas]) -> Callable[_Args, Canvas]:
    """Let a figure function run with our settings (see `drawing`)."""

    @functools.wraps(function)
    def styled(*args: _Args.args, **kwargs: _Args.kwargs) -> Canvas:
        with drawing():
            return function(*args, **kwargs)

    return styled


def canvas(height_cm: float, width_cm: float = WIDTH_CM) -> Canvas:
    """Return an empty figure of this size."""
    figure = Canvas(figsize=(width_cm / 2.54, height_cm / 2.54), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def axes(height_cm: float) -> tuple[Canvas, Axes]:
    """Return a figure of this size with one pair of axes."""
    figure = canvas(height_cm)
    return figure, figure.add_subplot()


def rows(ax: Axes, labels: Sequence[str]) -> None:
    """Let y be rows, the first on top, and x a number with a line at 0."""
    ax.axvline(0, color=GREY, lw=0.7, zorder=1)
    ax.grid(axis="x")
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def title(figure: Canvas, text: str) -> None:
    """Write the title over the whole width, from the left, in as many lines as it takes.

    A figure that has a title already grows by the lines that the new one has more.
    """
    letters = int(figure.get_figwidth() * 2.54 * 6.6)
    lines = textwrap.fill(text, letters)
    before = figure.get_suptitle()
    if before:
        more = lines.count("\n") - before.count("\n")
        figure.set_figheight(figure.get_figheight() + more * _TITLE_CM / 2.54)
    figure.suptitle(lines, x=0.01, ha="left", fontsize=7.0, fontweight="bold")


def legend(figure: Canvas, handles: list[Artist], columns: int = 3) -> None:
    """Put one legend below the axes."""
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def method_handle(method: str, *, line: bool = False) -> Line2D:
    """Return the legend's entry of a method."""
    shown, width = look(method), 1.0 if line else 0.0
    return Line2D(
        [], [], color=shown.color, marker=shown.marker, label=method_label(method), lw=width
    )


def missing_handle() -> Line2D:
    """Return the legend's entry of values that are missing (see `mark_missing`)."""
    return Line2D([], [], color=GREY, marker="$?$", lw=0, ms=4, label="no value")


def shade(share: float) -> tuple[str, str]:
    """Return the colour of a place on the scale of scores, in [0, 1], and the ink to write on it.

    Numbers outside are drawn as the nearest end.
    """
    red, green, blue, _ = matplotlib.colormaps[SEQUENTIAL](min(max(share, 0.0), 1.0))
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    return to_hex((red, green, blue)), BLACK if light > 0.5 else "#ffffff"


def published_handle() -> Line2D:
    """Return the legend's entry of numbers that the paper prints."""
    return Line2D([], [], color=GREY, marker="o", mfc="white", lw=0.8, ls=":", label="published")


def mark_missing(ax: Axes, position: float, color: str, *, along: str) -> None:
    """Put a question mark on the edge of the axes at a position on the axis `along`: no value."""
    upright = along == "y"
    ax.annotate(
        "?",
        (0.0, position) if upright else (position, 0.0),
        xycoords=ax.get_yaxis_transform() if upright else ax.get_xaxis_transform(),
        xytext=(4, 0) if upright else (0, 4),
        textcoords="offset points",
        ha="center",
        va="center",
        color=color,
        fontsize=SMALL,
        fontweight="bold",
        gid="missing",
    )


def save(figure: Canvas, out: Path, name: str) -> tuple[Path, Path]:
    """Write ``out/name.svg`` and ``out/name.png``; return both paths."""
    out.mkdir(parents=True, exist_ok=True)
    svg, png = out / f"{name}.svg", out / f"{name}.png"
    with drawing():
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
        figure.savefig(png, dpi=DPI, metadata={"Software": None})
    return svg, png
