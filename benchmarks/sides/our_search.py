"""Our side of `peers.py`: the search as `mpt search` runs it, and its runs from the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mpt.config import UpstreamConfig
from mpt.search.job import Execution, SearchJob
from mpt.search.run import run_search
from mpt.store.database import open_results
from mpt.store.records import Point as StoredPoint
from mpt.store.records import Run
from mpt.study.specs import UpstreamSpec, trials_of
from mpt.study.study import StudyPlan
from sides.peer_search import BASELINE
from sides.peer_work import Point


def search(
    plan: StudyPlan, trajectories: Sequence[UpstreamSpec], results: Path, workers: int
) -> int:
    """Search the points of some trajectories; return the exit code."""
    job = SearchJob(
        trials=trials_of(plan, trajectories), results=results, title="peers", allocation="full"
    )
    return run_search(job, Execution(workers=workers))


def trials(results: Path, train_seed: int) -> list[dict[str, Any]]:
    """Return the points of a results directory as `Scorer.trial` gives them."""
    with open_results(results, read_only=True) as database:
        points = []
        for point in database.points():
            rows = rows_of(database.runs(point.runs).values())
            points.append({"point": _name(point, train_seed), "runs": rows, "seconds": {}})
        return points


def rows_of(runs: Iterable[Run]) -> list[list[Any]]:
    """Return task, data seed, learning rate, dev and test score of every run."""
    return [
        [run.identity.task, run.identity.data_seed, run.identity.lr, run.dev, run.test]
        for run in runs
    ]


def saved_trials(folder: Path) -> list[dict[str, Any]]:
    """Return the trials that a peer has written."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("trial*.json"))]


def _name(point: StoredPoint, train_seed: int) -> str:
    if point.method == BASELINE.replace(" ", "_"):
        return BASELINE
    config = UpstreamConfig(**{**point.settings, "extra": ()})
    seed = train_seed if config.seed is None else config.seed
    return Point(config.inner_lr, config.outer_lr, point.steps, seed).name
