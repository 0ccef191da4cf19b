"""What a figure shows, read back from its artists by the ids that the figure functions give."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text


def with_id(figure: Figure, gid: str) -> list[Artist]:
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def points(figure: Figure, gid: str) -> list[tuple[float, float]]:
    """The places (x, y) of all lines of this id, in order."""
    found = [line.get_xydata() for line in with_id(figure, gid) if isinstance(line, Line2D)]
    return [(float(x), float(y)) for line in found for x, y in np.asarray(line)]


def segments(figure: Figure, gid: str) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The ends of all segments of this id."""
    lines = [line for line in with_id(figure, gid) if isinstance(line, LineCollection)]
    ends = [
        np.asarray(part, dtype=float).tolist() for line in lines for part in line.get_segments()
    ]
    return [((a[0], a[1]), (b[0], b[1])) for a, b in ends]


def texts(figure: Figure, gid: str) -> list[str]:
    return [text.get_text() for text in with_id(figure, gid) if isinstance(text, Text)]


def places(figure: Figure, gid: str) -> list[tuple[float, float]]:
    """Where the annotations of this id point at."""
    return [tuple(text.xy) for text in with_id(figure, gid)]  # type: ignore[attr-defined]


def labels(ax: Axes, axis: str) -> list[str]:
    ticks = ax.get_yticklabels() if axis == "y" else ax.get_xticklabels()
    return [tick.get_text() for tick in ticks]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for shown in figure.legends for text in shown.get_texts()]
