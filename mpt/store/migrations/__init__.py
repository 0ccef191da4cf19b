"""How a database becomes one of this schema, run from Python by Alembic."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from mpt.store.sql.schema import VERSION_TABLE, metadata

_LOCK = 0x6D7074
"""Number of the advisory lock that two processes which create tables at once compete for."""


def config() -> Config:
    """Return Alembic's settings."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    return settings


def known() -> set[str]:
    """Return the versions of all schemas that this program can bring up to date."""
    return {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}


def migrate(connection: Connection) -> None:
    """Make the tables, or bring them up to date, in one transaction.

    Another process that does so is awaited.
    """
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        settings = config()
        settings.attributes["connection"] = connection
        if sa.inspect(connection).has_table(VERSION_TABLE):
            command.upgrade(settings, "head")
        else:
            metadata.create_all(connection)
            command.stamp(settings, "head")
