"""Every figure that a results directory has data for; the others are named with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mpt.gym.catalogue import PARTITIONS

from ..results.cells import Cell
from ..results.reading import Study, load_study
from .charts.from_cells import short_backbone
from .drawing import style
from .plan import Plan, slug
from .search_plans import validation_plans
from .setting_plans import setting_plans
from .sweep_plans import sweep_plans


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure on disk, or the reason why it is not there."""

    name: str
    """File name without ending."""
    title: str
    caption: str
    """What is drawn, and what is missing in it; plain text."""
    svg: Path | None = None
    """None if the figure is missing."""
    png: Path | None = None
    """The same."""
    missing: str = ""
    """Why the figure is missing; empty if it is there."""


def all_figures(results: Path | Study, out: Path) -> list[Figure]:
    """Draw every figure that the records have data for.

    Args:
        results: a results directory, or what `load_study` made of it.
        out: directory of the files; it is created.

    Returns:
        The figures in the order of the paper, then those of the searches; what has no data is in
        its place with the reason.

    Raises:
        UsageError: there is no such directory.
        DataError: it holds no point record, or contradictory ones.
    """
    study = results if isinstance(results, Study) else load_study(results)
    figures = []
    for plan in _plans(study):
        figure = Figure(
            name=plan.name, title=plan.title, caption=plan.caption, missing=plan.missing
        )
        if plan.draw is not None:
            svg, png = style.save(plan.draw(), out, plan.name)
            figure = replace(figure, svg=svg, png=png)
        figures.append(figure)
    return figures


def _plans(study: Study) -> Iterator[Plan]:
    target = [cell for cell in study.cells if cell.place.role == "target"]
    validation = [cell for cell in study.cells if cell.place.role == "validation"]
    homes = _homes(study.cells)
    for home in homes:
        yield from sweep_plans([c for c in target if _home(c) == home], _suffix(home, homes))
    for home in homes:
        for partition in PARTITIONS:
            cells = [cell for cell in target if _home(cell) == home]
            yield from setting_plans(study, home, partition, cells, _suffix(home, homes))
    for home in homes:
        cells = [c for c in validation if _home(c) == home]
        if not cells and home == homes[0]:
            yield Plan(
                name="search", title="Search", missing="no point of a search is recorded here"
            )
        yield from validation_plans(study, home, cells, _suffix(home, homes))


Home = tuple[str, str]
"""Backbone and gym."""


def _home(cell: Cell) -> Home:
    return cell.place.backbone, cell.place.gym


def _homes(cells: Sequence[Cell]) -> list[Home]:
    """Return backbones with their gyms, the one with most cells first."""
    found = [_home(cell) for cell in cells]
    return sorted(set(found), key=lambda home: (-found.count(home), home))


def _suffix(home: Home, homes: Sequence[Home]) -> str:
    """Return what is put behind the file names of a backbone; nothing for the first one."""
    if home == homes[0]:
        return ""
    same = [other for other in homes if short_backbone(other[0]) == short_backbone(home[0])]
    number = f"-{homes.index(home)}" if len(same) > 1 else ""
    return f"-{slug(short_backbone(home[0]))}{number}"
