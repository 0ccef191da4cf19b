"""Finds the cell that belongs in a place of a table, and says everything about it in one cell."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Sequence

from mpt.errors import DataError

from ..results.cells import OWN, Cell, Place
from ..results.names import META, METHODS, PARTITION_LABELS, paper_backbone
from ..results.reading import Study
from ..results.summary import Summary, summary_of, task_gain
from .arg import arg_cell
from .table import TableCell

_PILOT = re.compile(r"(highest|random|lowest)[-_]?(\d*)(\W.*)?")
"""Source sets of Table 8, as in "highest5" or "highest5:samsum"; the rest are sizes of Table 4."""


class Lookup:
    """The cells of one study by place, with their summaries.

    Args:
        study: what the records say.
        backbone: the one of the tables that show a single model; None chooses T5-large if it was
            run, or else the model with most cells (the first by name on ties).
        gym: the same for the gym.
    """

    def __init__(self, study: Study, backbone: str | None = None, gym: str | None = None) -> None:
        self.study = study
        chosen = _main(study, backbone, gym)
        self.backbone, self.gym = chosen
        self._summaries: dict[tuple[str, str | None], Summary | None] = {}
        self._cells: dict[Place, list[Cell]] = {}
        for cell in study.cells:
            self._cells.setdefault(cell.place, []).append(cell)

    @property
    def about(self) -> str:
        """Backbone and gym of the tables that show one of each, for a title."""
        return about(self.backbone, self.gym)

    def cell(self, method: str, partition: str, **place: str) -> Cell | None:
        """Return the target cell of a method on a partition, or None if none is recorded.

        Args:
            method: row.
            partition: column.
            **place: other fields of `Place` than those of the plain replay.

        Raises:
            DataError: several records claim the place.
        """
        where = dataclasses.replace(
            Place(
                role="target",
                backbone=self.backbone,
                gym=self.gym,
                partition=partition,
                method=method,
            ),
            **place,
        )
        found = self._cells.get(where, [])
        if len(found) > 1:
            points = self.study.results / "points"
            names = " and ".join(str(points / f"{cell.key}.json") for cell in found[:2])
            raise DataError(f"{names}: both are {where}; move one of them out of points/")
        return found[0] if found else None

    def shared_cell(self, method: str, partition: str, **place: str) -> Cell | None:
        """Return the fine-tuning cell of another partition with the same target tasks, or None.

        Fine-tuning learns from no source task, so one result serves all of these partitions.
        """
        if method != "fine_tuning":
            return None
        asked = self._targets(partition, **place)
        for other in PARTITION_LABELS:
            cell = self.cell(method, other, **place)
            if cell is not None and asked and set(cell.tasks) == asked:
                return cell
        return None

    def _targets(self, partition: str, **place: str) -> set[str]:
        cells = [self.cell(method, partition, **place) for method in METHODS]
        return next((set(cell.tasks) for cell in cells if cell is not None and cell.tasks), set())

    def summary(self, cell: Cell, task: str | None = None) -> Summary | None:
        """Return the summary of a cell, or of one task of it."""
        at = (cell.key, task)
        if at not in self._summaries:
            self._summaries[at] = summary_of(cell, None if task is None else [task])
        return self._summaries[at]

    def show(self, method: str, partition: str, **place: str) -> TableCell:
        """Return the table cell of a method on a partition."""
        cell = self.cell(method, partition, **place)
        if cell is not None:
            return self.table_cell(cell)
        shared = self.shared_cell(method, partition, **place)
        return TableCell() if shared is None else self.table_cell(shared, ("same_targets",))

    def table_cell(
        self, cell: Cell, flags: Sequence[str] = (), task: str | None = None
    ) -> TableCell:
        """Return what a table shows of a cell: ARG (or the RG of one task), leaves, flags."""
        flags = (*flags, *status_flags(cell))
        link = page_of(cell)
        summary = self.summary(cell, task)
        if summary is None:
            return TableCell(flags=flags, link=link)
        done, of = cell.leaves if task is None else cell.leaves_of(task)
        return arg_cell(summary, done=done, of=of, more_flags=flags, link=link)

    def targets(self, **place: str) -> list[Cell]:
        """Return the target cells of the tables' backbone and gym, at places like this."""
        where = {"backbone": self.backbone, "gym": self.gym, **place}
        return self.study.select(role="target", **where)

    def best_meta(self, partition: str) -> Cell | None:
        """Return the meta-learning cell of the highest ARG on a partition (the paper's MPT)."""
        best: tuple[float, Cell] | None = None
        for method in META:
            cell = self.cell(method, partition)
            value = None if cell is None else self.rank_value(cell)
            if cell is not None and value is not None and (best is None or value > best[0]):
                best = (value, cell)
        return None if best is None else best[1]

    def rank_value(self, cell: Cell) -> float | None:
        """Return the ARG in % that a cell is ranked by; None if it cannot be compared."""
        summary = self.summary(cell)
        comparable = summary is not None and summary.comparable and cell.status == "ok"
        return summary.value if summary is not None and comparable else None

    def gain(self, cell: Cell, task: str) -> float | None:
        """Return the relative gain on one task of a cell in %, or None."""
        summary = self.summary(cell, task)
        found = None if summary is None else task_gain(summary, task)
        return None if found is None or found.gain is None else 100 * found.gain


def about(backbone: str, gym: str) -> str:
    """Return backbone and gym for a title; of a folder the last part is enough."""
    names = (name.rstrip("/").rsplit("/", 1)[-1] for name in (backbone, gym))
    return ", gym ".join(names)


def page_of(cell: Cell) -> str:
    """Return the address of a cell's page, relative to the report."""
    return f"cells/{cell.key}.html"


def status_flags(cell: Cell) -> tuple[str, ...]:
    """Return the flags that a record's own fields ask for."""
    flags = [cell.status] if cell.status in ("diverged", "stopped") else []
    return tuple(flags + (["partial"] if cell.partial is not None else []))


def pilot_choice(cell: Cell) -> str | None:
    """Return how a cell of Table 8 chose its sources, as in "highest5"; None of other cells."""
    found = _PILOT.fullmatch(cell.place.source_set)
    return None if found is None else f"{found[1]}{found[2]}"


def is_plain(cell: Cell) -> bool:
    """Return whether a cell is of the plain replay: all sources, the tasks' own sample sizes."""
    place = cell.place
    return (place.source_set, place.source_shots, place.target_shots) == ("all", OWN, OWN)


def _main(study: Study, backbone: str | None, gym: str | None) -> tuple[str, str]:
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    for cell in study.cells:
        place = cell.place
        if backbone in (None, place.backbone) and gym in (None, place.gym):
            # one target cell outweighs any search
            weight = 1_000_000 if place.role == "target" else 1
            count[place.backbone, place.gym] += weight
    if not count:
        return backbone or "", gym or ""
    return min(
        count,
        key=lambda pair: (paper_backbone(pair[0]) != "T5-large", -count[pair], pair),
    )
