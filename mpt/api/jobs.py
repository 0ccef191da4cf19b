"""What is asked for as a job: the one place where searches and replays are put together.

`mpt.search`, `mpt.replay` and the commands of the same names make their jobs here. Errors name
flags; the functions of `mpt.api.running` say the keywords of the same names in their place.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.arguments import absolute_path
from mpt.errors import UsageError
from mpt.search.job import SEARCHERS, SearchJob, Suggestions

if TYPE_CHECKING:
    from mpt.api.results import BestPoint
    from mpt.api.study import Study
    from mpt.replay.replay import Replay
    from mpt.replay.request import Request
    from mpt.study.spaces import Space
    from mpt.study.specs import TrialSpec

DEFAULT_SAMPLES = 16
"""Trials of a search that draws them, unless told otherwise."""


def search_job(
    study: Study,
    space: Space,
    *,
    results: str | Path,
    searcher: Any = "grid",
    num_samples: int | None = None,
    scheduler: Any = "none",
    racing: bool = False,
    allocation: str = "race",
    store: str | None = None,
    storage: str | None = None,
    keep_prompts: bool = False,
    seed: int | None = None,
    simulated: bool = False,
) -> SearchJob:
    """Return the job of a search; a smoke study has it cut to the smoke size.

    The arguments are those of `mpt.search`, and

    - `seed`: of what is drawn; None: the study's train seed;
    - `simulated`: the job's results are on record: few-shot files are looked for only where the
      space counts epochs.

    Raises:
        UsageError: an argument is wrong, or partition or gym are unknown.
        DataError: few-shot files are missing; all of them are listed.
    """
    from mpt.study.grids import grid_trials, on_study
    from mpt.study.presets import load_smoke_size

    plan = study.plan(files=bool(space.epochs) or not simulated)
    space = on_study(space, plan)
    title = f'space "{space.name}", {space.title}'
    count = _count(space, searcher, num_samples)
    seed = plan.config.train_seed if seed is None else seed
    size = load_smoke_size() if study.smoke else None
    suggestions = None
    if isinstance(searcher, str) and searcher != "optuna":
        trials = grid_trials(plan, [space], samples=count, seed=seed, size=size)
    else:
        count = DEFAULT_SAMPLES if count is None else count
        if size is not None:
            space, count = space.at_steps(size.steps), min(count, size.trajectories)
        suggestions = Suggestions(
            space=space, plan=plan, count=count, seed=seed, searcher=searcher
        )
        trials = [suggestions.first]
    if plan.role == "target":  # the driver takes these for a replay's, which name their seeds
        from mpt.search.replication import of_first_seed  # scipy takes a second to import

        trials = [of_first_seed(trial) for trial in trials]
    return SearchJob(
        trials=tuple(trials),
        suggestions=suggestions,
        scheduler=scheduler,
        racing=racing,
        allocation=allocation,
        keep_prompts=keep_prompts,
        title=title if size is None else f"{title}, at smoke size",
        **places(results, store, storage),
    )


def _count(space: Space, searcher: Any, asked: int | None) -> int | None:
    """Return how many trials are drawn: as many as asked for, or as there are; None: a grid."""
    if isinstance(searcher, str) and searcher not in SEARCHERS:
        raise UsageError(
            f"searcher is {searcher!r}, but must be grid, random, optuna or an object"
        )
    if isinstance(searcher, str) and searcher == "grid":
        if asked is not None:
            raise UsageError(
                "--num-samples is for --searcher random and optuna; a grid has all its points"
            )
        return None
    if asked is None:
        return min(DEFAULT_SAMPLES, space.size or DEFAULT_SAMPLES)
    space.check_count(asked)
    return asked


def settings_job(
    study: Study,
    spaces: Sequence[Space],
    *,
    results: str | Path,
    partitions: Sequence[str] = (),
    num_samples: int | None = None,
    store: str | None = None,
    storage: str | None = None,
) -> tuple[SearchJob, list[str]]:
    """Return the job that searches every space on every partition, at validation tasks of its own.

    Each space is of one method; no `partitions` are all the gym's, in a smoke run the first two.
    `num_samples` random trajectories of every space take the place of its grid.

    Returns:
        The job, and one line a partition: its validation tasks.

    Raises:
        UsageError: a partition is unknown, or a space has no grid or too few trajectories.
        DataError: few-shot files are missing; all of them are listed.
    """
    from mpt.gym.catalogue import load_catalogue
    from mpt.study.grids import grid_trials
    from mpt.study.presets import load_smoke_size
    from mpt.study.study import gym_folder
    from mpt.study.validation import validation_of

    size = load_smoke_size() if study.smoke else None
    catalogue = load_catalogue(gym_folder(study.config.gym))
    names = partitions or catalogue.partition_names
    trials, notes = [], []
    for name in names if size is None else names[:2]:
        validation = validation_of(catalogue, name)
        notes.append(str(validation))
        config = dataclasses.replace(study.config, partition=name)
        plan = study.plan(config=config, scored=validation.tasks)
        seed = config.train_seed
        trials += grid_trials(plan, spaces, samples=num_samples, seed=seed, size=size)
    job = SearchJob(
        trials=tuple(trials),
        title=f'space "{spaces[0].name}" of every method, in every setting',
        **places(results, store, storage),
    )
    return job, notes


def replay_job(best: BestPoint | Sequence[BestPoint] | Request, **options: Any) -> Replay:
    """Return the job of a replay, and where its settings are from, a line each.

    A request says everything itself; `options` for points are those of `points_job`.

    Raises:
        UsageError: something named is unknown, points are of several studies, no settings are
            known of a method, or an option is given beside a request.
        DataError: few-shot files are missing; all are listed.
    """
    from mpt.replay.replay import Replay, plan_replay
    from mpt.replay.request import Request

    if not isinstance(best, Request):
        return Replay(job=points_job(best, **options), notes=())
    own = inspect.signature(points_job).parameters
    both = [name for name, value in options.items() if value != own[name].default]
    if both:
        raise UsageError(
            f"{', '.join(both)} is for best points, but a request is replayed; say it there"
        )
    where = places(best.results, best.store, best.storage)
    return plan_replay(dataclasses.replace(best, **where))


def points_job(
    best: BestPoint | Sequence[BestPoint],
    *,
    partitions: str | Sequence[str] = "all",
    fine_tuning: bool = False,
    zero_shot: bool = False,
    replicates: int | None = None,
    upstream_seeds: Sequence[int] = (),
    results: str | Path | None = None,
    store: str | None = None,
    storage: str | None = None,
    allow_missing: bool = False,
    smoke: bool = False,
) -> SearchJob:
    """Return the job that replays points of searches in one study; see `mpt.replay`."""
    from mpt.api.results import BestPoint
    from mpt.gym.catalogue import load_catalogue
    from mpt.replay.replay import job_of
    from mpt.replay.settings import load_replay_settings
    from mpt.study.options import StudyOptions
    from mpt.study.specs import FINE_TUNING, UpstreamSpec, ZeroShotConfig, trials_of
    from mpt.study.study import gym_folder, plan_study

    points = [best] if isinstance(best, BestPoint) else list(best)
    studies = sorted({point.study for point in points})
    if len(studies) != 1:
        raise UsageError(
            f"best holds points of {len(studies)} studies ({', '.join(studies)}), but must hold "
            "those of one: their scores cannot be compared"
        )
    options = StudyOptions(replicates=replicates, upstream_seeds=tuple(upstream_seeds) or None)
    config = options.apply(points[0].config)
    seeds = () if options == StudyOptions() else config.seeds
    settings = load_replay_settings(config.downstream)
    specs = [point.upstream for point in points]
    specs += [settings.own[FINE_TUNING]] if fine_tuning else []
    specs += [UpstreamSpec(config=ZeroShotConfig())] if zero_shot else []
    names = (partitions,) if isinstance(partitions, str) else partitions
    if partitions == "all":
        names = load_catalogue(gym_folder(config.gym)).partition_names
    cells: list[TrialSpec] = []
    for name in names:
        plan = plan_study(
            dataclasses.replace(config, partition=name),
            role="target",
            allow_missing=allow_missing,
            smoke_scored=settings.smoke.target_tasks if smoke else None,
        )
        cells += trials_of(plan, specs)
    own = points[0].results if results is None else results
    where = places(own, store or points[0].store, storage)
    return job_of(cells, lambda _: seeds, "the best points of a search", **where)


def places(results: str | Path, store: str | None, storage: str | None) -> dict[str, Any]:
    """Return where a job's results go, with local paths absolute, as `SearchJob` takes it."""
    if storage is not None and "://" not in storage:
        storage = str(absolute_path(storage))
    return {"results": absolute_path(results), "store": store, "storage": storage}
