"""Results for tests: trials computed in this process, or points written by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpt.config import UpstreamConfig
from mpt.keys import digest
from mpt.search.job import SearchJob
from mpt.store.artifacts import Artifacts
from mpt.store.database import open_results
from mpt.store.records import (
    BASELINE,
    Cost,
    Point,
    Run,
    RunIdentity,
    StudyRecord,
    point_key,
)
from mpt.study.record import study_record
from mpt.study.specs import baseline_trials
from mpt.study.study import open_study
from mpt.trial.opening import open_trial
from mpt.trial.store import TrialStore
from mpt.trial.trial import TrialOptions

BASE = 0.5
"""Test score of plain prompt tuning in points that are written by hand."""


def compute(job: SearchJob) -> None:
    """Compute all trials of a job with their baselines, one after the other, without Ray."""
    options = TrialOptions(chunk_s=job.chunk_s, keep_prompts=job.keep_prompts)
    with open_results(job.results, job.store) as database:
        store, files = TrialStore(database), Artifacts(job.files)
        for plan in job.plans:
            study = open_study(plan)
            database.add_study(study_record(study))
            own = [trial for trial in job.trials if trial.plan == plan]
            for spec in (*baseline_trials(plan), *own):
                for _ in open_trial([study], [spec], store, files, options).units():
                    pass


class Stored:
    """Results that are written by hand: every run takes a second, and every upstream step too.

    Args:
        results: directory of the database.
    """

    def __init__(self, results: Path) -> None:
        self.results = results

    def study(
        self,
        *,
        tasks: Sequence[str] = ("v",),
        data: str = "d",
        seeds: Sequence[int] = (13, 21),
        **changes: Any,
    ) -> StudyRecord:
        """Store a study with its plain prompt tuning; return it."""
        study = StudyRecord(
            **{
                "backbone": "embedded",
                "backbone_digest": "b" * 64,
                "gym": "embedded",
                "partition": "random_to_random",
                "role": "validation",
                "source": (("s", seeds[0], data),),
                "scored": tuple((task, seed, data) for task in tasks for seed in seeds),
                "data_seeds": tuple(seeds),
                "lrs": (0.5,),
                **changes,
            }
        )
        return self.take(study)

    def take(self, study: StudyRecord) -> StudyRecord:
        """Store a study as it is, with its plain prompt tuning; return it."""
        with open_results(self.results) as database:
            database.add_study(study)
        self._put(study, BASELINE, {"method": BASELINE}, 0, "", 0.0, {})
        return study

    def point(
        self,
        study: StudyRecord,
        config: UpstreamConfig,
        steps: int,
        arg: float | None,
        **body: Any,
    ) -> str:
        """Store a point of this ARG (None: it diverged); return its key."""
        settings = dataclasses.asdict(config)
        upstream = digest(settings)
        return self._put(study, config.method, settings, steps, upstream, arg, body)

    def _put(
        self,
        study: StudyRecord,
        method: str,
        settings: dict[str, Any],
        steps: int,
        upstream: str,
        arg: float | None,
        body: dict[str, Any],
    ) -> str:
        runs = [] if arg is None else _runs(study, f"{upstream} {steps}", BASE * (1 + arg / 100))
        fine = {} if arg is not None else {"status": "diverged", "note": "diverged"}
        point = Point(
            **{
                "study": study.key,
                "method": method,
                "settings": settings,
                "steps": steps,
                "upstream": upstream,
                "prompt": None,
                "runs": tuple(run.key for run in runs),
                "cost": Cost(steps=steps, seconds=float(steps)),
                **fine,
                **body,
            }
        )
        with open_results(self.results) as database:
            database.add_runs(runs)
            database.add_point(point)
        assert point.key == point_key(study.key, upstream, steps)
        return point.key


def _runs(study: StudyRecord, init: str, value: float) -> list[Run]:
    return [
        Run(
            identity=RunIdentity(
                backbone=study.backbone_digest,
                task=task,
                data=data,
                data_seed=seed,
                shots=16,
                metric="ACC",
                init=f"{study.key} {init}",
                lr=lr,
                recipe={},
                train_seed=start,
            ),
            dev=value,
            test=value,
            best_step=1,
            curve=(),
            status="ok",
            cost=Cost(steps=1, seconds=1.0),
        )
        for start in study.start_seeds
        for task, seed, data in study.scored
        for lr in study.lrs
    ]
