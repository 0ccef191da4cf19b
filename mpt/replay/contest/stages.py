"""The stages of a contest as jobs of the search driver: the search and the confirmation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpt.errors import UsageError
from mpt.gym.catalogue import load_catalogue
from mpt.replay.replay import in_rounds
from mpt.replay.request import JobRequest
from mpt.search.comparison import rankings
from mpt.search.job import SearchJob
from mpt.search.look import peek
from mpt.search.replication import replicates_of, with_seed
from mpt.study.contest.definition import Contest
from mpt.study.contest.frozen import Entry, Frozen
from mpt.study.options import StudyOptions
from mpt.study.presets import load_smoke_size, load_study
from mpt.study.specs import TrialSpec
from mpt.study.study import gym_folder, plan_study

if TYPE_CHECKING:
    from mpt.config import StudyConfig
    from mpt.search.comparison import Ranking
    from mpt.study.contest.definition import Contestant
    from mpt.study.study import StudyPlan

EVAL_EVERY = 10
"""Most downstream steps between two dev evaluations of the confirmation."""


@dataclass(frozen=True, kw_only=True)
class ContestRequest(JobRequest):
    """A contest, and where and on what data it is held."""

    contest: Contest
    data_seeds: tuple[int, ...] | None = None
    """Few-shot samples; None: those of the study's preset."""
    keep_prompts: bool = False


def search_job(request: ContestRequest) -> SearchJob:
    """Return the job that scores every point of every contestant on validation tasks.

    Raises:
        UsageError: backbone or gym is unknown.
        DataError: few-shot files are missing; all are listed.
    """
    contest = request.contest
    config = _study(request, contest.backbones[0])
    config = dataclasses.replace(
        config, upstream_seeds=contest.search_seeds, replicates=1, fresh_replicates=0
    )
    rounds = []
    for one in contest.contestants:
        plan = _planned(request, one.options.apply(config), "validation")
        trials = [TrialSpec(plan=plan, upstream=point) for point in one.points]
        rounds += [[with_seed(trial, seed) for seed in contest.search_seeds] for trial in trials]
    return _job(request, in_rounds(rounds), "search", allocation="full")


def confirmation_job(request: ContestRequest, entries: dict[str, Entry]) -> SearchJob:
    """Return the job that scores frozen settings on target tasks, on all upstream seeds.

    Raises:
        UsageError: a backbone, partition or the gym is unknown.
        DataError: few-shot files are missing; all are listed.
    """
    contest = request.contest
    names = contest.partitions or load_catalogue(gym_folder(request.gym)).partition_names
    cells = []
    for backbone in contest.backbones:
        study = _study(request, backbone)
        for steps in contest.tuning_steps:
            every = min(steps, EVAL_EVERY)
            tuned = StudyOptions(tuning_steps=steps, eval_every=every).apply(study)
            for name in names:
                plans = {
                    start: _planned(
                        request, dataclasses.replace(start.apply(tuned), partition=name), "target"
                    )
                    for start in dict.fromkeys(entry.options for entry in entries.values())
                }
                cells += [
                    TrialSpec(plan=plans[entry.options], upstream=entry.upstream)
                    for entry in entries.values()
                ]
    trials = in_rounds(replicates_of(cell, contest.upstream_seeds) for cell in cells)
    return _job(request, trials, "confirmation", allocation="race")


def expected_entries(contest: Contest) -> dict[str, Entry]:
    """Return the first point of every contestant, in the place of what a search will choose."""
    return {
        one.name: Entry(
            start=one.start,
            race_steps=one.race_steps,
            upstream=one.points[0],
            tried=len(one.points),
        )
        for one in contest.contestants
    }


def choose(request: ContestRequest) -> Frozen:
    """Return the settings of every contestant with the highest mean ARG over search seeds.

    Where every contestant has one point, they are returned without an ARG if the search is not
    complete: nothing is chosen.

    Raises:
        UsageError: a point of the search is missing.
    """
    contest, job = request.contest, search_job(request)
    with peek(job) as look:
        missing = look.work.points - look.work.points_there
        if missing and not contest.searched:
            return _frozen(request, (), expected_entries(contest))
        if missing:
            raise UsageError(
                f"{missing} of {look.work.points} points of the search are missing, but settings "
                "are chosen from all of them; run --stages search to its end"
            )
        ranks = rankings(look.board, look.entries)
    entries = {one.name: _best(one, ranks) for one in contest.contestants}
    return _frozen(request, contest.search_seeds, entries)


def _frozen(
    request: ContestRequest, search_seeds: tuple[int, ...], entries: dict[str, Entry]
) -> Frozen:
    contest = request.contest
    return Frozen(
        contest=contest.name,
        row_passes=contest.row_passes,
        backbone=contest.backbones[0],
        search_seeds=search_seeds,
        smoke=request.smoke,
        entries=entries,
    )


def _best(contestant: Contestant, ranks: list[Ranking]) -> Entry:
    """Return the point of a contestant with the highest mean; points of others do not count."""
    own = {(point.without_seed().config, point.rungs[0]) for point in contestant.points}
    for ranking in ranks:
        down = ranking.best.first.trial.plan.config.downstream
        if (down.start, down.race_steps) != (contestant.start, contestant.race_steps):
            continue
        for one in ranking.configurations:  # best first
            spec = one.first.trial.upstream
            chosen = dataclasses.replace(spec.without_seed(), rungs=(one.first.steps,))
            if (chosen.config, one.first.steps) in own:
                return Entry(
                    start=contestant.start,
                    race_steps=contestant.race_steps,
                    upstream=chosen,
                    arg=one.summary.arg,
                    tried=len(contestant.points),
                )
    raise UsageError(
        f"no point of contestant {contestant.name} has an ARG, so none can be frozen; see why "
        "with mpt doctor, or leave it out with --contestants"
    )


def _planned(request: ContestRequest, config: StudyConfig, role: str) -> StudyPlan:
    sources = load_smoke_size().source_tasks if request.smoke else None
    return plan_study(
        config,
        role=role,
        allow_missing=request.allow_missing,
        smoke_sources=sources,
        smoke_scored=2 if request.smoke else None,
    )


def _study(request: ContestRequest, backbone: str) -> StudyConfig:
    study = dataclasses.replace(
        load_study(backbone, smoke=request.smoke),
        gym=request.gym,
        train_seed=request.train_seed,
        starts=1,
    )
    return StudyOptions(data_seeds=request.data_seeds).apply(study)


def _job(
    request: ContestRequest, trials: tuple[TrialSpec, ...], what: str, *, allocation: str
) -> SearchJob:
    return SearchJob(
        trials=tuple(dict.fromkeys(trials)),
        **request.places,
        title=f'contest "{request.contest.name}", {what}: {request.contest.title}',
        keep_prompts=request.keep_prompts,
        allocation=allocation,
    )
