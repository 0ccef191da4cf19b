"""Connections to the database, and its schema.

SQLite files are opened so that a kill or a loss of power tears nothing (write-ahead log and
``synchronous=FULL``), so that two processes wait for each other, and so that reading works in a
directory that cannot be written.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.pool import QueuePool

from mpt.errors import DataError, UsageError
from mpt.store.errors import (
    ELSEWHERE,
    database_errors,
    moved,
    one_line,
    storage_error,
    storage_errors,
)
from mpt.store.filesystems import is_passing, over_network
from mpt.store.location import parse_url
from mpt.store.sql import schema

BUSY_S = 60.0
"""Seconds that a process waits for another one that writes."""

CONNECT_S = 15
"""Seconds that a server has to answer."""

WRITE = "mpt_write"
"""Execution option of a connection that will write: it waits for its turn at once."""


class Connections:
    """The engine of one database, and what it is called in messages (see `Database`)."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.read_only = read_only
        parsed = parse_url(url)
        self.url = parsed.render_as_string(hide_password=False)
        """The URL, the password included: not for messages."""
        self.path: Path | None = None
        """The file of an SQLite database."""
        if parsed.get_backend_name() == "sqlite":
            self.path = _sqlite_path(parsed)
        self.name = str(self.path or parsed.set(query={}).render_as_string(hide_password=True))
        """The database in messages: its path, or its URL without the password."""
        with database_errors(self.name, opening=True):
            self.engine = self._file_engine() if self.path else _server_engine(parsed, self.name)
            try:
                self._check_schema()
            except BaseException:
                self.engine.dispose()
                raise
        self._identity = self._file_identity()

    def check_place(self) -> None:
        """Prove that the database's file is still the one that was opened.

        Raises:
            StorageError: the storage went away; what is written now would vanish with it.
        """
        if self.path is not None and self._file_identity() != self._identity:
            raise moved(self.name)

    def _file_identity(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _file_engine(self) -> Engine:
        assert self.path is not None
        if self.read_only:
            return _reading_engine(self.path)
        _prepare_place(self.path)
        # rows of a kilobyte leave less of a large page empty
        engine = _sqlite_engine(self.path, "mode=rwc", "PRAGMA page_size=8192;")
        try:
            _set_journal(engine, "delete" if over_network(self.path.parent) else "wal")
        except BaseException:
            engine.dispose()
            raise
        return engine

    def _check_schema(self) -> None:
        with self.engine.connect() as connection:
            version = self._version(connection)
        if version == schema.HEAD:
            return
        if self.read_only and version is None:
            raise UsageError(f"{self.name}: holds no results; run a search first, or {ELSEWHERE}")
        from mpt.store.migrations import known, migrate

        if version is not None and version not in known():
            raise DataError(
                f"{self.name}: was made by a newer version of this program (schema {version}, "
                f"but this one knows {schema.HEAD}); install that version, or {ELSEWHERE}"
            )
        if self.read_only:
            raise DataError(
                f"{self.name}: has the older schema {version}; run the search again, which "
                "brings it up to date and keeps every result"
            )
        with self.engine.connect().execution_options(**{WRITE: True}) as connection:
            migrate(connection)

    def _version(self, connection: Connection) -> str | None:
        """Return the schema's version; None if our tables are not there."""
        tables = set(sa.inspect(connection).get_table_names())
        ours = set(schema.metadata.tables) & tables
        if schema.VERSION_TABLE not in tables:
            if ours:
                raise DataError(
                    f"{self.name}: holds tables of another program ({', '.join(sorted(ours))}); "
                    f"move it away, or {ELSEWHERE}"
                )
            return None
        table = sa.table(schema.VERSION_TABLE, sa.column("version_num"))
        return connection.execute(sa.select(table.c.version_num)).scalar()


def _sqlite_path(url: URL) -> Path:
    if url.database in (None, "", ":memory:") or url.query:
        raise UsageError(
            f"database {url}: SQLite must be a file, without options; give a path that ends in .db"
        )
    return Path(str(url.database))


def _server_engine(url: URL, name: str) -> Engine:
    options = {"connect_timeout": CONNECT_S} if url.get_backend_name() == "postgresql" else {}
    # An error in a batch is raised, and met where two processes write the same row; psycopg says
    # it once more, as a warning of the batch that it closes.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        return sa.create_engine(url, pool_pre_ping=True, connect_args=options)
    except ModuleNotFoundError as error:
        extra = "'mpt[postgres]'" if url.get_backend_name() == "postgresql" else str(error.name)
        raise UsageError(
            f"database {name}: its driver is not installed ({one_line(error)}); "
            f"run `pip install {extra}`"
        ) from None


# --- SQLite --------------------------------------------------------------------------------------


def _prepare_place(path: Path) -> None:
    """Make the folder of a database's file and prove that both can be written."""
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(
            f"results path {folder} must be a directory, but it (or a part of it) is a file or "
            f"a link to nothing; {ELSEWHERE}"
        ) from None
    except OSError as error:
        if is_passing(error):
            raise storage_error(folder, error) from None
        raise _unwritable(folder, os.strerror(error.errno or 0)) from None
    for written in [folder, path] if _is_file(path) else [folder]:
        if not os.access(written, os.W_OK):
            raise _unwritable(written, "no permission, or a read-only file system")


def _unwritable(path: Path, reason: str) -> UsageError:
    return UsageError(f"results path {path} cannot be written ({reason}); {ELSEWHERE}")


def _is_file(path: Path) -> bool:
    """Return whether a file is there.

    The file is not opened: closing it would drop the locks that SQLite holds in this process.

    Raises:
        DataError: something else is there; opening it may even never end (a pipe).
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        if is_passing(error):
            raise storage_error(path, error) from None
        raise UsageError(
            f"{path}: cannot be opened ({os.strerror(error.errno or 0)}); {ELSEWHERE}"
        ) from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no file"
        raise DataError(
            f"{path}: must be the database of results, but is {kind}; move it away, or {ELSEWHERE}"
        )
    return True


def _connector(path: Path, query: str, setup: str) -> Callable[[], sqlite3.Connection]:
    address = f"file:{quote(str(path))}?{query}"

    def connect() -> sqlite3.Connection:
        # transactions begin where we say so (`_begin`), not where Python guesses
        connection = sqlite3.connect(
            address, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.executescript(setup)
        return connection

    return connect


def _sqlite_engine(path: Path, query: str, setup: str = "") -> Engine:
    setup = f"PRAGMA foreign_keys=ON; PRAGMA synchronous=FULL; {setup}"
    engine = sa.create_engine(
        "sqlite://", creator=_connector(path, query, setup), poolclass=QueuePool
    )
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(WRITE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _set_journal(engine: Engine, mode: str) -> None:
    """Choose the journal; a file system that cannot have it keeps its own."""
    connection = engine.raw_connection()
    try:
        current = connection.cursor().execute("PRAGMA journal_mode").fetchone()[0]
        if current != mode:
            connection.cursor().execute(f"PRAGMA journal_mode={mode}")
    except sqlite3.OperationalError as error:
        usual = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL)
        if error.sqlite_errorcode & 0xFF not in usual:
            raise
    finally:
        connection.close()


def _reading_engine(path: Path) -> Engine:
    if not _is_file(path):
        raise UsageError(
            f"{path}: there are no results; run a search first, or give the directory of one "
            "with --results or --store"
        )
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        # a connection that may write can tidy up the log when it is the last to close
        return _sqlite_engine(path, "mode=rw", "PRAGMA query_only=ON;")
    engine = _sqlite_engine(path, "mode=ro")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    except sa.exc.OperationalError:
        engine.dispose()
    else:
        return engine
    log = path.with_name(path.name + "-wal")
    with storage_errors(log):
        if log.exists() and log.stat().st_size:
            raise DataError(
                f"{path}: its newest entries are in {log.name}, which cannot be read in a place "
                "that cannot be written; copy the directory to another place and read it there"
            )
    return _sqlite_engine(path, "mode=ro&immutable=1")
