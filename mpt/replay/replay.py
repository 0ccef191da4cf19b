"""Replay: best settings → partitions × backbones × methods, on the target tasks.

A cell is one method in one setting: a partition, or a part of its sources, or another sample
size. Plain prompt tuning is the baseline of every cell; its leaves are shared by all cells that
score the same tasks (51 different ones in the ten partitions of the paper). Every cell is a course
of a `SearchJob`, so kills, resumption and records are those of a search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpt.config import EMBEDDED_BACKBONES, StudyConfig
from mpt.errors import UsageError
from mpt.gym.catalogue import load_catalogue
from mpt.gym.size import PUBLISHED_SHOTS
from mpt.replay.best import Best, BestPoints
from mpt.replay.settings import (
    REPLAYED,
    SWEEPS,
    ReplaySettings,
    load_replay_settings,
)
from mpt.search.job import Course, SearchJob
from mpt.study.epochs import source_rows
from mpt.study.presets import load_smoke_size, load_study
from mpt.study.recipes import Recipe, recipe, upstream_steps
from mpt.study.spaces import Trajectory
from mpt.study.study import (
    StudyPlan,
    absolute_backbone,
    gym_folder,
    plan_study,
    source_sets,
)
from mpt.trial.fine_tuning import METHOD as FINE_TUNING
from mpt.trial.fine_tuning import FineTuning, FineTuningConfig

BASELINE = "prompt_tuning"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be replayed."""

    results: Path
    """Results directory."""
    gym: str = "embedded"
    backbones: tuple[str, ...] = ()
    """None: the recipe's, or the embedded one."""
    partitions: tuple[str, ...] = ()
    """None: all of the gym's, or the sweep's."""
    methods: tuple[str, ...] = ()
    """None: all, or the sweep's."""
    sweep: str | None = None
    """One of `SWEEPS`."""
    recipe: str | None = None
    """"paper" or "released"; None: the embedded backbone has its own, others have the paper's."""
    precision: str | None = None
    """Number format in place of the recipe's."""
    searched: Path | None = None
    """Results directory whose best points are replayed; None: published or embedded settings."""
    searched_on: str | None = None
    """Backbone whose best points serve those that were not searched; None: they are refused."""
    published: bool = False
    """Published settings, for the embedded backbone too."""
    tuning_steps: int | None = None
    """Steps of prompt tuning in place of the study's; fine-tuning keeps its own."""
    eval_every: int | None = None
    """Downstream steps between two dev evaluations in place of the study's."""
    train_seed: int = 42
    smoke: bool = False
    allow_missing: bool = False

    def __post_init__(self) -> None:
        if self.sweep is not None and self.sweep not in SWEEPS:
            raise UsageError(f"sweep is {self.sweep!r}, but must be one of {', '.join(SWEEPS)}")
        for method in self.methods:
            if method not in (*REPLAYED, BASELINE):
                raise UsageError(
                    f"method {method!r} is unknown; known are {', '.join((*REPLAYED, BASELINE))}"
                )
        if self.methods and set(self.methods) == {BASELINE}:
            raise UsageError(
                f"{BASELINE} is the baseline of every cell and is computed with any other method; "
                "name one"
            )


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a method is tried."""

    partition: str
    source_set: str = "all"
    source_shots: int | None = None
    target_shots: int | None = None
    source: tuple[str, ...] | None = None
    """These source tasks, called `source_set`; None: the catalogue's of that name."""
    scored: tuple[str, ...] | None = None
    """These target tasks; None: the partition's."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A job, and where its settings are from."""

    job: SearchJob
    notes: tuple[str, ...]
    """One line a backbone and method."""


def plan_replay(request: Request, settings: Sequence[Setting] | None = None) -> Replay:
    """Turn a request into a job.

    Args:
        request: what is to be replayed.
        settings: where, instead of what the request's partitions and sweep say.

    Raises:
        UsageError: something named is unknown, no best point is known of some methods (all are
            listed), or a number format cannot be honoured.
        DataError: few-shot files are missing; all are listed.
    """
    found = _best_points(request)
    courses: list[Course] = []
    notes: dict[str, None] = {}
    lacking: list[str] = []
    for backbone in request.backbones or (default_backbone(request),):
        source = _Source(request, backbone, found)
        for setting in settings or settings_of(request, source.settings):
            plan = source.plan(setting)
            for method in _methods(request, source.settings):
                best = source.best(method, plan)
                if best is None:
                    lacking.append(f"{method} on {plan.config.backbone}")
                else:
                    notes[f"{method}, {backbone}: {_text(best.trajectory)} ({best.origin})"] = None
                    courses.append(Course(plan=plan, trajectory=best.trajectory))
    if lacking:
        raise UsageError(
            f"--from {request.searched} holds no finished search of "
            f"{', '.join(dict.fromkeys(lacking))}; search them first, leave them out (--methods), "
            "or take the points of another backbone (--searched-on)"
        )
    title = "best of a search" if found else "settings as listed above"
    sweep = f", sweep over {request.sweep}" if request.sweep else ""
    smoke = ", at smoke size" if request.smoke else ""
    job = SearchJob(
        courses=repeats_last(courses),
        results=request.results,
        title=f"replay: {title}{sweep}{smoke}",
    )
    return Replay(job=job, notes=tuple(notes))


