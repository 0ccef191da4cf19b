"""The pilot of Table 8 as a job: MAML on few source tasks, chosen by similarity to the target.

For every target task the candidates are ranked by how similar the prompts are that plain prompt
tuning learns on them (A.7), or else how similar their inputs are in the frozen backbone. Prompts
that the ranking lacks are tuned first. MAML learns on the few of highest, random and lowest
similarity; each prompt is tuned on that target alone and compared with plain prompt tuning. A
choice of sources is a named part of the partition's, such as ``highest5-samsum``; everything else
is a replay (`mpt.replay.replay`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpt.config import StudyConfig
from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import load_catalogue
from mpt.gym.fewshot import FewShotTask
from mpt.keys import digest
from mpt.replay.replay import Replay, plan_replay
from mpt.replay.request import Request, Setting
from mpt.replay.similarity.measure import (
    CHOICES,
    Subspace,
    rank_sources,
    select_sources,
    task_subspaces,
)
from mpt.replay.similarity.prompts import Tuner, kept_subspaces, prompt_packs
from mpt.replay.similarity.ranking import RANK_BY, Ranking, load_rankings
from mpt.replay.similarity.settings import PilotSize, SimilaritySettings, load_similarity_settings
from mpt.replay.similarity.tasks import read_samples, refuse_missing, study_of_one
from mpt.search.job import SearchJob
from mpt.seeds import numpy_generator
from mpt.study.study import backbone_of, gym_folder
from mpt.trial.runs import RunPack, keys_of

if TYPE_CHECKING:
    from mpt.backbones import Backbone

METHOD = "maml"
BY_INPUTS = "-by_inputs"
"""End of a choice's name where sources were ranked by inputs."""


@dataclass(frozen=True, kw_only=True)
class Pilot(Replay):
    """A job, where its settings are from, and what its sources were chosen by."""

    rankings: tuple[Ranking, ...]
    """One a target; see `mpt.replay.similarity.ranking.save_rankings`. None where prompts are not
    tuned yet: sources are those of a ranking by inputs then, to plan with."""


def plan_pilot(
    request: Request,
    targets: Sequence[str] = (),
    *,
    device: str = "cpu",
    reuse: bool = True,
    by: str = RANK_BY[0],
    tuner: Tuner | None = None,
) -> Pilot:
    """Turn a request into the job of Table 8; nothing but what the tuner writes is written.

    Args:
        request: results, gym, MAML's settings; at most one backbone and one partition, no sweep.
        targets: scored tasks; none: those of ``similarity.toml``.
        device: where the backbone reads the tasks that are ranked.
        reuse: take rankings that are stored, where they still hold.
        by: what is compared, one of `RANK_BY`.
        tuner: tunes and keeps prompts that a ranking by prompts lacks (`prompt_tuner`); None: the
            plan is made by inputs in their place.

    Raises:
        UsageError: the request asks for something else, names an unknown partition or task, or
            leaves too few candidates.
        DataError: few-shot files are missing (all are listed), or the stored rankings are torn.
    """
    if request.sweep or set(request.methods) - {METHOD} or len(request.partitions) > 1:
        raise UsageError(
            f"the pilot is of {METHOD} on one partition without a sweep; ask for that"
        )
    if len(set(targets)) < len(targets):
        raise UsageError(
            f"targets are {', '.join(targets)}, but must be different; name each once"
        )
    pool = _pool(request, load_similarity_settings(request.gym, smoke=request.smoke), targets)
    if by not in RANK_BY:
        raise UsageError(f"by is {by!r}, but must be one of {', '.join(RANK_BY)}")
    rankings = _rankings(pool, request, device, reuse, by, tuner)
    known = rankings[0].by == by
    count, seed = pool.size.count, pool.settings.seed
    settings, lines = [], []
    for ranking in rankings:
        for how in CHOICES:
            target = ranking.target
            sources = select_sources(ranking.ranked, how, count, target=target, root_seed=seed)
            setting = Setting(
                partition=pool.size.partition,
                source_set=f"{how}{count}-{target}{'' if by == RANK_BY[0] else BY_INPUTS}",
                source=tuple(name for name in pool.candidates if name in sources),
                scored=(target,),
            )
            settings.append(setting)
            lines.append(_line(target, f"{how}{count}", sources, dict(ranking.ranked)))
    replay = plan_replay(dataclasses.replace(request, methods=(METHOD,)), settings)
    smoke = ", at smoke size" if request.smoke else ""
    title = f"pilot: {METHOD} on {count} of {len(pool.candidates)} source tasks{smoke}"
    return Pilot(
        job=dataclasses.replace(_labelled(replay.job, pool), title=title),
        notes=(*replay.notes, _ranked_by(by, known=known), *lines),
        rankings=rankings if known else (),
    )


def _ranked_by(by: str, *, known: bool) -> str:
    """Return what the sources were chosen by, one line for people."""
    if not known:
        return (
            "sources are ranked by tuned prompts (A.7), which are tuned first; to plan with, the "
            "ones below are ranked by inputs"
        )
    if by == "prompts":
        return "sources are ranked by the similarity of tuned prompts, as in the paper (A.7)"
    return (
        "sources are ranked by the similarity of input states of the frozen model; the paper "
        "ranks them by tuned prompts (A.7): --rank-by prompts"
    )


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """The tasks of a pilot, with their samples at one data seed."""

    study: StudyConfig
    settings: SimilaritySettings
    size: PilotSize
    samples: Mapping[str, FewShotTask]
    targets: tuple[str, ...]
    candidates: tuple[str, ...]
    """In the partition's order."""
    missing: Mapping[str, str]
    """Candidates and targets that are not there, and why."""


