"""Toy searches of tests/search, and a PostgreSQL server of tests/store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """URL of a PostgreSQL server's database; the test is skipped where no server starts."""
    from postgres_server import postgres_server

    with postgres_server() as url:
        yield url
