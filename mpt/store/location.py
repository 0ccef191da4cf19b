"""Where the database of a directory of results is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpt.errors import UsageError

if TYPE_CHECKING:
    import sqlalchemy as sa

FILE = "mpt.db"
"""Name of the database in a directory of results."""


def parse_url(url: str) -> sa.URL:
    """Return a URL in the form that SQLAlchemy, Optuna and other processes understand alike.

    The path of an SQLite file becomes absolute: a worker stands in another directory.

    Raises:
        UsageError: it is no URL.
    """
    import sqlalchemy as sa  # a help text needs no URL

    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError(
            "the database given with --store is no URL; give a path that ends in .db, or a URL "
            "such as postgresql://user@host/name"
        ) from None
    if parsed.drivername == "postgres":  # as many hosts print it
        parsed = parsed.set(drivername="postgresql")
    if parsed.drivername == "sqlite" and parsed.database not in (None, "", ":memory:"):
        parsed = parsed.set(database=str(Path(str(parsed.database)).absolute()))
    return parsed


def database_url(results: Path, store: str | None = None) -> str:
    """Return the URL of the database of a directory of results.

    Args:
        results: the directory; without `store`, the database is the file ``mpt.db`` in it.
        store: a URL of SQLAlchemy, or a path that ends in ".db".

    Raises:
        UsageError: `store` is neither.
    """
    if store is not None and "://" in store:
        return parse_url(store).render_as_string(hide_password=False)
    if store is not None and not store.endswith(".db"):
        raise UsageError(
            f"--store {store}: must be a path that ends in .db or a database's URL, such as "
            "postgresql://user@host/name"
        )
    import sqlalchemy as sa

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
