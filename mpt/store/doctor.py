"""Whether what is in the database is what was written: keys, checksums, references, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from mpt.errors import MptError
from mpt.keys import digest
from mpt.store.database import Database
from mpt.store.errors import one_line
from mpt.store.records import Artifact, Point, Run
from mpt.store.sql import queries, rows, schema
from mpt.store.sql.rows import Row

if TYPE_CHECKING:
    from mpt.store.artifacts import Artifacts

T = TypeVar("T")


def check(database: Database, *, storage: bool, artifacts: Artifacts | None = None) -> list[str]:
    """Return one line for everything that is wrong; none if all is well.

    Every row is read once. A run or point that somebody edited no longer fits its key or its
    checksum.

    Args:
        database: the database; it may be open for reading only.
        storage: whether to read the files that results refer to, too.
        artifacts: below which root they are; None: beside the SQLite file.

    Raises:
        DataError: the database's file is torn.
        StorageError: the database cannot be reached.
    """
    with database.reading() as connection:
        faults = [
            *_file(connection),
            *_shared(connection, schema.recipe),
            *_shared(connection, schema.provenance),
            *_studies(connection),
            *_runs(connection),
            *_points(connection),
            *_lists_of_runs(connection),
            *_documents(connection),
        ]
    return [*faults, *_files(database, artifacts)] if storage else faults


def _file(connection: Connection) -> Iterator[str]:
    """Yield what SQLite itself finds wrong with its file."""
    if connection.dialect.name == "sqlite":
        for (text,) in connection.exec_driver_sql("PRAGMA integrity_check"):
            if text != "ok":
                yield f"database: {one_line(Exception(text))}"


def _shared(connection: Connection, table: Table) -> Iterator[str]:
    for row in connection.execute(sa.select(table).order_by(table.c.id)).mappings():
        if _digest(row["body"]) != row["digest"]:
            yield f"{table.name} {row['digest'][:8]}: its text was changed after it was written"


def _digest(text: str) -> str | None:
    """Return the digest of a JSON text's value; None: it is no JSON."""
    try:
        return digest(json.loads(text))
    except (ValueError, TypeError):
        return None


def _record(make: Callable[..., T], *parts: Any) -> T | None:
    """Return the record of a row; None: a cell of it holds what no record holds."""
    try:
        return make(*parts)
    except (ValueError, TypeError, KeyError):
        return None


def _studies(connection: Connection) -> Iterator[str]:
    used = set(connection.execute(sa.select(schema.point.c.study_id).distinct()).scalars())
    query = sa.select(schema.study).order_by(schema.study.c.id)
    for row in connection.execute(query).mappings():
        name = f"study {row['key'][:8]}"
        study = _record(rows.study_of, row)
        if study is None:
            yield f"{name}: one of its values is no JSON"
        elif study.key != row["key"]:
            yield f"{name}: was changed after it was written (its key would be {study.id})"
        if row["id"] not in used:
            yield f"{name}: has no points (the search that began it finished none yet)"


def _runs(connection: Connection) -> Iterator[str]:
    query = queries.whole(schema.run, "recipe", schema.recipe.c.body, isouter=True)
    for row in _stream(connection, query.order_by(schema.run.c.id)):
        what = f"{row['task']}, data seed {row['data_seed']}, learning rate {row['lr']}"
        name = f"run {row['key'][:8]} ({what}, train seed {row['train_seed']})"
        if row["recipe"] is None or row["provenance"] is None:
            yield f"{name}: its recipe or provenance is not there"
            continue
        made = _record(rows.run_of, row)
        if made is None:
            yield f"{name}: one of its values is not what a run holds"
        else:
            yield from _fits(name, row, made, "a score, the curve or the status")


def _points(connection: Connection) -> Iterator[str]:
    query = queries.whole(schema.point, "study", schema.study.c.key, isouter=True)
    members = _members(connection)
    for row in _stream(connection, query.order_by(schema.point.c.id)):
        name = f"point {row['key'][:8]} ({row['method']}, {row['steps']} steps)"
        if row["study"] is None or row["provenance"] is None:
            yield f"{name}: its study or provenance is not there"
            continue
        runs = tuple(sorted(members.get(row["id"], ())))
        made = _record(rows.point_of, row, runs)
        if made is None:
            yield f"{name}: one of its values is not what a point holds"
        else:
            yield from _fits(name, row, made, "its settings, its runs, the prompt or the status")


def _members(connection: Connection) -> dict[int, list[str]]:
    """Return point id → keys of its runs."""
    query = sa.select(schema.point_run.c.point_id, schema.run.c.key).join_from(
        schema.point_run, schema.run
    )
    members: dict[int, list[str]] = {}
    for number, key in connection.execute(query):
        members.setdefault(number, []).append(key)
    return members


def _fits(name: str, row: Row, made: Run | Point, parts: str) -> Iterator[str]:
    if made.key != row["key"]:
        yield f"{name}: its key is not the key of what it says it is; it was changed"
    elif _record(lambda: made.checksum) != row["checksum"]:
        yield f"{name}: its checksum does not fit; {parts} was changed after it was written"


def _lists_of_runs(connection: Connection) -> Iterator[str]:
    both = schema.point_run
    for target, column in ((schema.run, both.c.run_id), (schema.point, both.c.point_id)):
        query = (
            sa.select(both.c.point_id, both.c.run_id)
            .outerjoin(target, column == target.c.id)
            .where(target.c.id.is_(None))
        )
        for point, run in connection.execute(query):
            yield f"point_run ({point}, {run}): there is no {target.name} with this id"


def _documents(connection: Connection) -> Iterator[str]:
    query = sa.select(schema.document).order_by(schema.document.c.id)
    for row in connection.execute(query).mappings():
        if _digest(row["body"]) != row["checksum"]:
            yield f"{row['kind']} {row['name']!r}: was changed after it was written"


def _stream(connection: Connection, query: sa.Select[Any]) -> Iterator[sa.RowMapping]:
    """Yield rows without holding all of them."""
    yield from connection.execute(query.execution_options(yield_per=1000)).mappings()


def _files(database: Database, artifacts: Artifacts | None) -> Iterator[str]:
    """Yield a line for every artifact whose file is absent or changed.

    Of several under one kind, owner and steps, the newest counts.
    """
    from mpt.store.artifacts import Artifacts

    if artifacts is None:
        artifacts = Artifacts(str(database.path.parent if database.path else "."))
    newest: Mapping[tuple[str, str, int], Artifact] = {
        (one.kind, one.owner, one.steps): one for one in database.artifacts()
    }
    for one in newest.values():
        name = f"{one.kind} of {one.owner[:8]} after {one.steps} steps"
        try:
            if one.digest:
                artifacts.read(one.uri, one.digest)
            elif not artifacts.exists(one.uri):
                yield f"{name}: {one.uri}: is not there"
        except (MptError, ValueError) as error:
            yield f"{name}: {one_line(error)}"
