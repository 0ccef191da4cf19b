"""Searches: every point of a method's search, best first."""

from __future__ import annotations

import math

from analysis.cells import Cell
from analysis.lookup import Lookup
from analysis.names import method_label, partition_label
from analysis.table import Row, Table, number, quantity, text

_NO_SETTING = "method"
_RANK_COLUMNS = ("ARG %", "median RG %", "upstream samples")


def search_tables(look: Lookup) -> list[Table]:
    """Return one ranking for each search: (backbone, gym, partition, method)."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in look.study.select(role="validation"):
        place = cell.place
        groups.setdefault((place.backbone, place.gym, place.partition, place.method), []).append(
            cell
        )
    return [_ranking(look, n, cells) for n, cells in enumerate(groups.values(), start=1)]


def _ranking(look: Lookup, at: int, cells: list[Cell]) -> Table:
    place = cells[0].place
    settings = searched_settings(cells)
    ordered = sorted(
        cells, key=lambda cell: (_order(look, cell), cell.trajectory or "", cell.steps)
    )
    return Table(
        name=f"search-{at}",
        title=f"Search of {method_label(place.method)} on {partition_label(place.partition)}: "
        f"validation tasks ({place.backbone}, gym {place.gym})",
        columns=("rank", *settings, "steps", *_RANK_COLUMNS),
        rows=tuple(_row(look, rank, cell, settings) for rank, cell in enumerate(ordered, start=1)),
        notes=(f"{len(cells)} points; settings that all of them share are on their pages.",),
    )


def searched_settings(cells: list[Cell]) -> list[str]:
    """Return the names of the settings that differ between points, in the record's order."""
    names = dict.fromkeys(name for cell in cells for name in cell.config)
    return [
        name
        for name in names
        if name != _NO_SETTING and len({repr(cell.config.get(name)) for cell in cells}) > 1
    ]


def _order(look: Lookup, cell: Cell) -> tuple[bool, bool, float]:
    """Whole ARGs first, the best in front; points without any at the end."""
    summary = look.summary(cell)
    value = None if summary is None else summary.value
    whole = summary is not None and summary.whole and cell.status == "ok"
    return value is None, not whole, math.inf if value is None else -value


def _row(look: Lookup, rank: int, cell: Cell, settings: list[str]) -> Row:
    summary = look.summary(cell)
    median = None if summary is None else summary.gain.median_of_defined
    return (
        text(rank),
        *(text(_setting(cell.config.get(name))) for name in settings),
        text(cell.steps),
        look.table_cell(cell),
        number(median),
        quantity(cell.cost["examples"]),
    )


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
