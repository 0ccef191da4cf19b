"""A job as its records tell of it: the trials that have points, ready to be ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.config import DownstreamConfig, StudyConfig
from mpt.errors import DataError
from mpt.keys import tupled
from mpt.metrics.choice import compared_seeds
from mpt.search.job import SearchJob
from mpt.search.leaderboard import RecordedLeaderboard
from mpt.store.records import BASELINE, ZERO_SHOT
from mpt.study.choice import point_config
from mpt.study.replaced import REPLACED
from mpt.study.specs import (
    FINE_TUNING,
    FineTuningConfig,
    MethodConfig,
    TrialSpec,
    UpstreamSpec,
    ZeroShotConfig,
)
from mpt.study.study import StudyPlan

if TYPE_CHECKING:
    from mpt.search.watch.note import DriverNote
    from mpt.store.database import Database
    from mpt.store.records import Point, StudyRecord


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What is on record of one job."""

    board: RecordedLeaderboard | None
    """None while no point of a method is there."""
    studies: tuple[StudyRecord, ...]
    problems: tuple[str, ...]
    """Points that were passed over, one line each."""


def recorded(
    database: Database,
    studies: Sequence[StudyRecord],
    results: Path,
    note: DriverNote | None,
) -> Recorded:
    """Return the trials of some studies that have points.

    Their driver's note knows which upstream seeds configurations are compared on; without one
    these are the seeds that more than one point of a method has.
    """
    by_plan: dict[StudyPlan, list[tuple[UpstreamSpec, str]]] = {}
    records: dict[StudyPlan, StudyRecord] = {}
    problems: list[str] = []
    for study in studies:
        specs = _specs(database.points(study.key), problems)
        plan = _plan(study, _seeds(study, [spec for spec, _ in specs], note))
        records[plan] = study  # of two that differ in nothing but their data the newer one
        by_plan[plan] = specs
    trials = [
        (TrialSpec(plan=plan, upstream=spec), upstream)
        for plan, specs in by_plan.items()
        for spec, upstream in specs
    ]
    board = None
    if trials:
        title = "" if note is None else note.title
        job = SearchJob(trials=tuple(one for one, _ in trials), results=results, title=title)
        board = RecordedLeaderboard(job, records, trials, database)
    return Recorded(board=board, studies=tuple(records.values()), problems=tuple(problems))


def _specs(points: Sequence[Point], problems: list[str]) -> list[tuple[UpstreamSpec, str]]:
    """Return the methods and settings of points, each with the key of its trajectory."""
    trajectories: dict[str, list[Point]] = {}
    for point in points:
        if point.method != BASELINE:
            trajectories.setdefault(point.upstream, []).append(point)
    specs = []
    for upstream, own in trajectories.items():
        try:
            config = _config(own[0])
        except DataError as error:
            problems.append(str(error))
            continue
        rungs = tuple(sorted(point.steps for point in own))
        specs.append((UpstreamSpec(config=config, rungs=rungs), upstream))
    return specs


def _config(point: Point) -> MethodConfig:
    """Return a method's settings.

    Raises:
        DataError: they are not those of this program.
    """
    if point.method == ZERO_SHOT:
        return ZeroShotConfig()
    if point.method != FINE_TUNING:
        return point_config(point)
    settings = dict(point.settings)
    try:
        own = {name: tupled(value) for name, value in settings.pop("downstream").items()}
        return FineTuningConfig(downstream=DownstreamConfig(**own), **settings)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"point {point.key}: its settings are not those of this program ({error}); read it "
            "with the version that made it"
        ) from None


def _seeds(
    study: StudyRecord, specs: Sequence[UpstreamSpec], note: DriverNote | None
) -> tuple[tuple[int, ...], int]:
    """Return upstream seeds to compare on, and how many further ones a winner has."""
    if note is not None and note.seeds and study.key in note.studies:
        return note.seeds, note.fresh
    methods: dict[str, dict[tuple[MethodConfig, int], set[int]]] = {}
    for spec in specs:
        if (own := spec.learned) is not None:
            seed = study.train_seed if own.seed is None else own.seed
            points = methods.setdefault(own.method, {})
            for rung in spec.rungs:
                points.setdefault((spec.without_seed().config, rung), set()).add(seed)
    # a control is a single point, run with the winner's fresh seeds too: it compares nothing
    searched = [of for of in methods.values() if len(of) > 1] or list(methods.values())
    held = {seed for of in methods.values() for seeds in of.values() for seed in seeds}
    shared = {seed for of in searched for seed in compared_seeds(of.values())}
    seeds = sorted(shared, key=lambda seed: (seed != study.train_seed, seed))
    return tuple(seeds), len(held) - len(seeds)


def _plan(study: StudyRecord, seeds: tuple[tuple[int, ...], int]) -> StudyPlan:
    """Return a study's plan, as far as its record has it: nothing can be opened with it."""
    compared, fresh = seeds
    replaced: Mapping[str, str] = study.settings.get(REPLACED, {})
    return StudyPlan(
        config=StudyConfig(
            backbone=study.backbone,
            gym=study.gym,
            partition=study.partition,
            data_seeds=study.data_seeds,
            train_seed=study.train_seed,
            precision=study.precision,
            replaced=tuple(replaced.items()),
            upstream_seeds=compared,
            fresh_replicates=fresh,
            starts=study.starts,
        ),
        source=tuple(dict.fromkeys(task for task, _, _ in study.source)),
        scored=tuple(dict.fromkeys(task for task, _, _ in study.scored)),
        role=study.role,
        source_set=study.source_set,
        source_shots=_shots(study.source_shots),
        target_shots=_shots(study.target_shots),
        partial=study.partial,
        smoke=study.smoke,
    )


def _shots(value: int | str | None) -> int | None:
    """Return shots as a plan has them, see `mpt.gym.catalogue.ALL_SHOTS`."""
    return 0 if value == "all" else None if value is None else int(value)
