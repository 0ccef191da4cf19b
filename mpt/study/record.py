"""An open study as the database has it, and what of its settings is in a run's key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpt.keys import changed
from mpt.store.records import START_COUNT, StudyRecord
from mpt.study.replaced import REPLACED

if TYPE_CHECKING:
    from mpt.config import StudyConfig
    from mpt.study.study import OpenStudy, StudyPlan


HOW_STARTED = ("start", "race_steps")
"""Settings of `DownstreamConfig` that say which start is taken, and nothing of its run."""


def study_record(study: OpenStudy) -> StudyRecord:
    """Return a study's record: everything that its numbers may be compared within."""
    plan, config = study.plan, study.config
    down = changed(config.downstream)
    down.pop("lrs", None)  # a column of its own
    return StudyRecord(
        backbone=config.backbone,
        backbone_digest=study.backbone.digest,
        gym=config.gym,
        partition=config.partition,
        role=plan.role,
        source_set=plan.source_set,
        source_shots=_shots(plan.source_shots),
        target_shots=_shots(plan.target_shots),
        source=tuple((item.name, item.seed, item.digest) for item in study.items),
        scored=tuple(
            (name, seed, task.digest)
            for name, samples in study.scored.items()
            for seed, task in samples.items()
        ),
        data_seeds=config.data_seeds,
        train_seed=config.train_seed,
        precision=config.precision,
        settings={
            "prompt": changed(config.prompt),
            "text": changed(config.text),
            "upstream_text": changed(config.upstream_text),
            "downstream": down,
            **_scoring(plan),
            **_upstream_precision(config),
            **({REPLACED: dict(config.replaced)} if config.replaced else {}),
            **({} if config.starts == 1 else {START_COUNT: config.starts}),
        },
        lrs=tuple(float(lr) for lr in config.downstream.lrs),
        partial=plan.partial,
        smoke=plan.smoke,
    )


def _upstream_precision(config: StudyConfig) -> dict[str, str]:
    """Return the number format of upstream learning, where it is another than downstream."""
    own = config.upstream_precision
    return {} if own in (None, config.precision) else {"upstream_precision": str(own)}


def _scoring(plan: StudyPlan) -> dict[str, str]:
    """Return how a search scores classification, where it does not do it as published."""
    how = plan.config.classification
    return {} if plan.role == "target" or how == "published" else {"classification": how}


def run_recipe(config: StudyConfig) -> dict[str, Any]:
    """Return the settings of a downstream run that differ from their defaults."""
    down = changed(config.downstream)
    for name in HOW_STARTED:
        down.pop(name, None)  # the digest of the start itself is in the run's key
    if config.downstream.catch_up is None:
        down.pop("lrs", None)  # the run's own rate stands beside it, and it raced with no other
    return {
        "downstream": down,
        "text": changed(config.text),
        "prompt": changed(config.prompt),
    }


def _shots(shots: int | None) -> int | str | None:
    """Return shots as a record has them: a number, "all", or None for the tasks' own."""
    return None if shots is None else shots or "all"
