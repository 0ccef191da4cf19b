"""Between records (`mpt.store.records`) and rows of the tables (`mpt.store.sql.schema`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

from mpt.keys import canonical, digest
from mpt.store.records import Artifact, Cost, Point, Run, RunIdentity, Stop, StudyRecord

Row = Mapping[str, Any] | RowMapping
"""Column → value."""


def _cost_row(cost: Cost) -> dict[str, float]:
    return {
        "train_steps": cost.steps,
        "examples": cost.examples,
        "tokens": cost.tokens,
        "seconds": cost.seconds,
    }


def _cost(row: Row) -> Cost:
    return Cost(
        steps=row["train_steps"],
        examples=row["examples"],
        tokens=row["tokens"],
        seconds=row["seconds"],
    )


def shared_row(body: Any) -> dict[str, str]:
    """Return the row of a recipe or provenance, which many rows share."""
    return {"digest": digest(body), "body": canonical(body)}


def run_row(run: Run) -> dict[str, Any]:
    """Return the row of a run, without the ids of its recipe and provenance."""
    of = run.identity
    return {
        "key": run.key,
        "task": of.task,
        "data_seed": of.data_seed,
        "lr": float(of.lr),
        "dev": run.dev,
        "test": run.test,
        "status": run.status,
        "best_step": run.best_step,
        "stopped": run.stopped,
        "metric": of.metric,
        "shots": of.shots,
        "backbone": of.backbone,
        "data": of.data,
        "init": of.init,
        "train_seed": of.train_seed,
        "tuned": of.tuned,
        "precision": of.precision,
        "code": of.code,
        **_cost_row(run.cost),
        "curve": canonical([list(entry) for entry in run.curve]),
        "created": run.created,
        "checksum": run.checksum,
    }


def run_of(row: Row) -> Run:
    """Return the run of a row; `recipe` and `provenance` in it are JSON texts."""
    identity = RunIdentity(
        backbone=row["backbone"],
        task=row["task"],
        data=row["data"],
        data_seed=row["data_seed"],
        shots=row["shots"],
        metric=row["metric"],
        init=row["init"],
        lr=row["lr"],
        recipe=json.loads(row["recipe"]),
        train_seed=row["train_seed"],
        tuned=row["tuned"],
        precision=row["precision"],
        code=row["code"],
    )
    return Run(
        identity=identity,
        dev=row["dev"],
        test=row["test"],
        best_step=row["best_step"],
        curve=tuple((step, dev, loss) for step, dev, loss in json.loads(row["curve"])),
        status=row["status"],
        stopped=row["stopped"],
        cost=_cost(row),
        provenance=json.loads(row["provenance"]),
        created=row["created"],
    )


_STUDY_JSON = ("source_shots", "target_shots", "source", "scored", "data_seeds", "settings", "lrs")
_STUDY_TEXT = ("backbone", "backbone_digest", "gym", "partition", "role", "source_set")
_STUDY_PLAIN = (*_STUDY_TEXT, "train_seed", "precision", "partial", "smoke", "code")


def study_row(study: StudyRecord) -> dict[str, Any]:
    """Return the row of a study."""
    plain = {name: getattr(study, name) for name in _STUDY_PLAIN}
    texts = {name: canonical(getattr(study, name)) for name in _STUDY_JSON}
    return {"key": study.key, **plain, **texts}


def study_of(row: Row) -> StudyRecord:
    """Return the study of a row."""
    parts = {name: json.loads(row[name]) for name in _STUDY_JSON}
    for name in ("source", "scored"):
        parts[name] = tuple((task, seed, data) for task, seed, data in parts[name])
    for name in ("data_seeds", "lrs"):
        parts[name] = tuple(parts[name])
    return StudyRecord(**{name: row[name] for name in _STUDY_PLAIN}, **parts)


def point_row(point: Point) -> dict[str, Any]:
    """Return the row of a point, without its study and provenance ids and without its runs."""
    return {
        "key": point.key,
        "method": point.method,
        "settings": canonical(dict(point.settings)),
        "steps": point.steps,
        "upstream": point.upstream,
        "prompt": point.prompt,
        "status": point.status,
        "note": point.note,
        **_cost_row(point.cost),
        "created": point.created,
        "checksum": point.checksum,
    }


def point_of(row: Row, runs: tuple[str, ...]) -> Point:
    """Return the point of a row (`study`: key, `provenance`: JSON) and the keys of its runs."""
    return Point(
        study=row["study"],
        method=row["method"],
        settings=json.loads(row["settings"]),
        steps=row["steps"],
        upstream=row["upstream"],
        prompt=row["prompt"],
        runs=runs,
        status=row["status"],
        note=row["note"],
        cost=_cost(row),
        provenance=json.loads(row["provenance"]),
        created=row["created"],
    )


_STOP = ("point", "trial", "steps", "by", "reason", "created")


def stop_row(stop: Stop) -> dict[str, Any]:
    """Return the row of a stop."""
    return {name: getattr(stop, name) for name in _STOP}


def stop_of(row: Row) -> Stop:
    """Return the stop of a row."""
    return Stop(**{name: row[name] for name in _STOP})


_ARTIFACT = ("kind", "owner", "steps", "uri", "digest", "created")


def artifact_row(artifact: Artifact) -> dict[str, Any]:
    """Return the row of an artifact."""
    plain = {name: getattr(artifact, name) for name in _ARTIFACT}
    return {**plain, "meta": canonical(dict(artifact.meta))}


def artifact_of(row: Row) -> Artifact:
    """Return the artifact of a row."""
    return Artifact(**{name: row[name] for name in _ARTIFACT}, meta=json.loads(row["meta"]))
