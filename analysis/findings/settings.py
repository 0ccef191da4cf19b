"""Settings with their methods: what of a section may be compared, by method and upstream seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..results.cells import Cell, Place
from ..results.names import (
    METHODS,
    PARTITION_LABELS,
    UNTRAINED,
    in_order,
    paper_backbone,
    partition_label,
    rank,
)
from ..results.protocols import scored_alike
from ..results.searched import without_seed
from ..results.sections import Section

Replicates = Mapping[int, Cell]
"""Upstream seed → cell of one configuration; a method without upstream learning has one."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One place (backbone, partition, sample sizes, sources) with every method that has scores."""

    place: Place
    """Its `method` is empty."""
    methods: Mapping[str, Replicates]
    """In the order of the paper."""

    @property
    def label(self) -> str:
        """Partition and backbone, as sentences name them."""
        edition = f" [{self.place.edition}]" if self.place.edition else ""
        return f"{partition_label(self.place.partition)}{edition}"

    @property
    def learned(self) -> list[str]:
        """Methods that learn something upstream; the untrained start is none of them."""
        return [n for n, cells in self.methods.items() if learns(cells) and n != UNTRAINED]


def learns(cells: Replicates) -> bool:
    """Return whether a method has learned something upstream."""
    return any(cell.steps > 0 for cell in cells.values())


def shared_seeds(one: Replicates, other: Replicates) -> tuple[Replicates, Replicates]:
    """Return two configurations at the upstream seeds that both have."""
    both = [seed for seed in one if seed in other]
    return {seed: one[seed] for seed in both}, {seed: other[seed] for seed in both}


def target_settings(section: Section) -> list[Setting]:
    """Return every place of target tasks, in the order of the paper's partitions.

    Of a method with several configurations the newest counts, as in the tables; its upstream
    seeds are replicates. A method that learns nothing upstream counts at every place with the
    same scored data.
    """
    entries = section.select(role="target")
    scored = [cell for entry in entries for cell in entry.points if cell.status == "ok"]
    places: dict[Place, list[Cell]] = {}
    for cell in scored:
        places.setdefault(dataclasses.replace(cell.place, method=""), []).append(cell)
    settings = [
        Setting(
            place=setting_place, methods=_methods([*cells, *_shared(setting_place, cells, scored)])
        )
        for setting_place, cells in places.items()
    ]
    return sorted(
        settings, key=lambda one: (rank(one.place.partition, PARTITION_LABELS), one.place)
    )


def _shared(setting_place: Place, own: Sequence[Cell], scored: Sequence[Cell]) -> list[Cell]:
    """Return cells without upstream learning of other places that were scored on this data."""
    known = {cell.place.method for cell in own}
    by_method: dict[str, Cell] = {}
    for cell in scored:
        same = cell.place.backbone == setting_place.backbone and scored_alike(
            cell.study, own[0].study
        )
        if cell.steps == 0 and same and cell.place.method not in known:
            by_method.setdefault(cell.place.method, cell)
    return list(by_method.values())


def _methods(cells: Sequence[Cell]) -> dict[str, Replicates]:
    """Return method → upstream seed → cell, of the newest configuration of each."""
    newest = {cell.place.method: cell for cell in cells if " " not in cell.place.method}
    by_method: dict[str, dict[int, Cell]] = {}
    for cell in cells:
        name = cell.place.method.partition(" ")[0]
        first = newest.get(name)
        if first is None or not _replicate(cell, first) or not cell.tasks:
            continue
        by_method.setdefault(name, {}).setdefault(cell.upstream_seed, cell)
    return {name: by_method[name] for name in in_order(by_method, METHODS)}


def _replicate(cell: Cell, other: Cell) -> bool:
    same = without_seed(cell.config) == without_seed(other.config)
    return cell.key == other.key or (same and cell.steps == other.steps)


def main_backbone(settings: Sequence[Setting], wanted: str = "") -> str:
    """Return the backbone of most settings; the paper's main one, or `wanted`, if it is there."""
    names = [one.place.backbone for one in settings]
    if wanted in names:
        return wanted
    return min(
        set(names),
        key=lambda name: (paper_backbone(name) != "T5-large", -names.count(name), name),
        default="",
    )
