"""Alembic's entry: it runs the migrations on the connection it was given."""

from __future__ import annotations

from alembic import context

from mpt.store.sql.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
