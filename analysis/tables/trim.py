"""A table as a page shows it: without columns and rows in which nothing is recorded."""

from __future__ import annotations

import dataclasses

from .table import MISSING, Row, Table, TableCell

_NOTHING = ("", MISSING)


def trimmed(table: Table) -> Table:
    """Return the table with what is in it alone.

    A row whose numbers are all missing says nothing, whatever its labels are; one with a mark
    (diverged, stopped) does. A table without numbers keeps its rows.
    """
    numeric = [
        at
        for at, _ in enumerate(table.columns)
        if any(row[at].text is None and _holds(row[at]) for row in table.rows)
    ]
    rows = [row for row in table.rows if not numeric or any(_holds(row[at]) for at in numeric)]
    if not numeric and any(cell.text is None for row in table.rows for cell in row):
        rows = []
    kept = [at for at, _ in enumerate(table.columns) if any(_holds(row[at]) for row in rows)]
    return dataclasses.replace(
        table,
        columns=tuple(table.columns[at] for at in kept),
        rows=tuple(_chosen(row, kept) for row in rows),
    )


def _chosen(row: Row, kept: list[int]) -> Row:
    return tuple(row[at] for at in kept)


def _holds(cell: TableCell) -> bool:
    if cell.text is not None:
        return cell.text not in _NOTHING
    return cell.value is not None or cell.low is not None or bool(cell.flags)
