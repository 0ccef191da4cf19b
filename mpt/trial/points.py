"""Point records: what makes a point, what it is a point of, and whether it is whole."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mpt.records import SCHEMA, LeafStore, Record
from mpt.trial.objective import leaf_counts

if TYPE_CHECKING:
    from mpt.study.study import Study


def point_identity(study: Study, trajectory_key: str, steps: int) -> Record:
    """Return everything that can change a point's score, and what it is a point of.

    Two settings may have the same sources and scored tasks; each has points of its own, with the
    same leaves.
    """
    plan, config = study.plan, study.config
    return {
        "schema": SCHEMA,
        "role": plan.role,
        "partition": config.partition,
        "trajectory": trajectory_key,
        "steps": steps,
        "backbone": study.backbone.digest,
        "prompt": dataclasses.asdict(config.prompt),
        "text": dataclasses.asdict(config.text),
        "downstream": {
            **dataclasses.asdict(config.downstream),
            "lrs": [float(lr) for lr in config.downstream.lrs],
        },
        "scored": [
            [name, seed, task.digest]
            for name, samples in study.scored.items()
            for seed, task in samples.items()
        ],
        "train_seed": config.train_seed,
        # named choices may come to the same tasks
        **({} if plan.source_set == "all" else {"source_set": plan.source_set}),
    }


def point_labels(study: Study, method: str) -> Record:
    """Return what a point record says of its study and method in words."""
    plan = study.plan
    return {
        "method": method,
        "partition": plan.config.partition,
        "backbone": plan.config.backbone,
        "gym": plan.config.gym,
        "role": plan.role,
        "sources": len(plan.source),
        "source_tasks": list(plan.source),
        "source_set": plan.source_set,
        "source_shots": _shots(plan.source_shots),
        "target_shots": _shots(plan.target_shots),
        "partial": plan.partial,
    }


def _shots(shots: int | None) -> int | str | None:
    """Return shots as a record has them: a number, "all", or None for the tasks' own."""
    return None if shots is None else shots or "all"


def point_is_whole(point: Record | None, store: LeafStore) -> bool:
    """Return whether a point is recorded and every leaf it names is on disk."""
    if point is None:
        return False
    if point["status"] == "diverged":
        return True
    counts = [leaf_counts(store, point[part]) for part in ("leaves", "baseline")]
    return all(there == of for there, of in counts)
