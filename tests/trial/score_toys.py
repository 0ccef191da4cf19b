"""Runs with scores that a test chooses, for what is computed from stored runs."""

from __future__ import annotations

from typing import Any

from mpt.store.records import Point, Run, RunIdentity, ScoreRow, StudyRecord

Scores = dict[str, list[list[float | None]]]
"""Task → for each data seed the score of each learning rate; None: the run diverged."""


def study_of(tasks: str = "ab", seeds: int = 2, lrs: tuple[float, ...] = (0.5,)) -> StudyRecord:
    """Return a study that scores tasks with names of one letter, at data seeds 0, 1, …"""
    return StudyRecord(
        backbone="toy",
        backbone_digest="b",
        gym="toys",
        partition="random_to_random",
        role="validation",
        scored=tuple((task, seed, "d") for task in tasks for seed in range(seeds)),
        data_seeds=tuple(range(seeds)),
        lrs=lrs,
    )


def point_of(study: StudyRecord, **changes: Any) -> Point:
    """Return a point of a study."""
    body: dict[str, Any] = {
        "study": study.key,
        "method": "maml",
        "settings": {"method": "maml"},
        "steps": 1,
        "upstream": "u",
        "prompt": "p",
        "runs": (),
    }
    return Point(**{**body, **changes})


def row(
    task: str,
    seed: int,
    test: float | None,
    dev: float | None = 0.5,
    lr: float = 0.5,
    kind: str = "run",
    start: int = 42,
) -> ScoreRow:
    """Return a run as scores see it; one without a test score diverged."""
    dev = None if test is None else dev
    status = "diverged" if test is None else "ok"
    key = f"{kind}-{task}-{seed}-{lr}-{start}"
    return ScoreRow("point", task, seed, lr, dev, test, status, key, 1.0, 1.0, 1.0, start)


def run_of(
    task: str, seed: int, lr: float, score: float | None, kind: str = "run", start: int = 42
) -> Run:
    """Return a run whose dev score is its test score, as the database has it."""
    identity = RunIdentity(
        backbone="b",
        task=task,
        data="d",
        data_seed=seed,
        shots=4,
        metric="ACC",
        init=kind,
        lr=lr,
        recipe={},
        train_seed=start,
    )
    status = "diverged" if score is None else "ok"
    return Run(identity=identity, dev=score, test=score, best_step=1, curve=(), status=status)


def row_of(run: Run) -> ScoreRow:
    """Return a run as scores see it."""
    own = run.identity
    cell = (own.task, own.data_seed, own.lr, run.dev, run.test, run.status)
    return ScoreRow("point", *cell, run.key, 1, 1, 1, own.train_seed)
