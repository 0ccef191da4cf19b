"""Tables 2 to 6 of the paper: ARG with interval, runs and flags in every cell.

Tables 7 and 8 are in `tables.similarity`, 1 and 9 to 11 in `tables.gym`. Rows are the known
methods in the paper's order, then every other method that was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..published.numbers import CASES, TARGET_SHOTS
from ..results.cells import OWN, PLAIN, Cell
from ..results.names import (
    METHODS,
    PARTITION_LABELS,
    gym_label,
    in_order,
    method_label,
    paper_backbone,
    partition_label,
    rank,
)
from .arg import DETAILS, INTERVALS, detail_cells, seeds_note
from .lookup import Lookup, column_label, pilot_choice, with_edition
from .similarity import pilot_notes, pilot_table, pilot_values, similarity_table
from .table import Row, Table, TableCell, text

SWEPT = "cls_to_cls"
"""Partition of Tables 3 and 4 and of Figure 3."""
COMPARED = "nonpara_to_para"
"""Partition of Table 5."""
MOST_CASES = 4
"""Tasks of Table 6 on a gym that has none of the paper's cases."""


def result_tables(look: Lookup) -> list[Table]:
    """Return Tables 2 to 8 and what stands beside them."""
    return [
        main_table(look),
        detail_table(look),
        shots_table(look, "target"),
        shots_table(look, "source"),
        sources_table(look),
        backbone_table(look),
        case_table(look),
        similarity_table(look),
        pilot_table(pilot_values(look), pilot_notes(look)),
    ]


def main_table(look: Lookup) -> Table:
    """Return Table 2: ARG by method and partition."""
    seen = {cell.place.partition for cell in look.targets()}
    columns = look.columns({*PARTITION_LABELS, *seen})
    return Table(
        name="table-2",
        title=f"Table 2. ARG % by method and partition ({look.about})",
        columns=("method", *map(column_label, columns)),
        rows=tuple(
            (
                text(method_label(method)),
                *(look.show(method, part, edition=edition) for part, edition in columns),
            )
            for method in look.methods
        ),
        notes=(INTERVALS,),
    )


def detail_table(look: Lookup) -> Table:
    """Return Table 2 with the interval over tasks, the median, and tasks near zero."""
    rows: list[Row] = []
    said: dict[str, list[tuple[str, str]]] = {}
    for cell in sorted(look.targets(), key=_in_paper_order):
        summary = look.summary(cell)
        if summary is None or not cell.place.is_plain():
            continue
        column = (cell.place.partition, cell.place.edition)
        names = (column_label(column), method_label(cell.place.method))
        rows.append((*map(text, names), *detail_cells(summary, look.table_cell(cell))))
        for note in (seeds_note(summary), *summary.gain.reasons, cell.study.partial):
            if note:
                said.setdefault(note, []).append(names)
    shared_first = sorted(said.items(), key=lambda note: -len(note[1]))
    return Table(
        name="table-2-details",
        title=f"Table 2 in detail ({look.about})",
        columns=("partition", "method", *DETAILS),
        rows=tuple(rows),
        notes=(INTERVALS, *(f"{_whose(names, rows)}: {note}" for note, names in shared_first)),
    )


def _whose(names: Sequence[tuple[str, str]], rows: Sequence[Row]) -> str:
    """Return of which rows a note is: partitions, each with its methods; or that it is of all."""
    if len(rows) > 1 and len(names) == len(rows):
        return "all rows"
    methods: dict[str, list[str]] = {}
    for partition, method in names:
        methods.setdefault(partition, []).append(method)
    return "; ".join(f"{partition} {', '.join(here)}" for partition, here in methods.items())


def _in_paper_order(cell: Cell) -> tuple[int, int, str, str]:
    at = cell.place
    known = rank(at.partition, PARTITION_LABELS)[0], rank(at.method, METHODS)[0]
    return *known, at.partition, at.method


