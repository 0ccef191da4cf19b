"""The database of results.

    with open_results(Path("results")) as database:
        database.add_runs(runs)
        rows = database.score_rows([point.key for point in database.points()])

Everything is inserted once and never updated; what belongs together is written in one transaction,
so a kill leaves it wholly there or wholly absent. Any number of processes may read and write at
once: of two that bring the same run, the first wins and both are content.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from mpt.errors import DataError, UsageError
from mpt.keys import canonical, digest
from mpt.provenance import now
from mpt.store.connect import WRITE, Connections
from mpt.store.errors import ELSEWHERE, database_errors
from mpt.store.location import FILE, database_url, old_format_note
from mpt.store.records import Artifact, Point, Run, ScoreRow, Stop, StudyRecord
from mpt.store.sql import inserting, queries, rows, schema

ATTEMPTS = 20
"""How often a transaction is begun anew when another process brought the same rows meanwhile."""

if TYPE_CHECKING:
    import pandas

T = TypeVar("T")


class Database(Connections):
    """One database of results.

    Args:
        url: any URL of SQLAlchemy, such as ``sqlite:///results/mpt.db`` or
            ``postgresql://user@host/name``. The tables are created, or brought up to date.
        read_only: create and change nothing; what is absent is an error.

    Raises:
        UsageError: the URL is wrong, its driver is not installed, the server does not let us in,
            the place cannot be written, or (reading only) there are no results.
        DataError: what is there is torn, of another program, or of a newer version.
        StorageError: the storage is full or does not answer. Every method may raise it.
    """

    def has_table(self, name: str) -> bool:
        """Return whether a table is there, also one of another program."""
        with self.reading() as connection:
            return sa.inspect(connection).has_table(name)

    def table(self, name: str) -> pandas.DataFrame:
        """Return "studies", "runs" or "points" as a frame, one row each, all joined in.

        See `mpt.store.frames` for the columns.

        Raises:
            ValueError: there is no such frame.
        """
        from mpt.store.frames import frame

        return frame(self, name)

    def close(self) -> None:
        """Close every connection; of SQLite, only the database's file stays."""
        with database_errors(self.name):
            self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- runs ------------------------------------------------------------------------------------

    def present(self, keys: Collection[str]) -> set[str]:
        """Return those keys whose runs are there."""
        with self.reading() as connection:
            return set(queries.ids(connection, schema.run.c.key, keys))

    def runs(self, keys: Collection[str]) -> dict[str, Run]:
        """Return the runs that are there, by their keys."""
        with self.reading() as connection:
            run_rows = queries.matching(connection, queries.RUNS, schema.run.c.key, keys)
            return {row["key"]: rows.run_of(row) for row in run_rows}

    def add_runs(self, runs: Sequence[Run]) -> list[str]:
        """Insert runs in one transaction, all or none.

        Returns:
            The keys that were not there before; a run that is there already stays as it is.

        Raises:
            ValueError: a score is not a number (NaN); nothing is written.
        """
        return self.add_parts(inserting.run_parts(runs))

    def add_parts(self, parts: Mapping[str, inserting.RunParts]) -> list[str]:
        """Insert runs as `add_runs` does; `parts` are key → rows (`inserting.run_parts`)."""
        return self._write(lambda one: inserting.insert_runs(one, parts)) if parts else []

    # --- studies and points ----------------------------------------------------------------------

    def add_study(self, study: StudyRecord) -> str:
        """Insert a study unless it is there; return its key."""
        row = rows.study_row(study)

        def insert(connection: Connection) -> str:
            if not queries.ids(connection, schema.study.c.key, [study.key]):
                inserting.insert(connection, schema.study, [row])
            return study.key

        return self._write(insert)

    def studies(self) -> list[StudyRecord]:
        """Return all studies, the oldest first."""
        with self.reading() as connection:
            study_rows = connection.execute(sa.select(schema.study).order_by(schema.study.c.id))
            return [rows.study_of(row) for row in study_rows.mappings()]

    def study(self, key: str) -> StudyRecord | None:
        """Return the study of a key, or None."""
        with self.reading() as connection:
            study_rows = queries.matching(connection, queries.STUDIES, schema.study.c.key, [key])
            return next((rows.study_of(row) for row in study_rows), None)

    def add_point(self, point: Point) -> bool:
        """Insert a point with its list of runs unless it is there; return whether it was new.

        Raises:
            DataError: its study or one of its runs is not in the database.
            ValueError: it names a run twice.
        """
        if len(set(point.runs)) != len(point.runs):
            raise ValueError(f"point {point.key}: names a run twice")
        return self._write(lambda one: inserting.insert_point(one, point, self.name))

    def points(self, study: str | None = None, method: str | None = None) -> list[Point]:
        """Return the points (of the study with this key, and of one method), the oldest first."""
        query = queries.POINTS
        if study is not None:
            query = query.where(schema.study.c.key == study)
        if method is not None:
            query = query.where(schema.point.c.method == method)
        with self.reading() as connection:
            point_rows = connection.execute(query.order_by(schema.point.c.id)).mappings().all()
            return queries.with_runs(connection, point_rows)

    def points_of(self, keys: Collection[str]) -> dict[str, Point]:
        """Return the points that are there, by their keys.

        The runs of a point come in the order of their keys.
        """
        with self.reading() as connection:
            return queries.points_of(connection, keys)

    def score_rows(self, points: Collection[str]) -> list[ScoreRow]:
        """Return every run of every one of these points, in its place.

        This is all that relative gains are computed from; a run that serves several points comes
        once for each.
        """
        with self.reading() as connection:
            return queries.score_rows(connection, points)

    def evidence(self, keys: Collection[str]) -> dict[str, tuple[Point, list[ScoreRow]]]:
        """Return the points that are there with their `score_rows`, by their keys."""
        with self.reading() as connection:
            points = queries.points_of(connection, keys)
            by_point: dict[str, list[ScoreRow]] = {key: [] for key in points}
            for row in queries.score_rows(connection, points):
                by_point[row.point].append(row)
        return {key: (point, by_point[key]) for key, point in points.items()}

    # --- stops, artifacts, documents -------------------------------------------------------------

    def add_stop(self, stop: Stop) -> None:
        """Insert a stop, unless the same one is there."""
        row = rows.stop_row(stop)
        same = [schema.stop.c[name] == row[name] for name in ("point", "trial", "steps", "by")]

        def insert(connection: Connection) -> None:
            if connection.execute(sa.select(schema.stop.c.id).where(*same)).first() is None:
                inserting.insert(connection, schema.stop, [row])

        self._write(insert)

    def stops(self) -> list[Stop]:
        """Return all stops, the oldest first."""
        with self.reading() as connection:
            stop_rows = connection.execute(sa.select(schema.stop).order_by(schema.stop.c.id))
            return [rows.stop_of(row) for row in stop_rows.mappings()]

    def add_artifact(self, artifact: Artifact) -> None:
        """Insert an artifact; the newest of several under one kind, owner and steps counts.

        Of a trial only the newest checkpoint is of use: when one of kind "checkpoint" is added,
        the older rows of its owner go in the same transaction.
        """
        row, table = rows.artifact_row(artifact), schema.artifact
        same_owner = [table.c.kind == artifact.kind, table.c.owner == artifact.owner]

        def insert(connection: Connection) -> None:
            if artifact.kind == "checkpoint":
                connection.execute(sa.delete(table).where(*same_owner))
            inserting.insert(connection, table, [row])

        self._write(insert)

    def artifact(self, kind: str, owner: str, steps: int | None = None) -> Artifact | None:
        """Return the artifact of an owner after `steps` (None: after the most steps), or None."""
        artifacts = self.artifacts(kind, owner)
        if steps is not None:
            artifacts = [one for one in artifacts if one.steps == steps]
        return max(reversed(artifacts), key=lambda one: one.steps, default=None)

    def artifacts(self, kind: str | None = None, owner: str | None = None) -> list[Artifact]:
        """Return the artifacts (of this kind, of this owner), the oldest first."""
        table = schema.artifact
        query = sa.select(table).order_by(table.c.id)
        if kind is not None:
            query = query.where(table.c.kind == kind)
        if owner is not None:
            query = query.where(table.c.owner == owner)
        with self.reading() as connection:
            return [rows.artifact_of(row) for row in connection.execute(query).mappings()]

    def put_document(self, kind: str, name: str, body: Any) -> None:
        """Keep a small value whole, in the place of an older one of this kind and name.

        Args:
            kind: what it is, such as "similarity".
            name: which one.
            body: anything that JSON can hold.
        """
        table = schema.document
        row = {
            "kind": kind,
            "name": name,
            "body": canonical(body),
            "checksum": digest(body),
            "created": now(),
        }

        def insert(connection: Connection) -> None:
            connection.execute(sa.delete(table).where(table.c.kind == kind, table.c.name == name))
            inserting.insert(connection, table, [row])

        self._write(insert)

    def documents(self, kind: str, name: str | None = None) -> dict[str, Any]:
        """Return all values of a kind by their names, or the one of a name alone if it is there.

        Raises:
            DataError: one was changed after it was written.
        """
        table = schema.document
        query = sa.select(table).where(table.c.kind == kind).order_by(table.c.name)
        query = query if name is None else query.where(table.c.name == name)
        with self.reading() as connection:
            document_rows = connection.execute(query).mappings().all()
        bodies = {row["name"]: json.loads(row["body"]) for row in document_rows}
        for row in document_rows:
            if digest(bodies[row["name"]]) != row["checksum"]:
                raise DataError(
                    f"{self.name}: {kind} {row['name']!r} was changed after it was written; "
                    "compute it again"
                )
        return bodies

    # --- transactions ----------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection for reading, whose errors are ours; every query sees one moment."""
        self.check_place()
        with database_errors(self.name), self.engine.connect() as connection:
            yield connection

    def _write(self, work: Callable[[Connection], T]) -> T:
        """Run a function in one transaction and return what it returns.

        Where another process brought the same rows between our look and our insert, it is run
        again: then it finds them.
        """
        if self.read_only:
            raise UsageError(f"{self.name}: was opened for reading only; {ELSEWHERE}")
        self.check_place()
        engine = self.engine.execution_options(**{WRITE: True})
        with database_errors(self.name):
            for _ in range(ATTEMPTS - 1):
                try:
                    with engine.begin() as connection:
                        return work(connection)
                except IntegrityError:
                    time.sleep(0.05 * random.random())
            with engine.begin() as connection:
                return work(connection)


def open_results(results: Path, store: str | None = None, *, read_only: bool = False) -> Database:
    """Open the database of a directory of results; see `Database` and `database_url`.

    Raises:
        UsageError: (reading only) there are none; the text says so if an older version left some.
    """
    note = old_format_note(results) if read_only and store is None else None
    if note is not None:
        raise UsageError(note)
    return Database(database_url(results, store), read_only=read_only)


__all__ = ["FILE", "Database", "database_url", "old_format_note", "open_results"]
