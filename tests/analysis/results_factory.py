"""Results directories for tests of the analysis, written by the program's own stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from mpt.records import LeafStore, PointStore, Record, make_leaf

SEEDS = (13, 21)
ORIGIN: Record = {"commit": "abc123", "versions": {"torch": "2.13.0"}, "time": "2026-01-01"}
Scores = Mapping[str, Mapping[int, float]]


def flat(tasks: Mapping[str, float], seeds: Sequence[int] = SEEDS) -> dict[str, dict[int, float]]:
    """Return the same score at every data seed."""
    return {task: dict.fromkeys(seeds, score) for task, score in tasks.items()}


class Results:
    """A results directory that is filled by hand.

    Args:
        root: the directory.
        lrs: learning rates of every (task, data seed), in order.
    """

    def __init__(self, root: Path, lrs: Sequence[float] = (0.5, 0.3)) -> None:
        self.root, self.lrs = root, tuple(lrs)
        self.leaves, self.points = LeafStore(root), PointStore(root)

    def leaf(
        self, task: str, seed: int, lr: float, *, init: str, **result: float | str | None
    ) -> str:
        """Write one leaf and return its key."""
        leaf = self._leaf(task, seed, lr, init, result)
        self.leaves.put_many([leaf])
        return str(leaf["key"])

    def _leaf(
        self, task: str, seed: int, lr: float, init: str, result: Mapping[str, float | str | None]
    ) -> Record:
        body: Record = {
            "dev": 0.5,
            "test": 0.5,
            "best_step": 2,
            "curve": [],
            "status": "ok",
            **result,
        }
        identity = {
            "schema": 1,
            "task": task,
            "data_seed": seed,
            "lr": lr,
            "init": init,
            "data": f"data of {task} {seed}",
            "metric": "ACC",
        }
        cost = {"steps": 10, "examples": 80, "tokens": 1000, "seconds": 1.5}
        return make_leaf(identity, body, cost, ORIGIN)

    def table(self, scores: Scores, init: str) -> dict[str, dict[str, list[tuple[float, str]]]]:
        """Write leaves whose first learning rate is the best on dev; return the table of keys."""
        leaves: list[Record] = []
        keys: dict[str, dict[str, list[tuple[float, str]]]] = {}
        for task, row in scores.items():
            for seed, test in row.items():
                for n, lr in enumerate(self.lrs):
                    result = {"dev": 0.9 - 0.1 * n, "test": test}
                    leaves.append(self._leaf(task, seed, lr, init, result))
                    at = keys.setdefault(task, {}).setdefault(str(seed), [])
                    at.append((lr, leaves[-1]["key"]))
        # whether a leaf outlives a power failure is not the question here, and a disk is slow
        with mock.patch("mpt.storage.os.fsync"):
            self.leaves.put_many(leaves)
        return keys

    def point(
        self,
        method: str,
        partition: str,
        scores: Scores,
        baseline: Scores,
        /,
        *,
        identity: Mapping[str, Any] | None = None,
        **body: Any,
    ) -> str:
        """Write a target cell (or what `body` says instead) with its leaves; return its key."""
        steps = body.setdefault("steps", 100)
        trajectory = body.setdefault("trajectory", f"{method} {partition}")
        init = f"{trajectory} {steps} {body}"
        record = {
            "method": method,
            "partition": partition,
            "config": {"method": method, "inner_lr": 1.0, "outer_lr": 0.1},
            "prompt": "digest",
            "leaves": self.table(scores, init),
            "baseline": self.table(baseline, "vocabulary"),
            "status": "ok",
            "note": "",
            "partial": None,
            "cost": {"steps": steps, "examples": 4 * steps, "tokens": 99, "seconds": 36.0},
            "provenance": ORIGIN,
            "backbone": "embedded",
            "gym": "embedded",
            "role": "target",
            "sources": 45,
            "source_set": "all",
            "source_shots": None,
            "target_shots": None,
            **body,
        }
        place = {"init": init, "backbone": "b" * 64, "train_seed": 42, "steps": steps}
        return self.points.put({"schema": 1, **place, **(identity or {})}, record)
