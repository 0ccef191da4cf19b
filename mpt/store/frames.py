"""Tables for people: what the database holds as pandas frames, one row a thing.

Frame      Columns
studies    id, key, then every field of `StudyRecord`
runs       every field of `RunIdentity` and `Run` (of the recipe, each setting that differs from
           its default, as ``downstream.steps``), cost, commit
points     study (its id), method, every setting of the method, steps, number of runs, cost, commit
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mpt.keys import flat
from mpt.store.sql import queries, rows, schema

if TYPE_CHECKING:
    import pandas

    from mpt.store.database import Database

_HIDDEN = ("id", "recipe_id", "provenance_id", "study_id", "checksum")
"""Columns that mean nothing outside of the database."""


def frame(database: Database, name: str) -> pandas.DataFrame:
    """Return one of the frames above.

    Raises:
        ValueError: there is no such frame.
    """
    import pandas

    if name not in _FRAMES:
        raise ValueError(f"frame {name!r}: must be one of {', '.join(_FRAMES)}")
    entries, first = _FRAMES[name](database)
    made = pandas.DataFrame(entries)
    if not entries:
        return pandas.DataFrame(columns=list(first))
    return made[[*first, *(column for column in made.columns if column not in first)]]


def html_of(table: pandas.DataFrame) -> str:
    """Return a frame as a table for notebooks; of real numbers three digits are shown."""
    return str(table.to_html(index=False, float_format=lambda number: f"{number:.3g}"))


_Entries = tuple[list[dict[str, Any]], tuple[str, ...]]
"""Rows, and the columns that stand first."""


def _studies(database: Database) -> _Entries:
    query = sa.select(schema.study).order_by(schema.study.c.id)
    with database.reading() as connection:
        study_rows = connection.execute(query).mappings().all()
    entries = []
    for row in study_rows:
        plain = {name: value for name, value in row.items() if name not in _HIDDEN}
        whole = {name: getattr(rows.study_of(row), name) for name in plain if name != "key"}
        entries.append({"id": row["key"][:8], "key": row["key"], **whole})
    return entries, ("id", "key", "backbone", "gym", "partition", "role")


def _runs(database: Database) -> _Entries:
    with database.reading() as connection:
        run_rows = connection.execute(queries.RUNS.order_by(schema.run.c.id)).mappings().all()
    entries = []
    for row in run_rows:
        recipe, origin = json.loads(row["recipe"]), json.loads(row["provenance"])
        entry = {name: value for name, value in row.items() if name not in _HIDDEN}
        del entry["recipe"], entry["provenance"]
        entry["curve"] = json.loads(row["curve"])
        entries.append({**entry, **flat(recipe), "commit": origin.get("commit")})
    first = ("key", "task", "data_seed", "lr", "dev", "test", "status", "best_step", "metric")
    return entries, first


def _points(database: Database) -> _Entries:
    count = sa.func.count(schema.point_run.c.run_id)
    counts = sa.select(schema.point_run.c.point_id, count).group_by(schema.point_run.c.point_id)
    with database.reading() as connection:
        point_rows = (
            connection.execute(queries.POINTS.order_by(schema.point.c.id)).mappings().all()
        )
        sizes = {row[0]: row[1] for row in connection.execute(counts)}
    entries = []
    for row in point_rows:
        entry = {name: value for name, value in row.items() if name not in _HIDDEN}
        settings, origin = json.loads(entry.pop("settings")), json.loads(entry.pop("provenance"))
        entry["study"] = entry["study"][:8]
        entry["runs"] = sizes.get(row["id"], 0)
        entry["commit"] = origin.get("commit")
        # a setting that is called like a column keeps out of its way
        named = {
            f"setting.{name}" if name in entry else name: value
            for name, value in flat(settings).items()
        }
        entries.append({**entry, **named})
    return entries, ("key", "study", "method", "steps", "runs", "status")


_FRAMES: dict[str, Callable[[Database], _Entries]] = {
    "studies": _studies,
    "runs": _runs,
    "points": _points,
}
