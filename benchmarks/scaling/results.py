"""Results that `scale.py` is measured on: runs and points of the usual size, out of nowhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpt.config import UpstreamConfig
from mpt.keys import digest
from mpt.search.job import SearchJob
from mpt.store.database import Database, open_results
from mpt.store.records import Cost, Point, Run
from mpt.study.presets import load_study
from mpt.study.record import study_record
from mpt.study.specs import PromptTuningConfig, UpstreamSpec, settings_of, trials_of
from mpt.study.study import OpenStudy, StudyPlan, open_study, plan_study
from mpt.trial.origin import now, origin_of
from mpt.trial.runs import PlannedRun, RunPack, baseline_packs, keys_of, upstream_key
from mpt.trial.store import TrialStore
from mpt.trial.trial import finish_point

RUNG = 100
"""Upstream steps of every trial."""

RATES = (0.5, 0.4, 0.3, 0.2)
"""The downstream rates of the paper."""


def job_of(folder: Path, size: int, lrs: tuple[float, ...] = RATES) -> SearchJob:
    """Return a search of `size` trials on the embedded study with these downstream rates.

    It has one upstream seed: with the study's own, replicates would be missing, and computed.
    """
    config = load_study("embedded")
    config = dataclasses.replace(
        config,
        downstream=dataclasses.replace(config.downstream, lrs=lrs),
        replicates=1,
        fresh_replicates=0,
    )
    specs = [
        UpstreamSpec(
            config=UpstreamConfig(inner_lr=1e-4 * (number + 1), outer_lr=0.3), rungs=(RUNG,)
        )
        for number in range(size)
    ]
    return SearchJob(
        trials=trials_of(plan_study(config), specs), results=folder / "results", title="synthetic"
    )


def opener() -> Callable[[StudyPlan], OpenStudy]:
    """Return what opens the study once a process."""
    opened: dict[StudyPlan, OpenStudy] = {}

    def of(plan: StudyPlan) -> OpenStudy:
        if plan not in opened:
            opened[plan] = open_study(plan)
        return opened[plan]

    return of


def write_results(folder: Path, size: int) -> int:
    """Write a finished search; return how many runs it has."""
    job = job_of(folder, size)
    study = opener()(job.plans[0])
    rng = np.random.default_rng(0)
    with open_results(job.results) as database:
        baseline = write_baseline(study, database, rng)
        written = len(keys_of(baseline))
        for number, trial in enumerate(job.trials):
            packs = list(packs_from(baseline, digest(number)))
            written += len(database.add_runs(list(runs_from(packs, rng))))
            database.add_point(
                point_from(
                    packs,
                    digest(number),
                    study=study_record(study).key,
                    settings=settings_of(trial.upstream.config),
                    upstream=upstream_key(study, trial.upstream.config),
                )
            )
    return written


def write_baseline(
    study: OpenStudy, database: Database, rng: np.random.Generator
) -> list[RunPack]:
    """Write the study and its point of plain prompt tuning; return the packs of that."""
    record, packs = study_record(study), baseline_packs(study)
    database.add_study(record)
    database.add_runs(list(runs_from(packs, rng)))
    finish_point(record.key, PromptTuningConfig(), "", packs, TrialStore(database))
    return packs


def packs_from(baseline: Sequence[RunPack], prompt: str) -> Iterator[RunPack]:
    """Yield the packs of a prompt that is known by its digest only."""
    for pack in baseline:
        runs = [
            PlannedRun(
                run.task, run.lr, run.prompt, dataclasses.replace(run.identity, init=prompt)
            )
            for run in pack.runs
        ]
        yield RunPack(pack.task, tuple(runs))


def runs_from(packs: Iterable[RunPack], rng: np.random.Generator) -> Iterator[Run]:
    """Yield finished runs of the usual size, with numbers out of nowhere."""
    for run in (run for pack in packs for run in pack.runs):
        dev, test = map(float, rng.random(2))
        curve = tuple((20 * step, float(rng.random()), float(rng.random())) for step in range(10))
        yield Run(
            identity=run.identity,
            dev=dev,
            test=test,
            best_step=20,
            curve=curve,
            status="ok",
            cost=Cost(steps=200, examples=800, tokens=9000, seconds=3.0),
            provenance=origin_of(),
            created=now(),
        )


def point_from(
    packs: Iterable[RunPack],
    prompt: str,
    *,
    study: str,
    settings: Mapping[str, Any],
    upstream: str,
) -> Point:
    """Return the point of some packs.

    Args:
        packs: its runs.
        prompt: digest of the learned prompt.
        study: key of the study.
        settings: of the method.
        upstream: key of the upstream trajectory.
    """
    return Point(
        study=study,
        method="maml",
        settings=settings,
        steps=RUNG,
        upstream=upstream,
        prompt=prompt,
        runs=tuple(keys_of(packs)),
        cost=Cost(steps=RUNG, examples=800, tokens=9000, seconds=30.0),
        provenance=origin_of(),
        created=now(),
    )
