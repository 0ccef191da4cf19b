"""Finds the cell that belongs in a place of a table, and says everything about it in one cell."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Collection, Sequence

from ..results.cells import PLAIN, Cell, Place
from ..results.names import META, METHODS, PARTITION_LABELS, gym_label, in_order, paper_backbone
from ..results.names import partition_label as label_of
from ..results.protocols import scored_alike
from ..results.sections import Section
from ..results.summary import Summary, summary_of
from .arg import arg_cell
from .table import TableCell

_PILOT = re.compile(r"(highest|random|lowest)[-_]?(\d*)(\W.*)?")
"""Source sets of Table 8, as in "highest5" or "highest5-samsum"; the rest are sizes of Table 4."""
_BY_INPUTS = "-by_inputs"
"""End of the source sets that were ranked by inputs and not, as in the paper, by prompts."""


class Lookup:
    """The cells of one section by place, with their summaries.

    Args:
        section: what the database says.
        backbone: the one of the tables that show a single model; None chooses T5-large if it was
            run, or else the model with most cells (the first by name on ties).
    """

    def __init__(self, section: Section, backbone: str | None = None) -> None:
        self.section = section
        self.gym = section.gym
        self.backbone = _main(section, backbone)
        self._summaries: dict[tuple[tuple[str, ...], str | None], Summary | None] = {}
        self._cells = {cell.place: cell for cell in section.cells if cell.place.role == "target"}

    @property
    def about(self) -> str:
        """Backbone and gym of the tables that show one of each, for a title."""
        return about(self.backbone, self.gym)

    @property
    def methods(self) -> list[str]:
        """Methods: the known ones in the paper's order, then every other that was recorded."""
        recorded = {cell.place.method for cell in self.section.cells}
        return in_order({*METHODS, *recorded}, METHODS)

    @property
    def upstream_methods(self) -> list[str]:
        """Those of `methods` that learn something upstream, as far as is known."""
        steps = collections.Counter[str]()
        for cell in self.section.cells:
            steps[cell.place.method] += cell.steps
        idle = {"fine_tuning", *(method for method, total in steps.items() if total == 0)}
        return [method for method in self.methods if method not in idle]

    def editions(self, partition: str, **fields: str) -> list[str]:
        """Return the editions of a target column, see `Place.edition`; one empty text if none.

        Args:
            partition: of the column.
            **fields: other fields of its places than those of the plain replay.
        """
        cells = self.targets(**{**PLAIN, "partition": partition, **fields})
        return sorted({cell.place.edition for cell in cells}) or [""]

    def columns(self, partitions: Collection[str]) -> list[tuple[str, str]]:
        """Return (partition, edition) of the plain replay, in the paper's order."""
        ordered = in_order(partitions, PARTITION_LABELS)
        return [(name, edition) for name in ordered for edition in self.editions(name)]

    def cell(self, method: str, partition: str, **fields: str) -> Cell | None:
        """Return the target cell of a method on a partition, or None if none is recorded.

        Args:
            method: row.
            partition: column.
            **fields: other fields of `Place` than those of the plain replay.
        """
        where = Place(
            role="target",
            backbone=self.backbone,
            gym=self.gym,
            partition=partition,
            method=method,
        )
        return self._cells.get(dataclasses.replace(where, **fields))

    def shared_cell(self, method: str, partition: str, **fields: str) -> Cell | None:
        """Return the cell of another partition that was scored on the same data, or None.

        A method that learns nothing upstream learns from no source task, so one result serves all
        partitions with the same target tasks.
        """
        row = (self.cell(name, partition, **fields) for name in self.methods)
        asked = next((cell.study for cell in row if cell is not None), None)
        if asked is None:
            return None
        same = {"backbone": self.backbone, **fields, "edition": ""}
        return next(
            (
                cell
                for other in PARTITION_LABELS
                if (cell := self.cell(method, other, **same)) is not None
                and cell.steps == 0
                and scored_alike(cell.study, asked)
            ),
            None,
        )

    def summary(self, cell: Cell, task: str | None = None) -> Summary | None:
        """Return the summary of a cell, or of one task of it."""
        at = (tuple(point.key for point in cell.points), task)
        if at not in self._summaries:
            self._summaries[at] = summary_of(cell, None if task is None else [task])
        return self._summaries[at]

    def show(self, method: str, partition: str, **fields: str) -> TableCell:
        """Return the table cell of a method on a partition."""
        cell = self.cell(method, partition, **fields)
        if cell is not None:
            return self.table_cell(cell)
        shared = self.shared_cell(method, partition, **fields)
        return TableCell() if shared is None else self.table_cell(shared, ("same_targets",))

    def table_cell(
        self, cell: Cell, flags: Sequence[str] = (), task: str | None = None
    ) -> TableCell:
        """Return what a table shows of a cell: ARG (or the RG of one task), runs, flags."""
        flags = (*flags, *status_flags(cell))
        link = page_of(cell)
        summary = self.summary(cell, task)
        if summary is None:
            return TableCell(flags=flags, link=link)
        done, of = cell.counts if task is None else cell.counts_of(task)
        return arg_cell(summary, done=done, of=of, more_flags=flags, link=link)

    def targets(self, **fields: str) -> list[Cell]:
        """Return the target cells of the tables' backbone, at places like this."""
        return self.section.select(role="target", **{"backbone": self.backbone, **fields})

    def best(
        self, partition: str, methods: Collection[str] = META, edition: str = ""
    ) -> Cell | None:
        """Return the plain target cell of the highest ARG of some methods on a partition."""
        cells = (self.cell(method, partition, edition=edition) for method in methods)
        ranked = [
            (value, cell)
            for cell in cells
            if cell is not None and (value := self.rank_value(cell)) is not None
        ]
        return max(ranked, key=lambda one: one[0])[1] if ranked else None

    def rank_value(self, cell: Cell) -> float | None:
        """Return the ARG in % that a cell is ranked by; None if it cannot be compared."""
        summary = self.summary(cell)
        if summary is None or summary.lacking or cell.status != "ok":
            return None
        return summary.value


