"""The statements of the database, and what several of them share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from mpt.store.records import Point
from mpt.store.sql import rows, schema

CHUNK = 1000
"""Keys that one statement names; databases limit the number."""


def whole(
    table: sa.Table, name: str, column: sa.Column[str], *, isouter: bool = False
) -> sa.Select[Any]:
    """Select a table's rows with a column of the row that they belong to, and their provenance.

    With `isouter` also rows of which one of the two is not there.
    """
    return (
        sa.select(table, column.label(name), schema.provenance.c.body.label("provenance"))
        .join_from(table, column.table, isouter=isouter)
        .join(
            schema.provenance,
            table.c.provenance_id == schema.provenance.c.id,
            isouter=isouter,
        )
    )


RUNS = whole(schema.run, "recipe", schema.recipe.c.body)
"""Runs with the JSON texts of their recipes and provenances."""

POINTS = whole(schema.point, "study", schema.study.c.key)
"""Points with the key of their study and the JSON text of their provenance."""

SCORES = (
    sa.select(
        schema.point.c.key,
        *(schema.run.c[name] for name in ("task", "data_seed", "lr", "dev", "test", "status")),
        *(
            schema.run.c[name]
            for name in ("key", "train_steps", "tokens", "seconds", "train_seed")
        ),
    )
    .join_from(schema.point, schema.point_run)
    .join(schema.run, schema.point_run.c.run_id == schema.run.c.id)
    .order_by(schema.point_run.c.point_id, schema.point_run.c.run_id)
)
"""Columns in the order of `ScoreRow`'s fields."""


def chunks(keys: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield the keys, each once, in lists that one statement can name."""
    unique = list(dict.fromkeys(keys))
    for begin in range(0, len(unique), CHUNK):
        yield unique[begin : begin + CHUNK]


def matching(
    connection: Connection, query: sa.Select[Any], column: sa.Column[Any], keys: Iterable[Any]
) -> Iterator[sa.RowMapping]:
    """Yield the rows of a query whose `column` is among `keys`."""
    for some in chunks(keys):
        yield from connection.execute(query.where(column.in_(some))).mappings()


def ids(connection: Connection, column: sa.Column[str], keys: Iterable[str]) -> dict[str, int]:
    """Return value → id of the rows whose `column` is among `keys`."""
    query = sa.select(column, column.table.c.id)
    return {
        key: number
        for some in chunks(keys)
        for key, number in connection.execute(query.where(column.in_(some)))
    }


def with_runs(connection: Connection, point_rows: Sequence[sa.RowMapping]) -> list[Point]:
    """Return the points of rows of `POINTS`; the runs of each in the order of their keys."""
    members: dict[int, list[str]] = {row["id"]: [] for row in point_rows}
    query = sa.select(schema.point_run.c.point_id, schema.run.c.key).join_from(
        schema.point_run, schema.run
    )
    for some in chunks(members):
        for number, key in connection.execute(query.where(schema.point_run.c.point_id.in_(some))):
            members[number].append(key)
    return [rows.point_of(row, tuple(sorted(members[row["id"]]))) for row in point_rows]
