"""What the database costs: seconds to write, to ask and to score runs, and bytes a run.

    python benchmarks/scaling/store.py [--runs 100000] [--store URL]

It writes runs as a search does (batches of 1000; ten evaluations in each curve), points of 100 of
them, and then asks what a finished search and a report ask. It prints one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mpt.store.database import open_results
from mpt.store.doctor import check
from mpt.store.records import Cost, Point, Run, RunIdentity, StudyRecord

BATCH = 1000
"""Runs that are written in one transaction."""

POINT = 100
"""Runs of a point."""

_STUDY = StudyRecord(
    backbone="none",
    backbone_digest="0" * 64,
    gym="none",
    partition="none",
    role="validation",
    data_seeds=(13, 21),
    lrs=(0.5, 0.4, 0.3, 0.2),
)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_run(number: int) -> Run:
    """Return a run of plausible size: ten evaluations of full precision."""
    share = (number % 997) / 997
    identity = RunIdentity(
        backbone=_digest("backbone"),
        task=f"task_with_a_usual_name_{number % 20}",
        data=_digest(f"data {number % 100}"),
        data_seed=13 + number % 5,
        shots=16,
        metric="Classification-F1",
        init=_digest(f"prompt {number // POINT}"),
        lr=0.5 + number,
        recipe={"downstream": {"steps": 50, "eval_every": 5}, "prompt": {"length": 10}},
        train_seed=42,
    )
    curve = tuple((5 * step, share, 2.0 / (step + share)) for step in range(1, 11))
    return Run(
        identity=identity,
        dev=share,
        test=share / 3,
        best_step=25,
        curve=curve,
        status="ok",
        cost=Cost(steps=50, examples=800, tokens=40_000, seconds=1.25),
        provenance={"commit": "0" * 40, "versions": {"torch": "2"}, "machine": {"node": "here"}},
        created="2026-01-01T00:00:00+00:00",
    )


def make_points(keys: list[str]) -> Iterator[Point]:
    """Yield points of `POINT` of the runs each."""
    for number in range(0, len(keys), POINT):
        yield Point(
            study=_STUDY.key,
            method="maml",
            settings={"inner_lr": 0.1, "outer_lr": float(number), "inner_steps": 5},
            steps=100,
            upstream=_digest(f"upstream {number}"),
            prompt=_digest(f"prompt {number}"),
            runs=tuple(sorted(keys[number : number + POINT])),
        )


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def measure(results: Path, count: int, store: str | None = None) -> dict[str, Any]:
    """Return seconds, rates and bytes with `count` runs.

    Args:
        results: an empty directory.
        count: runs.
        store: see `open_results`; None: SQLite in the directory.
    """
    with open_results(results, store) as database:
        database.add_study(_STUDY)
        keys, writing = [], 0.0
        for begin in range(0, count, BATCH):
            runs = [make_run(number) for number in range(begin, min(begin + BATCH, count))]
            seconds, new = _timed(partial(database.add_runs, runs))
            keys += new
            writing += seconds
        points = list(make_points(keys))
        pointing, _ = _timed(lambda: [database.add_point(point) for point in points])
        file = database.path
    size = None if file is None else file.stat().st_size
    opening, database = _timed(lambda: open_results(results, store))
    with database:
        present, stored_keys = _timed(lambda: database.present(keys))
        listing, _ = _timed(database.points)
        scoring, rows = _timed(lambda: database.score_rows([point.key for point in points]))
        checking, problems = _timed(lambda: check(database, storage=False))
    if len(stored_keys) != count or len(rows) != count or problems:
        raise RuntimeError(f"{len(stored_keys)} runs, {len(rows)} score rows, {problems[:3]}")
    return {
        "runs": count,
        "points": len(points),
        "runs written a second": round(count / writing),
        "points written a second": round(len(points) / pointing),
        "seconds to open": round(opening, 4),
        "seconds to ask for all keys": round(present, 3),
        "seconds to read all points": round(listing, 3),
        "seconds to read all score rows": round(scoring, 3),
        "seconds of the doctor": round(checking, 3),
        "bytes a run on disk": None if size is None else round(size / count),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--store", help="URL of an empty database (default: SQLite)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options.runs, options.store), indent=1))


if __name__ == "__main__":
    main()
