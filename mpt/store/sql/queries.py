"""The statements of the database, and what several of them share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from mpt.store.records import Point, ScoreRow
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

STUDIES = sa.select(schema.study)
"""Studies."""

MEMBERS = sa.select(schema.point_run.c.point_id, schema.run.c.key).join_from(
    schema.point_run, schema.run
)
"""Ids of points with the keys of their runs."""

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


@cache
def among(query: sa.Select[Any], column: sa.Column[Any]) -> sa.Select[Any]:
    """Return a statement for the rows of a query whose `column` is among its parameter `keys`.

    It is made once, so that a call neither builds it nor looks at each key; `query` must be one
    that stays, such as those of this module.
    """
    return query.where(column.in_(sa.bindparam("keys", type_=column.type, expanding=True)))


def selected(
    connection: Connection, query: sa.Select[Any], column: sa.Column[Any], keys: Iterable[Any]
) -> Iterator[Any]:
    """Yield the rows (tuples) of a query whose `column` is among `keys`; see `among`."""
    for some in chunks(keys):
        yield from connection.execute(among(query, column), {"keys": some})


def matching(
    connection: Connection, query: sa.Select[Any], column: sa.Column[Any], keys: Iterable[Any]
) -> Iterator[sa.RowMapping]:
    """Yield the rows of a query whose `column` is among `keys`, by the names of their columns."""
    for row in selected(connection, query, column, keys):
        yield row._mapping


@cache
def _numbered(column: sa.Column[str]) -> sa.Select[Any]:
    return sa.select(column, column.table.c.id)


def ids(connection: Connection, column: sa.Column[str], keys: Iterable[str]) -> dict[str, int]:
    """Return value → id of the rows whose `column` is among `keys`."""
    pairs = selected(connection, _numbered(column), column, keys)
    return {pair[0]: pair[1] for pair in pairs}


def with_runs(connection: Connection, point_rows: Sequence[sa.RowMapping]) -> list[Point]:
    """Return the points of rows of `POINTS`; the runs of each in the order of their keys."""
    members: dict[int, list[str]] = {row["id"]: [] for row in point_rows}
    for number, key in selected(connection, MEMBERS, schema.point_run.c.point_id, members):
        members[number].append(key)
    return [rows.point_of(row, tuple(sorted(members[row["id"]]))) for row in point_rows]


def points_of(connection: Connection, keys: Iterable[str]) -> dict[str, Point]:
    """Return the points that are there, by their keys; see `with_runs`."""
    point_rows = list(matching(connection, POINTS, schema.point.c.key, keys))
    return {point.key: point for point in with_runs(connection, point_rows)}


def score_rows(connection: Connection, points: Iterable[str]) -> list[ScoreRow]:
    """Return every run of every one of these points, in its place."""
    run_rows = selected(connection, SCORES, schema.point.c.key, points)
    return [ScoreRow._make(row) for row in run_rows]
