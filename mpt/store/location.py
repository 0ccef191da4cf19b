"""Where the database of a directory of results is."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from mpt.errors import UsageError

FILE = "mpt.db"
"""Name of the database in a directory of results."""


def database_url(results: Path, store: str | None = None) -> str:
    """Return the URL of the database of a directory of results.

    Args:
        results: the directory; without `store`, the database is the file ``mpt.db`` in it.
        store: a URL of SQLAlchemy, or a path that ends in ".db".

    Raises:
        UsageError: `store` is neither.
    """
    if store is not None and "://" in store:
        return store
    if store is not None and not store.endswith(".db"):
        raise UsageError(
            f"--store {store}: must be a path that ends in .db or a database's URL, such as "
            "postgresql://user@host/name"
        )
    path = Path(store) if store is not None else Path(results) / FILE
    url = sa.URL.create("sqlite", database=str(path.absolute()))
    return url.render_as_string(hide_password=False)


def old_format_note(results: Path) -> str | None:
    """Return a line about results of the format before the database; None if there are none."""
    results = Path(results)
    if (results / FILE).exists() or not any(
        (results / name).is_dir() for name in ("leaves", "points")
    ):
        return None
    return (
        f"{results}: holds results of an older version (folders leaves and points), which this "
        "one does not read; read them with that version, and search again for a database"
    )
