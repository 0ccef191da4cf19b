"""A figure, and words that captions share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..results.cells import Cell, Place
from ..results.names import method_label, rank
from .charts.data import Estimate
from .drawing.style import METHODS, Canvas
from .interactive.frame import Plot

DOT = "Dot: mean over data seeds; line: 95 % bootstrap interval over data seeds."
NAMED = 12
"""Missing values that a caption names; of more it says how many."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure, or the reason why there is none."""

    name: str
    """File name without ending."""
    title: str
    caption: str = ""
    """What is drawn, and what is missing in it; plain text."""
    missing: str = ""
    """Why there is none; empty if there is one."""
    canvas: Canvas | None = None
    """What is to be printed; None once it is a file."""
    svg: Path | None = None
    """Its file; a PNG lies beside it."""
    plot: Plot | None = None
    """The same as an interactive figure; None if there is none."""
    place: Place | None = None
    """Of a search's figures: where its points stand."""
    backbone: str | None = None
    row: str | None = None
    """Label of the setting of `backbone` whose rows of Table 2 it stands beside, if any."""

    @property
    def anchor(self) -> str:
        """Its id on a page."""
        return f"picture-{self.name}"

    @property
    def drawn(self) -> bool:
        """Whether there is anything to be seen."""
        return self.svg is not None or self.plot is not None

    @property
    def address(self) -> str | None:
        """Of its file, from the page; None if it has none."""
        return None if self.svg is None else f"figures/{quote(self.svg.name)}"


def slug(text: str) -> str:
    """Return a text as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def lacks(what: Sequence[str]) -> str:
    """Return the end of a caption that names what has no value; empty if there is nothing."""
    if not what:
        return ""
    more = f"; and {len(what) - NAMED} more" if len(what) > NAMED else ""
    return f" No value: {'; '.join(what[:NAMED])}{more}."


def beside(notes: Iterable[str]) -> str:
    """Return the end of a caption that says what must be known beside its numbers, each once."""
    distinct = list(dict.fromkeys(note for note in notes if note))
    return f" Note: {'; '.join(distinct)}." if distinct else ""


def noted(
    series: Mapping[str, Sequence[Estimate]], labels: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return why values are missing, and what must be known beside the others.

    Args:
        series: method → an estimate for each label.
        labels: with their preposition ("at 32").
    """
    missing: list[str] = []
    known: list[str] = []
    for method, row in series.items():
        for label, one in zip(labels, row, strict=True):
            if one.note:
                where = missing if one.value is None else known
                where.append(f"{method_label(method)} {label}: {one.note}")
    return missing, known


def partial_notes(cells: Iterable[Cell]) -> list[str]:
    """Return what cells say that left something out, or are means over upstream seeds."""
    partial: dict[str, list[str]] = {}
    means: dict[str, list[str]] = {}
    for cell in cells:
        label, points = method_label(cell.place.method), len(cell.points)
        if cell.study.partial:
            partial.setdefault(cell.study.partial.removeprefix("partial: "), []).append(label)
        if points > 1:
            mean = f"the mean over {points} upstream seeds (a learning curve is of one)"
            means.setdefault(mean, []).append(label)
    return [
        f"{_subject(labels)} {text}"
        for texts in ({f"partial: {text}": who for text, who in partial.items()}, means)
        for text, labels in texts.items()
    ]


def _subject(labels: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(labels))
    return f"{', '.join(distinct)} {'is' if len(distinct) == 1 else 'are'}"


def by_method(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return cells in the order of their methods in the paper's tables."""
    return tuple(sorted(cells, key=lambda cell: rank(cell.place.method, METHODS)[0]))
