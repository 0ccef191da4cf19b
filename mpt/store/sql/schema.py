"""The tables of the database.

    study ─┬─< point >──< point_run >── run ──> recipe, provenance
           │     (which runs a point is made of)
    stop, artifact, document     stand by themselves and name keys

Rows are inserted once and never updated. Every row that others name has a `key` that follows from
its content (`mpt.keys`), and the rows that hold scores a `checksum` over what was measured.
Structured values are JSON texts, so that any SQL browser shows them.

Tables of a database that exists change only by a new migration (`mpt/store/migrations/versions`);
a new database is made from those below.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

HEAD = "0001"
"""The newest migration: what a database of this program's schema says of itself."""

VERSION_TABLE = "mpt_schema"
"""Table that holds the newest migration that ran; Optuna, which may share the database, has its
own ``alembic_version``."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


DIGEST = String(64)
NAME = String(255)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _key(name: str = "key") -> Column[str]:
    return Column(name, DIGEST, nullable=False, unique=True)


def _must(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


def _may(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=True)


def _refers(name: str, target: str) -> Column[int]:
    return Column(name, Integer, ForeignKey(f"{target}.id"), nullable=False)


def _costs() -> list[Column[float]]:
    return [_must(name, Double) for name in ("train_steps", "examples", "tokens", "seconds")]


study = Table(
    "study",
    metadata,
    _id(),
    _key(),
    _must("backbone", Text),
    _must("backbone_digest", DIGEST),
    _must("gym", Text),
    _must("partition", NAME),
    _must("role", NAME),
    _must("source_set", NAME),
    _may("source_shots", Text),  # JSON: a number, "all" or null
    _may("target_shots", Text),  # JSON likewise
    _must("source", Text),  # JSON: [[task, data seed, digest], …]
    _must("scored", Text),  # JSON likewise
    _must("data_seeds", Text),  # JSON: [13, …]
    _must("train_seed", BigInteger),
    _must("precision", NAME),
    _must("settings", Text),  # JSON: what differs from the defaults
    _must("lrs", Text),  # JSON: downstream learning rates
    _may("partial", Text),
    _must("smoke", Boolean),
    _must("code", Integer),
)
"""What is compared with what."""

recipe = Table("recipe", metadata, _id(), _key("digest"), _must("body", Text))
"""Downstream recipes of runs (JSON), each once."""

provenance = Table("provenance", metadata, _id(), _key("digest"), _must("body", Text))
"""Commits, versions and machines (JSON), each once."""

run = Table(
    "run",
    metadata,
    _id(),
    _key(),
    _must("task", NAME),
    _must("data_seed", BigInteger),
    _must("lr", Double),
    _may("dev", Double),
    _may("test", Double),
    _must("status", NAME),
    _must("best_step", Integer),
    _may("stopped", Text),
    _must("metric", NAME),
    _may("shots", Integer),
    _must("backbone", DIGEST),
    _must("data", DIGEST),
    _may("init", DIGEST),
    _refers("recipe_id", "recipe"),
    _must("train_seed", BigInteger),
    _must("tuned", NAME),
    _must("precision", NAME),
    _must("code", Integer),
    *_costs(),
    _must("curve", Text),  # JSON: [[step, dev, loss], …]
    _refers("provenance_id", "provenance"),
    _must("created", NAME),
    _must("checksum", DIGEST),
)
"""One downstream run a row."""

point = Table(
    "point",
    metadata,
    _id(),
    _key(),
    _refers("study_id", "study"),
    _must("method", NAME),
    _must("settings", Text),  # JSON
    _must("steps", Integer),
    _must("upstream", NAME),
    _may("prompt", DIGEST),
    _must("status", NAME),
    _must("note", Text),
    *_costs(),
    _refers("provenance_id", "provenance"),
    _must("created", NAME),
    _must("checksum", DIGEST),
    Index("ix_point_study_id", "study_id"),
)
"""One configuration after some upstream steps a row."""

point_run = Table(
    "point_run",
    metadata,
    Column("point_id", Integer, ForeignKey("point.id"), primary_key=True, autoincrement=False),
    Column("run_id", Integer, ForeignKey("run.id"), primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
"""Which runs a point is made of; most runs serve several points."""

stop = Table(
    "stop",
    metadata,
    _id(),
    _must("point", DIGEST),
    _must("trial", NAME),
    _must("steps", Integer),
    _must("by", NAME),
    _must("reason", Text),
    _must("created", NAME),
    Index("ix_stop_point", "point"),
)
"""Trials that a scheduler or racing ended, and why."""

artifact = Table(
    "artifact",
    metadata,
    _id(),
    _must("kind", NAME),
    _must("owner", NAME),
    _must("steps", Integer),
    _must("uri", Text),
    _must("digest", NAME),
    _must("meta", Text),  # JSON
    _must("created", NAME),
    Index("ix_artifact_owner_kind", "owner", "kind"),
)
"""Files that results refer to."""

document = Table(
    "document",
    metadata,
    _id(),
    _must("kind", NAME),
    _must("name", NAME),
    _must("body", Text),  # JSON
    _must("checksum", DIGEST),
    _must("created", NAME),
    Index("ix_document_kind_name", "kind", "name", unique=True),
)
"""Small things that are kept whole, such as rankings of similar tasks."""
