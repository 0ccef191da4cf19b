"""Between records (`mpt.store.records`) and rows of the tables (`mpt.store.sql.schema`)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

from mpt.keys import canonical, digest
from mpt.store.records import Artifact, Cost, Point, Run, RunIdentity, Stop, StudyRecord

Row = Mapping[str, Any] | RowMapping
"""Column → value."""


def _fields(record: type, *others: str) -> tuple[str, ...]:
    """Return the fields of a record that are columns as they are: all but some others."""
    return tuple(one.name for one in dataclasses.fields(record) if one.name not in others)


_STUDY_JSON = ("source_shots", "target_shots", "source", "scored", "data_seeds", "settings", "lrs")
_STUDY = _fields(StudyRecord, *_STUDY_JSON)
_IDENTITY = _fields(RunIdentity, "recipe")
_RUN = _fields(Run, "identity", "curve", "cost", "provenance")
_POINT = _fields(Point, "study", "settings", "runs", "cost", "provenance")
_ARTIFACT = _fields(Artifact, "meta")
_STOP = _fields(Stop)
_COST = {"train_steps": "steps", "examples": "examples", "tokens": "tokens", "seconds": "seconds"}
"""Column → field of `Cost`."""


def _columns(record: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def _values(row: Row, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _cost_row(cost: Cost) -> dict[str, float]:
    return {column: getattr(cost, name) for column, name in _COST.items()}


def _cost(row: Row) -> Cost:
    return Cost(**{name: row[column] for column, name in _COST.items()})


def shared_row(body: Any) -> dict[str, str]:
    """Return the row of a recipe or provenance, which many rows share."""
    return {"digest": digest(body), "body": canonical(body)}


def run_row(run: Run) -> dict[str, Any]:
    """Return the row of a run, without the ids of its recipe and provenance."""
    return {
        "key": run.key,
        **_columns(run.identity, _IDENTITY),
        "lr": float(run.identity.lr),
        **_columns(run, _RUN),
        **_cost_row(run.cost),
        "curve": canonical([list(entry) for entry in run.curve]),
        "checksum": run.checksum,
    }


def run_of(row: Row) -> Run:
    """Return the run of a row; `recipe` and `provenance` in it are JSON texts."""
    return Run(
        identity=RunIdentity(**_values(row, _IDENTITY), recipe=json.loads(row["recipe"])),
        **_values(row, _RUN),
        curve=tuple((step, dev, loss) for step, dev, loss in json.loads(row["curve"])),
        cost=_cost(row),
        provenance=json.loads(row["provenance"]),
    )


def study_row(study: StudyRecord) -> dict[str, Any]:
    """Return the row of a study."""
    texts = {name: canonical(getattr(study, name)) for name in _STUDY_JSON}
    return {"key": study.key, **_columns(study, _STUDY), **texts}


def study_of(row: Row) -> StudyRecord:
    """Return the study of a row."""
    parts = {name: json.loads(row[name]) for name in _STUDY_JSON}
    for name in ("source", "scored"):
        parts[name] = tuple((task, seed, data) for task, seed, data in parts[name])
    for name in ("data_seeds", "lrs"):
        parts[name] = tuple(parts[name])
    return StudyRecord(**_values(row, _STUDY), **parts)


def point_row(point: Point) -> dict[str, Any]:
    """Return the row of a point, without its study and provenance ids and without its runs."""
    return {
        "key": point.key,
        **_columns(point, _POINT),
        "settings": canonical(dict(point.settings)),
        **_cost_row(point.cost),
        "checksum": point.checksum,
    }


def point_of(row: Row, runs: tuple[str, ...]) -> Point:
    """Return the point of a row (`study`: key, `provenance`: JSON) and the keys of its runs."""
    return Point(
        **_values(row, (*_POINT, "study")),
        settings=json.loads(row["settings"]),
        runs=runs,
        cost=_cost(row),
        provenance=json.loads(row["provenance"]),
    )


def stop_row(stop: Stop) -> dict[str, Any]:
    """Return the row of a stop."""
    return _columns(stop, _STOP)


def stop_of(row: Row) -> Stop:
    """Return the stop of a row."""
    return Stop(**_values(row, _STOP))


def artifact_row(artifact: Artifact) -> dict[str, Any]:
    """Return the row of an artifact."""
    return {**_columns(artifact, _ARTIFACT), "meta": canonical(dict(artifact.meta))}


def artifact_of(row: Row) -> Artifact:
    """Return the artifact of a row."""
    return Artifact(**_values(row, _ARTIFACT), meta=json.loads(row["meta"]))