def shots_table(look: Lookup, which: str) -> Table:
    """Return Table 3 (`which` = "target") or the numbers of Figure 3 ("source")."""
    field = f"{which}_shots"
    other = "source_shots" if which == "target" else "target_shots"
    cells = look.targets(partition=SWEPT, source_set="all", **{other: OWN})
    sizes = in_order({getattr(cell.place, field) for cell in cells}, (OWN, *TARGET_SHOTS))
    columns = [(n, edition) for n in sizes for edition in look.editions(SWEPT, **{field: n})]
    methods = in_order({cell.place.method for cell in cells}, METHODS)
    label = "Table 3. ARG % by target shots" if which == "target" else "ARG % by source shots"
    return Table(
        name="table-3" if which == "target" else "figure-3",
        title=f"{label} ({partition_label(SWEPT)}, {look.about})",
        columns=("method", *(with_edition(*column) for column in columns)),
        rows=tuple(
            (
                text(method_label(method)),
                *(
                    look.show(method, SWEPT, edition=edition, **{field: size})
                    for size, edition in columns
                ),
            )
            for method in methods
        ),
        notes=(
            "Columns are examples per class; own is each task's published size (16 per class, 32 "
            "where it is not sampled per class).",
        ),
    )


def sources_table(look: Lookup) -> Table:
    """Return Table 4: ARG by the number of source tasks."""
    cells = [
        cell
        for cell in look.targets(partition=SWEPT, source_shots=OWN, target_shots=OWN)
        if pilot_choice(cell) is None and cell.steps > 0
    ]
    sizes = {(c.place.source_set, c.place.edition): c.sources for c in cells}
    columns = sorted(sizes, key=lambda column: (sizes[column], column))
    return Table(
        name="table-4",
        title=f"Table 4. ARG % by source tasks ({partition_label(SWEPT)}, {look.about})",
        columns=("method", *(f"{with_edition(*c)} ({sizes[c]} tasks)" for c in columns)),
        rows=tuple(
            (
                text(method_label(method)),
                *(look.show(method, SWEPT, source_set=n, edition=e) for n, e in columns),
            )
            for method in in_order({cell.place.method for cell in cells}, METHODS)
        ),
    )


def backbone_table(look: Lookup) -> Table:
    """Return Table 5: ARG by backbone."""
    cells = [c for c in look.section.select(role="target") if c.place.is_plain()]
    rows = []
    for name in sorted({cell.place.backbone for cell in cells}):
        known = paper_backbone(name)
        label = name if known is None else f"{known} ({name})"
        for edition in look.editions(COMPARED, backbone=name):
            fields = {"backbone": name, "edition": edition}
            shown = (look.show(method, COMPARED, **fields) for method in look.methods)
            rows.append((text(with_edition(label, edition)), *shown))
    return Table(
        name="table-5",
        title=f"Table 5. ARG % by backbone ({partition_label(COMPARED)}, {gym_label(look.gym)})",
        columns=("backbone", *map(method_label, look.methods)),
        rows=tuple(rows),
    )


def cases_of(look: Lookup) -> list[tuple[str, str]]:
    """Return (task, partition) of Table 6: the paper's, or some of a gym that has none of them."""
    where: dict[str, list[str]] = {}
    for cell in sorted(look.targets(**PLAIN), key=_in_paper_order):
        for task in cell.tasks:
            if cell.place.partition not in where.setdefault(task, []):
                where[task].append(cell.place.partition)
    if any(task in where for task, _ in CASES) or not where:
        return list(CASES)
    often = sorted(where, key=lambda task: (-len(where[task]), task))[:MOST_CASES]
    return [(task, partition) for task in often for partition in where[task][:2]]


def case_table(look: Lookup) -> Table:
    """Return Table 6: relative gain of the best other method and of multi-task learning."""
    others = [method for method in look.upstream_methods if method != "multitask"]
    rows = []
    for task, partition in cases_of(look):
        for edition in look.editions(partition):
            best = look.best(partition, others, edition)
            rows.append(
                (
                    text(task),
                    text(column_label((partition, edition))),
                    text("–" if best is None else method_label(best.place.method)),
                    task_cell(look, best, task),
                    task_cell(look, look.cell("multitask", partition, edition=edition), task),
                )
            )
    return Table(
        name="table-6",
        title=f"Table 6. Relative gain % on single tasks ({look.about})",
        columns=("task", "partition", "best MPT", "ΔMPT", "ΔMTL"),
        rows=tuple(rows),
        notes=(
            "The best MPT is the method with the highest ARG on the partition; multi-task "
            "learning and methods that learn nothing upstream take no part.",
        ),
    )


def task_cell(look: Lookup, cell: Cell | None, task: str) -> TableCell:
    """Return the relative gain of a cell on one of its tasks, with its interval."""
    if cell is None or task not in cell.tasks:
        return TableCell()
    return look.table_cell(cell, task=task)
