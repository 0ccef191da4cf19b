"""Databases of results for tests of the analysis, filled through the program's own interface."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpt.store.database import FILE, open_results
from mpt.store.records import BASELINE, Cost, Point, Run, RunIdentity, StudyRecord

SEEDS = (13, 21)
ORIGIN = {"commit": "abc123", "versions": {"torch": "2.13.0"}}
NOW = "2026-01-01T00:00:00+00:00"
Scores = Mapping[str, Mapping[int, float]]
Missing = tuple[str, int, float]


def flat(tasks: Mapping[str, float], seeds: Sequence[int] = SEEDS) -> dict[str, dict[int, float]]:
    """Return the same score at every data seed."""
    return {task: dict.fromkeys(seeds, score) for task, score in tasks.items()}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Results:
    """A database that is filled by hand.

    Args:
        root: the results directory.
        lrs: learning rates of every (task, data seed), in order.
        seeds: data seeds of every study.
    """

    def __init__(
        self, root: Path, lrs: Sequence[float] = (0.5, 0.3), seeds: Sequence[int] = SEEDS
    ) -> None:
        self.root, self.lrs, self.seeds = root, tuple(lrs), tuple(seeds)
        self.database = open_results(root)

    def run(
        self,
        task: str,
        seed: int,
        lr: float,
        *,
        init: str,
        data: str | None = None,
        backbone: str = "embedded",
        recipe: Mapping[str, Any] | None = None,
        train_seed: int = 42,
        **result: Any,
    ) -> str:
        """Write one run and return its key."""
        run = self._run(task, seed, lr, init, data, backbone, recipe or {}, result, train_seed)
        self.database.add_runs([run])
        return run.key

    def _run(
        self,
        task: str,
        seed: int,
        lr: float,
        init: str,
        data: str | None,
        backbone: str,
        recipe: Mapping[str, Any],
        result: Mapping[str, Any],
        train_seed: int,
    ) -> Run:
        identity = RunIdentity(
            backbone=sha(backbone),
            task=task,
            data=data or f"data of {task} {seed}",
            data_seed=seed,
            shots=16,
            metric="ACC",
            init=init,
            lr=lr,
            recipe=recipe,
            train_seed=train_seed,
        )
        body = {"dev": 0.5, "test": 0.5, "best_step": 2, "curve": (), "status": "ok", **result}
        cost = Cost(steps=10, examples=80, tokens=1000, seconds=1.5)
        return Run(identity=identity, cost=cost, provenance=ORIGIN, created=NOW, **body)

    def runs(
        self, scores: Scores, init: str, study: StudyRecord, without: Sequence[Missing] = ()
    ) -> list[str]:
        """Write runs whose first learning rate is the best on dev; return their keys."""
        data = {(task, seed): digest for task, seed, digest in study.scored}
        runs = [
            self._run(
                task, seed, lr, init, data[task, seed], study.backbone, {},
                {"dev": 0.9 - 0.1 * n, "test": test}, start,
            )
            for start in study.start_seeds
            for task, row in scores.items()
            for seed, test in row.items()
            for n, lr in enumerate(self.lrs)
            if (task, seed, lr) not in without
        ]  # fmt: skip
        self.database.add_runs(runs)
        return [run.key for run in runs]

    def study(self, partition: str, tasks: Sequence[str], **fields: Any) -> StudyRecord:
        """Return a study of these scored tasks; `sources` is its number of source tasks."""
        edited = fields.pop("edited", {})
        sources = range(fields.pop("sources", 45))
        backbone = fields.setdefault("backbone", "embedded")
        scored = [(task, seed) for task in tasks for seed in self.seeds]
        return StudyRecord(
            **{
                "backbone_digest": sha(backbone),
                "gym": "embedded",
                "partition": partition,
                "role": "target",
                "source": tuple((f"s{n:02d}", 13, sha(f"s{n}")) for n in sources),
                "scored": tuple((t, s, edited.get(t, f"data of {t} {s}")) for t, s in scored),
                "data_seeds": self.seeds,
                "lrs": self.lrs,
                **fields,
            }
        )

    def point(
        self,
        method: str,
        partition: str,
        scores: Scores,
        baseline: Scores,
        /,
        *,
        runs: Sequence[str] | None = None,
        without: Sequence[Missing] = (),
        point: Mapping[str, Any] | None = None,
        **study: Any,
    ) -> str:
        """Write a point of a study with its runs, and the study's baseline; return its key.

        Args:
            method: name.
            partition: of the study.
            scores: test scores of the point; runs of other tasks and seeds are missing.
            baseline: those of plain prompt tuning; it counts once a study.
            runs: keys of the point's runs in place of new ones with `scores`.
            without: (task, data seed, learning rate) of runs of the point that are missing.
            point: fields of the point in place of the defaults; "trajectory" is its upstream.
            **study: fields of the study in place of the defaults; "tasks" are scored.
        """
        tasks = study.pop("tasks", None) or list(dict.fromkeys([*baseline, *scores]))
        record = self.study(partition, tasks, **study)
        self.database.add_study(record)
        # equal scores are the same run, as they are in two studies of the same data
        tuned = [
            key
            for task, row in baseline.items()
            for seed, test in row.items()
            for key in self.runs({task: {seed: test}}, f"vocabulary {test}", record)
        ]
        if tuned and method != BASELINE:
            self._add(record, BASELINE, {"upstream": "", "steps": 0, "runs": tuned})
        fields = dict(point or {})
        steps = fields.setdefault("steps", 0 if method == "fine_tuning" else 100)
        upstream = fields.pop("trajectory", f"{method} {partition}")
        own = runs
        if own is None:
            own = self.runs(scores, f"{upstream} {steps} {record.key}", record, without)
        return self._add(record, method, {"upstream": upstream, "runs": own, **fields})

    def _add(self, study: StudyRecord, method: str, fields: Mapping[str, Any]) -> str:
        steps = fields["steps"]
        cost = Cost(steps=steps, examples=4 * steps, tokens=99, seconds=36.0)
        body: dict[str, Any] = {
            "settings": {"inner_lr": 1.0, "outer_lr": 0.1},
            "prompt": "digest",
            "cost": cost,
            "provenance": ORIGIN,
            "created": NOW,
            **fields,
            "runs": tuple(fields["runs"]),
        }
        made = Point(study=study.key, method=method, **body)
        self.database.add_point(made)
        return made.key

    def edit(self, command: str, *values: object) -> None:
        """Change the database behind the program's back."""
        self.close()
        connection = sqlite3.connect(self.root / FILE)
        with connection:
            connection.execute(command, values)
        connection.close()
        self.database = open_results(self.root)

    def close(self) -> None:
        """Leave nothing but the database's file."""
        self.database.close()
