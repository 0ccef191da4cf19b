"""Every figure that a section has data for; the others are named with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..results.cells import Cell
from ..results.names import PARTITION_LABELS, in_order
from ..results.sections import Section
from .charts.from_cells import short_backbone
from .drawing import style
from .figure import Figure, slug
from .search_plans import validation_plans
from .setting_plans import setting_plans
from .sweep_plans import sweep_plans


def all_figures(section: Section, out: Path, suffix: str = "") -> list[Figure]:
    """Draw every figure that a section has data for; each file says what it is of.

    `suffix` ends the names of the files, behind a hyphen.

    Returns:
        The figures in the order of the paper, then those of the searches; what has no data is in
        its place with the reason.
    """
    figures = []
    for figure in _figures(section):
        if suffix:
            figure = replace(figure, name=f"{figure.name}-{suffix}")
        if figure.canvas is not None:
            style.title(figure.canvas, f"{figure.title} – {section.label}")
            svg, _ = style.save(figure.canvas, out, figure.name)
            figure = replace(figure, canvas=None, svg=svg)
        figures.append(figure)
    return figures


def _figures(section: Section) -> Iterator[Figure]:
    target, validation = section.select(role="target"), section.select(role="validation")
    homes = _homes(section.cells)
    partitions = in_order(
        {*PARTITION_LABELS, *(cell.place.partition for cell in target)}, PARTITION_LABELS
    )
    for home in homes:
        yield from sweep_plans([c for c in target if _home(c) == home], _suffix(home, homes))
    for home in homes:
        for partition in partitions:
            cells = [cell for cell in target if _home(cell) == home]
            yield from setting_plans(section, partition, cells, _suffix(home, homes))
    for home in homes:
        cells = [c for c in validation if _home(c) == home]
        if not cells and home == homes[0]:
            yield Figure(
                name="search", title="Search", missing="no point of a search is recorded here"
            )
        yield from validation_plans(section, cells, _suffix(home, homes))


Home = tuple[str, str]
"""Backbone and edition (`results.cells.Place`)."""


def _home(cell: Cell) -> Home:
    return cell.place.backbone, cell.place.edition


def _homes(cells: Sequence[Cell]) -> list[Home]:
    """Return backbones with their editions, the one with most cells first."""
    homes = [_home(cell) for cell in cells]
    return sorted(set(homes), key=lambda home: (-homes.count(home), home))


def _suffix(home: Home, homes: Sequence[Home]) -> str:
    """Return what is put behind the file names of a backbone; nothing for the first one."""
    if home == homes[0]:
        return ""
    backbone, edition = home
    names = {name for name, _ in homes if short_backbone(name) == short_backbone(backbone)}
    number = f"-{sorted(names).index(backbone)}" if len(names) > 1 else ""
    return f"-{slug(short_backbone(backbone))}{number}" + (f"-{edition}" if edition else "")