def about(backbone: str, gym: str) -> str:
    """Return backbone and gym for a title; of a folder the last part is enough."""
    return f"{backbone.rstrip('/').rsplit('/', 1)[-1]}, {gym_label(gym)}"


def with_edition(name: str, edition: str) -> str:
    """Return the name of a row or column with the study that it is of, where several claim it."""
    return f"{name} [{edition}]" if edition else name


def column_label(column: tuple[str, str]) -> str:
    """Return the label of a (partition, edition)."""
    return with_edition(label_of(column[0]), column[1])


def page_of(cell: Cell) -> str:
    """Return the address of a cell's page, relative to the report."""
    return f"cells/{cell.key}.html"


def status_flags(cell: Cell) -> tuple[str, ...]:
    """Return the flags that a record's own fields ask for."""
    statuses = {point.status for point in cell.points}
    flags = [str(status) for status in ("diverged", "stopped") if status in statuses]
    flags += ["partial"] if cell.study.partial is not None else []
    return (*flags, *(["smoke"] if cell.study.smoke else []))


def pilot_choice(cell: Cell) -> str | None:
    """Return how a cell of Table 8 chose its sources; None of other cells.

    That is "highest5", or "highest5, by inputs" where they were not ranked by tuned prompts.
    """
    match = _PILOT.fullmatch(cell.place.source_set)
    if match is None:
        return None
    by = ", by inputs" if cell.place.source_set.endswith(_BY_INPUTS) else ""
    return f"{match[1]}{match[2]}{by}"


def ranked_by(cell: Cell) -> str:
    """Return what a cell of Table 8 ranked its sources by, "prompts" or "inputs"."""
    return "inputs" if cell.place.source_set.endswith(_BY_INPUTS) else "prompts"


def _main(section: Section, backbone: str | None) -> str:
    count: collections.Counter[str] = collections.Counter()
    for cell in section.cells:
        if backbone in (None, cell.place.backbone):
            # one target cell outweighs any search
            count[cell.place.backbone] += 1_000_000 if cell.place.role == "target" else 1
    if not count:
        return backbone or ""
    return min(count, key=lambda name: (paper_backbone(name) != "T5-large", -count[name], name))
