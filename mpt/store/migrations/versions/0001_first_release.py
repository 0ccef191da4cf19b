"""The tables of the first release."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


DIGEST = sa.String(64)
NAME = sa.String(255)


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True)


def _refers(name: str, target: str, **options: Any) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, sa.ForeignKey(f"{target}.id"), **options)


def _study() -> None:
    op.create_table(
        "study",
        _id(),
        sa.Column("key", DIGEST, nullable=False, unique=True),
        sa.Column("backbone", sa.Text, nullable=False),
        sa.Column("backbone_digest", DIGEST, nullable=False),
        sa.Column("gym", sa.Text, nullable=False),
        sa.Column("partition", NAME, nullable=False),
        sa.Column("role", NAME, nullable=False),
        sa.Column("source_set", NAME, nullable=False),
        sa.Column("source_shots", sa.Text),
        sa.Column("target_shots", sa.Text),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("scored", sa.Text, nullable=False),
        sa.Column("data_seeds", sa.Text, nullable=False),
        sa.Column("train_seed", sa.BigInteger, nullable=False),
        sa.Column("precision", NAME, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("lrs", sa.Text, nullable=False),
        sa.Column("partial", sa.Text),
        sa.Column("smoke", sa.Boolean, nullable=False),
        sa.Column("code", sa.Integer, nullable=False),
    )


def _recipe() -> None:
    op.create_table(
        "recipe",
        _id(),
        sa.Column("digest", DIGEST, nullable=False, unique=True),
        sa.Column("body", sa.Text, nullable=False),
    )


def _provenance() -> None:
    op.create_table(
        "provenance",
        _id(),
        sa.Column("digest", DIGEST, nullable=False, unique=True),
        sa.Column("body", sa.Text, nullable=False),
    )


def _run() -> None:
    op.create_table(
        "run",
        _id(),
        sa.Column("key", DIGEST, nullable=False, unique=True),
        sa.Column("task", NAME, nullable=False),
        sa.Column("data_seed", sa.BigInteger, nullable=False),
        sa.Column("lr", sa.Double, nullable=False),
        sa.Column("dev", sa.Double),
        sa.Column("test", sa.Double),
        sa.Column("status", NAME, nullable=False),
        sa.Column("best_step", sa.Integer, nullable=False),
        sa.Column("stopped", sa.Text),
        sa.Column("metric", NAME, nullable=False),
        sa.Column("shots", sa.Integer),
        sa.Column("backbone", DIGEST, nullable=False),
        sa.Column("data", DIGEST, nullable=False),
        sa.Column("init", DIGEST),
        _refers("recipe_id", "recipe", nullable=False),
        sa.Column("train_seed", sa.BigInteger, nullable=False),
        sa.Column("tuned", NAME, nullable=False),
        sa.Column("precision", NAME, nullable=False),
        sa.Column("code", sa.Integer, nullable=False),
        sa.Column("train_steps", sa.Double, nullable=False),
        sa.Column("examples", sa.Double, nullable=False),
        sa.Column("tokens", sa.Double, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("curve", sa.Text, nullable=False),
        _refers("provenance_id", "provenance", nullable=False),
        sa.Column("created", NAME, nullable=False),
        sa.Column("checksum", DIGEST, nullable=False),
    )


def _point() -> None:
    op.create_table(
        "point",
        _id(),
        sa.Column("key", DIGEST, nullable=False, unique=True),
        _refers("study_id", "study", nullable=False),
        sa.Column("method", NAME, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("upstream", NAME, nullable=False),
        sa.Column("prompt", DIGEST),
        sa.Column("status", NAME, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("train_steps", sa.Double, nullable=False),
        sa.Column("examples", sa.Double, nullable=False),
        sa.Column("tokens", sa.Double, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        _refers("provenance_id", "provenance", nullable=False),
        sa.Column("created", NAME, nullable=False),
        sa.Column("checksum", DIGEST, nullable=False),
    )
    op.create_index("ix_point_study_id", "point", ["study_id"])


def _point_run() -> None:
    op.create_table(
        "point_run",
        _refers("point_id", "point", primary_key=True, autoincrement=False),
        _refers("run_id", "run", primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )


def _stop() -> None:
    op.create_table(
        "stop",
        _id(),
        sa.Column("point", DIGEST, nullable=False),
        sa.Column("trial", NAME, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("by", NAME, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created", NAME, nullable=False),
    )
    op.create_index("ix_stop_point", "stop", ["point"])


def _artifact() -> None:
    op.create_table(
        "artifact",
        _id(),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("owner", NAME, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("digest", NAME, nullable=False),
        sa.Column("meta", sa.Text, nullable=False),
        sa.Column("created", NAME, nullable=False),
    )
    op.create_index("ix_artifact_owner_kind", "artifact", ["owner", "kind"])


def _document() -> None:
    op.create_table(
        "document",
        _id(),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("checksum", DIGEST, nullable=False),
        sa.Column("created", NAME, nullable=False),
    )
    op.create_index("ix_document_kind_name", "document", ["kind", "name"], unique=True)


def upgrade() -> None:
    """Make all tables."""
    _study()
    _recipe()
    _provenance()
    _run()
    _point()
    _point_run()
    _stop()
    _artifact()
    _document()
