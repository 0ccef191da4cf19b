"""The tables of the first release.

A new database is made from `mpt.store.sql.schema`, and every older one has at least these tables:
so there is nothing to be done, and further migrations follow on this one.
"""

from __future__ import annotations

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Change nothing."""
