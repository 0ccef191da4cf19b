"""A search as a figure has it: its points with the scores that it ranks them by."""

from __future__ import annotations

from collections.abc import Sequence

from ...results.cells import Cell
from ...results.names import method_label, partition_label
from ...results.searched import Searched
from .data import Estimate, Search, SearchPoint
from .from_cells import arg_of, short_backbone

_ORDER = ("inner_lr", "outer_lr", "inner_steps", "batch_size", "items_per_step", "dropout")


def search_of(searched: Searched) -> Search:
    """Return a search's points, with the scores that it ranks them by.

    A point's settings are the numbers of its configuration that differ within the search, and its
    steps.
    """
    cells, search_place = searched.cells, searched.cells[0].place
    names = _varied(cells)
    points = tuple(
        SearchPoint(
            settings={**{n: float(cell.config[n]) for n in names}, "steps": float(cell.steps)},
            score=score_of(searched, cell),
            trajectory=cell.line,
            key=cell.key,
        )
        for cell in cells
    )
    label = f"{method_label(search_place.method)}, {partition_label(search_place.partition)}"
    leader = searched.leader
    return Search(
        title=f"{label}, {short_backbone(search_place.backbone)}",
        points=points,
        leader="" if leader is None else leader.key,
    )


def score_of(searched: Searched, cell: Cell) -> Estimate:
    """Return the ARG in % that a search ranks a configuration by, with its interval.

    That is the mean over the upstream seeds of the choice, with the interval of the expected ARG.
    With one upstream seed the interval is over data seeds.
    """
    compared, summary = searched.compared(cell), searched.summary(cell)
    estimate = arg_of(compared)
    if summary is None or compared.status != "ok" or not searched.replicated:
        return estimate
    return Estimate.of(summary.arg, summary.expected, estimate.note)


def _varied(cells: Sequence[Cell]) -> list[str]:
    """Return the settings, numbers in every cell, that have more than one value."""
    first = cells[0].config
    known = [*_ORDER, *(name for name in first if name not in _ORDER)]
    return [
        name
        for name in known
        if name in first
        and name != "seed"  # of replicates: a cell is the mean over them
        and all(_is_number(cell.config.get(name)) for cell in cells)
        and len({cell.config[name] for cell in cells}) > 1
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def unshown(cells: Sequence[Cell]) -> list[str]:
    """Return settings that differ between the points of a search but are no numbers."""
    names = {name for cell in cells for name in cell.config} - {"seed"}
    return sorted(
        name
        for name in names
        if len({repr(cell.config.get(name)) for cell in cells}) > 1
        and not all(_is_number(cell.config.get(name)) for cell in cells)
    )
