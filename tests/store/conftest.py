from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgres_server import postgres_server

from mpt.store.database import Database, database_url

_numbers = itertools.count()

NO_FILES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "link to itself": lambda path: path.symlink_to(path),
}
"""What may lie at a file's path without being one → function that makes it."""


@pytest.fixture(params=NO_FILES)
def make_no_file(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    """Function that puts something that is no file at a path."""
    return NO_FILES[request.param]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """URL of a PostgreSQL server's first database."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def admin(server: str) -> Iterator[sa.Connection]:
    """A connection of the server's administrator."""
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def postgres_url(server: str, admin: sa.Connection) -> Iterator[str]:
    """URL of an empty schema on a PostgreSQL server: as good as a database, and made sooner."""
    name = f"results_{next(_numbers)}"
    admin.exec_driver_sql(f"CREATE SCHEMA {name}")
    url = sa.make_url(server).set(query={"options": f"-csearch_path={name}"})
    yield url.render_as_string(hide_password=False)
    admin.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def postgres_database(server: str, admin: sa.Connection) -> Iterator[str]:
    """URL of an empty database on a PostgreSQL server."""
    name = f"results_{next(_numbers)}"
    admin.exec_driver_sql(f"CREATE DATABASE {name}")
    yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    admin.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database that is not there yet (SQLite) or empty (PostgreSQL)."""
    if request.param == "sqlite":
        return database_url(tmp_path / "results")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with Database(url) as database:
        yield database