def _pool(request: Request, settings: SimilaritySettings, targets: Sequence[str]) -> _Pool:
    size = dataclasses.replace(
        settings.pilot,
        targets=tuple(targets) or settings.pilot.targets,
        partition=(*request.partitions, settings.pilot.partition)[0],
    )
    study = dataclasses.replace(study_of_one(request), partition=size.partition)
    names = candidates_of(study, size, settings.seed)
    samples, missing = read_samples(study, (*size.targets, *names))
    refuse_missing(request, missing, "targets and candidates of the pilot")
    pool = _Pool(
        study=study,
        settings=settings,
        size=size,
        samples=samples,
        targets=tuple(name for name in size.targets if name in samples),
        candidates=tuple(name for name in names if name in samples),
        missing=missing,
    )
    if not pool.targets:
        raise DataError(f"{study.gym}: none of the targets {', '.join(size.targets)} is there")
    if len(pool.candidates) < 2 * size.count:
        raise UsageError(
            f"partition {size.partition} has {len(pool.candidates)} candidates, but at least "
            f"{2 * size.count} are needed, so that the highest and the lowest {size.count} do not "
            "overlap; choose another with --partition"
        )
    return pool


def candidates_of(study: StudyConfig, size: PilotSize, seed: int) -> tuple[str, ...]:
    """Return the candidates: the partition's sources without the targets, cut down by a draw.

    The draw depends on the seed and on the partition's name, and not on what is built of the gym.

    Raises:
        UsageError: the partition is unknown.
    """
    partition = load_catalogue(gym_folder(study.gym)).partition(size.partition)
    names = [name for name in partition.source if name not in size.targets]
    rng = numpy_generator(seed, "similarity", "candidates", size.partition)
    drawn = sorted(rng.permutation(len(names))[: size.candidates])
    return tuple(names[at] for at in drawn)


def _rankings(
    pool: _Pool, request: Request, device: str, reuse: bool, by: str, tuner: Tuner | None
) -> tuple[Ranking, ...]:
    """Return a ranking of every target: the stored ones if they are all there and still hold.

    Without prompts, and nobody to tune them, it is one by inputs.
    """
    study, settings = pool.study, pool.settings
    backbone = backbone_of(study, device)
    packs = prompt_packs(study, backbone, pool.samples) if by == "prompts" else {}
    about = _digests(pool, backbone, packs)
    stored = load_rankings(request.results, request.store) if reuse else ()
    saved = {one.about: one for one in stored if one.smoke == request.smoke}
    if all(key in saved for key in about.values()):
        return tuple(saved[about[target]] for target in pool.targets)
    if packs:
        subspaces = _prompt_subspaces(pool, request, packs, tuner)
        if subspaces is None:
            return _rankings(pool, request, device, reuse, "inputs", None)
    else:
        tasks = [pool.samples[name] for name in (*pool.targets, *pool.candidates)]
        subspaces = task_subspaces(backbone, tasks, settings.measure, study.text, settings.seed)
    return tuple(
        Ranking(
            backbone=study.backbone,
            gym=study.gym,
            smoke=request.smoke,
            partition=study.partition,
            target=target,
            about=about[target],
            ranked=tuple(rank_sources(target, pool.candidates, subspaces)),
            by=by,
        )
        for target in pool.targets
    )


def _digests(pool: _Pool, backbone: Backbone, packs: Mapping[str, RunPack]) -> dict[str, str]:
    """Return target → digest of all that its similarities depend on.

    Args:
        pool: targets and candidates.
        backbone: the frozen model.
        packs: task → runs whose prompts are compared; none: inputs are.
    """
    settings, samples = pool.settings, pool.samples
    if packs:
        runs = {name: keys_of([pack]) for name, pack in packs.items()}
        prompts = {
            "threshold": settings.measure.threshold,
            "candidates": {name: runs[name] for name in pool.candidates},
        }
        return {target: digest({**prompts, "target": runs[target]}) for target in pool.targets}
    common = {
        "backbone": backbone.digest,
        "measure": dataclasses.asdict(settings.measure),
        "seed": settings.seed,
        "text": dataclasses.asdict(pool.study.text),
        "candidates": {name: samples[name].digest for name in pool.candidates},
    }
    return {t: digest({**common, "target": [t, samples[t].digest]}) for t in pool.targets}


def _prompt_subspaces(
    pool: _Pool, request: Request, packs: Mapping[str, RunPack], tuner: Tuner | None
) -> dict[str, Subspace] | None:
    """Return the subspaces of tuned prompts; None if some are missing and nobody tunes them."""
    threshold = pool.settings.measure.threshold
    kept = kept_subspaces(request, packs, threshold)
    lacking = [pack for name, pack in packs.items() if name not in kept]
    if not lacking:
        return kept
    if tuner is None:
        return None
    tuner(pool.study, lacking)
    return kept_subspaces(request, packs, threshold)


def _line(target: str, choice: str, sources: Sequence[str], values: Mapping[str, float]) -> str:
    listed = ", ".join(f"{name} {values[name]:.3f}" for name in sources)
    return f"{target}, {choice}: {listed}"


def _labelled(job: SearchJob, pool: _Pool) -> SearchJob:
    """Return a job whose results say how many candidates and targets were missing."""
    if not pool.missing:
        return job
    of = len(pool.missing) + len(pool.samples)
    note = f"{len(pool.missing)} of {of} targets and candidates missing"
    trials = []
    for trial in job.trials:
        before = trial.plan.partial
        partial = f"partial: {note}" if before is None else f"{before}; {note}"
        trials.append(
            dataclasses.replace(trial, plan=dataclasses.replace(trial.plan, partial=partial))
        )
    return dataclasses.replace(job, trials=tuple(trials))
