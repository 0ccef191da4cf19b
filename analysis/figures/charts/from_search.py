"""Validation cells → the searches they are points of, and each search's winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...results.cells import Cell, Place
from ...results.names import method_label, partition_label
from .data import Search, SearchPoint
from .from_cells import arg_of, short_backbone

_ORDER = ("inner_lr", "outer_lr", "inner_steps", "batch_size", "items_per_step", "dropout")


def searches(cells: Sequence[Cell]) -> dict[Place, Search]:
    """Return place → search; the points of one search share everything but their settings.

    A point's settings are the numbers of its configuration that differ within the search, and its
    steps.
    """
    groups: dict[Place, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.place, []).append(cell)
    return {place: _search(place, group) for place, group in groups.items()}


def _search(place: Place, cells: Sequence[Cell]) -> Search:
    names = _varied(cells)
    points = tuple(
        SearchPoint(
            settings={**{n: float(cell.config[n]) for n in names}, "steps": float(cell.steps)},
            score=arg_of(cell),
            trajectory=cell.line,
            key=cell.key,
        )
        for cell in cells
    )
    label = f"{method_label(place.method)}, {partition_label(place.partition)}"
    return Search(title=f"{label}, {short_backbone(place.backbone)}", points=points)


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


def winners(cells: Sequence[Cell]) -> Mapping[Place, Cell]:
    """Return the best point of each search; on a tie the first. A search without one is absent."""
    best: dict[Place, tuple[float, Cell]] = {}
    for cell in cells:
        value = arg_of(cell).value
        if value is not None and (cell.place not in best or value > best[cell.place][0]):
            best[cell.place] = (value, cell)
    return {place: cell for place, (_, cell) in best.items()}