def _best_points(request: Request) -> BestPoints | None:
    if request.searched is None:
        return None
    searched_on = request.searched_on
    return BestPoints(request.searched, searched_on and absolute_backbone(searched_on))


def repeats_last(courses: Sequence[Course]) -> tuple[Course, ...]:
    """Return the courses, those behind whose trajectory an earlier course has too.

    Settings with the same sources share trajectories; started together, one would wait for the
    other.
    """
    seen: set[object] = set()
    first: list[Course] = []
    repeats: list[Course] = []
    for course in courses:
        plan = course.plan
        mark = (course.trajectory.config, plan.config.backbone, plan.source, plan.source_shots)
        (repeats if mark in seen else first).append(course)
        seen.add(mark)
    return (*first, *repeats)


def settings_of(request: Request, settings: ReplaySettings) -> list[Setting]:
    """Return the settings of a request, in the order they are started.

    Raises:
        UsageError: a partition is unknown, or has no parts of its sources to sweep over.
    """
    catalogue = load_catalogue(gym_folder(request.gym))
    sweep = settings.sweeps[request.sweep] if request.sweep else None
    names = request.partitions or (sweep.partitions if sweep else catalogue.partition_names)
    if request.smoke:
        names = names[: settings.smoke.partitions]
    for name in names:
        catalogue.partition(name)
    if sweep is None:
        return [Setting(partition=name) for name in names]
    if request.sweep == "sources":
        parts = {name: source_sets(catalogue, name) for name in names}
        for name, sets in parts.items():
            if not sets:
                raise UsageError(
                    f"partition {name} has no parts of its sources to sweep over; those with some "
                    f"are named in source_subsets: {', '.join(catalogue.source_subsets) or 'none'}"
                )
        return [
            Setting(partition=name, source_set=part)
            for name, sets in parts.items()
            for part in (*sets, "all")
        ]
    # the published size is the task's own: its cells are those of the replay without a sweep
    sizes = [None if shots == PUBLISHED_SHOTS else shots for shots in sweep.shots]
    if request.sweep == "source_shots":
        return [Setting(partition=name, source_shots=size) for name in names for size in sizes]
    return [Setting(partition=name, target_shots=size) for name in names for size in sizes]


class _Source:
    """Where the settings of one backbone come from."""

    def __init__(self, request: Request, backbone: str, found: BestPoints | None) -> None:
        self._request, self._found = request, found
        own = backbone in EMBEDDED_BACKBONES and request.recipe is None
        self._recipe = None if own and not request.published else recipe(request.recipe or "paper")
        study = load_study(backbone, smoke=request.smoke)
        if not own and not request.smoke:
            assert self._recipe is not None
            study = study_of(self._recipe, backbone, _methods(request, None), request.precision)
        elif request.precision is not None:
            study = dataclasses.replace(study, precision=request.precision)
        tuning = {"steps": request.tuning_steps, "eval_every": request.eval_every}
        asked: dict[str, Any] = {
            name: value for name, value in tuning.items() if value is not None
        }
        self.study = dataclasses.replace(
            study,
            gym=request.gym,
            train_seed=request.train_seed,
            downstream=dataclasses.replace(study.downstream, **asked),
        )
        self.settings = load_replay_settings(self.study.downstream)

    def plan(self, setting: Setting) -> StudyPlan:
        """Return the study of a setting, with its files checked."""
        request, smoke = self._request, self._request.smoke
        few = load_smoke_size().source_tasks if setting.source is None else len(setting.source)
        scored = self.settings.smoke.target_tasks
        return plan_study(
            dataclasses.replace(self.study, partition=setting.partition),
            role="target",
            scored=setting.scored,
            source=setting.source,
            source_set=setting.source_set,
            source_shots=setting.source_shots,
            target_shots=setting.target_shots,
            allow_missing=request.allow_missing,
            smoke_sources=few if smoke else None,
            smoke_scored=scored if smoke and setting.scored is None else None,
        )

    def best(self, method: str, plan: StudyPlan) -> Best | None:
        """Return what is replayed of a method; None if the search knows no best point."""
        if self._found is not None and method != FINE_TUNING:
            best = self._found.best(method, plan.config)
        elif self._recipe is not None:
            best = published(self._recipe, method, plan)
        else:
            origin = self.settings.origins[method]
            best = Best(trajectory=self.settings.embedded[method], origin=origin)
        if best is None or not self._request.smoke:
            return best
        return dataclasses.replace(best, trajectory=_cut(best.trajectory, self.settings, plan))


