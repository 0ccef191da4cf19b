"""What a transaction that writes does inside; `mpt.store.database` begins and ends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from mpt.errors import DataError
from mpt.store.records import Point, Run
from mpt.store.sql import rows, schema
from mpt.store.sql.queries import ids


def insert(connection: Connection, table: Table, entries: Sequence[dict[str, Any]]) -> None:
    """Insert rows."""
    if entries:
        connection.execute(sa.insert(table), entries)


def share(
    connection: Connection, table: Table, entries: Sequence[dict[str, str]]
) -> dict[str, int]:
    """Insert those of the rows that are not there; return digest → id of all."""
    unique = {entry["digest"]: entry for entry in entries}
    known = ids(connection, table.c.digest, unique)
    fresh = [entry for name, entry in sorted(unique.items()) if name not in known]
    if fresh:
        insert(connection, table, fresh)
        known = ids(connection, table.c.digest, unique)
    return known


class RunParts(NamedTuple):
    """A run as rows of three tables."""

    run: dict[str, Any]
    recipe: dict[str, str]
    provenance: dict[str, str]


def run_parts(runs: Iterable[Run]) -> dict[str, RunParts]:
    """Return key → rows of runs. Plain values: another process may form them than inserts them.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    held = list(runs)  # so that an id stays that of one value
    shared: dict[int, dict[str, str]] = {}

    def once(body: Mapping[str, Any]) -> dict[str, str]:
        """Runs that finish together name one recipe and one provenance, most of them."""
        if id(body) not in shared:
            shared[id(body)] = rows.shared_row(dict(body))
        return shared[id(body)]

    return {
        run.key: RunParts(rows.run_row(run), once(run.identity.recipe), once(run.provenance))
        for run in held
    }


def insert_runs(connection: Connection, parts: Mapping[str, RunParts]) -> list[str]:
    """Insert those of the runs (key → rows) that are not there; return their keys."""
    known = ids(connection, schema.run.c.key, parts)
    fresh = {key: part for key, part in parts.items() if key not in known}
    recipes = share(connection, schema.recipe, [part.recipe for part in fresh.values()])
    origins = share(connection, schema.provenance, [part.provenance for part in fresh.values()])
    # in one order everywhere: two writers of the same runs must not wait for each other
    entries = [
        {
            **part.run,
            "recipe_id": recipes[part.recipe["digest"]],
            "provenance_id": origins[part.provenance["digest"]],
        }
        for _, part in sorted(fresh.items())
    ]
    insert(connection, schema.run, entries)
    return list(fresh)


def insert_point(connection: Connection, point: Point, name: str) -> bool:
    """Insert a point and its list of runs unless it is there; return whether it was new.

    Raises:
        DataError: its study or one of its runs is not in the database.
    """
    if ids(connection, schema.point.c.key, [point.key]):
        return False
    study = ids(connection, schema.study.c.key, [point.study])
    members = ids(connection, schema.run.c.key, point.runs)
    absent = [key for key in point.runs if key not in members]
    if not study or absent:
        what = f"{len(absent)} of its runs ({absent[0]}, …) are" if absent else "its study is"
        raise DataError(
            f"point {point.key}: {what} not in {name}; write studies and runs before the points "
            "that name them"
        )
    origin = rows.shared_row(dict(point.provenance))
    entry = {
        **rows.point_row(point),
        "study_id": study[point.study],
        "provenance_id": share(connection, schema.provenance, [origin])[origin["digest"]],
    }
    insert(connection, schema.point, [entry])
    own = ids(connection, schema.point.c.key, [point.key])[point.key]
    pairs = [{"point_id": own, "run_id": number} for number in sorted(members.values())]
    insert(connection, schema.point_run, pairs)
    return True