def study_for(request: Request, backbone: str) -> StudyConfig:
    """Return the study of a backbone that a request asks for, on the default partition."""
    return _Source(request, backbone, None).study


def study_of(
    recipe: Recipe, backbone: str, methods: Sequence[str], precision: str | None
) -> StudyConfig:
    """Return the study that a recipe asks for.

    Args:
        recipe: the recipe.
        backbone: what is prompted.
        methods: whose number formats must be honoured.
        precision: number format in place of the recipe's.

    Raises:
        UsageError: the recipe asks for float16, or for more than one format: methods and baseline
            share one model.
    """
    wanted = {m: recipe.precision[m] for m in (*methods, "downstream") if m in recipe.precision}
    formats = set(wanted.values())
    if precision is None and (len(formats) > 1 or "float16" in formats):
        listed = ", ".join(f"{name} {found}" for name, found in wanted.items())
        raise UsageError(
            f'recipe "{recipe.name}" has the number formats {listed}; float16 is refused (T5 '
            "overflows in it), and methods share one model with their baseline; give --precision "
            "bfloat16 or float32"
        )
    return StudyConfig(
        backbone=backbone,
        precision=precision or formats.pop(),
        prompt=recipe.prompt,
        text=recipe.downstream_text,
        upstream_lengths=recipe.upstream_text,
        downstream=recipe.downstream,
    )


def published(recipe: Recipe, method: str, plan: StudyPlan) -> Best:
    """Return the published settings of a method, with the steps they mean in a study."""
    origin = f'recipe "{recipe.name}"'
    if method == FINE_TUNING:
        down = dataclasses.replace(
            recipe.downstream, lrs=recipe.tuning_lrs, steps=recipe.tuning_steps, catch_up=None
        )
        # other weights are fine-tuned in place of the recipe's own backbone only
        other = plan.config.backbone == recipe.backbone != recipe.tuning_backbone
        tuned = recipe.tuning_backbone if other else None
        config = FineTuningConfig(downstream=down, backbone=tuned)
        return Best(trajectory=FineTuning(config=config), origin=origin)
    items = len(plan.source) * len(plan.config.data_seeds)
    rows = source_rows(plan) if method == "multitask" else 0
    steps = upstream_steps(recipe, method, items, rows)
    trajectory = Trajectory(config=recipe.upstream[method], rungs=(steps,))
    return Best(trajectory=trajectory, origin=origin)


def _methods(request: Request, settings: ReplaySettings | None) -> tuple[str, ...]:
    """Return the methods that have courses: prompt tuning is computed with any of them."""
    asked = request.methods
    if not asked and request.sweep and settings is not None:
        asked = settings.sweeps[request.sweep].methods
    return tuple(method for method in asked or REPLAYED if method != BASELINE)


def default_backbone(request: Request) -> str:
    """Return the backbone of a request that names none."""
    return "embedded" if request.recipe is None else recipe(request.recipe).backbone


def _cut(trajectory: Trajectory, settings: ReplaySettings, plan: StudyPlan) -> Trajectory:
    """Return a trajectory at smoke size."""
    steps = settings.smoke.steps
    if isinstance(trajectory, FineTuning):
        down = plan.config.downstream
        own = dataclasses.replace(down, lrs=trajectory.config.downstream.lrs[:1], steps=steps)
        config = dataclasses.replace(trajectory.config, downstream=own)
        return dataclasses.replace(trajectory, config=config)
    return dataclasses.replace(trajectory, rungs=(steps,))


def _text(trajectory: Trajectory) -> str:
    if isinstance(trajectory, FineTuning):
        down = trajectory.config.downstream
        return f"lr {', '.join(f'{lr:g}' for lr in down.lrs)}, {down.steps} steps"
    config = trajectory.config
    inner = f"inner lr {config.inner_lr:g}, " if config.method != "multitask" else ""
    return f"{inner}outer lr {config.outer_lr:g}, {trajectory.rungs[-1]} steps"
