"""Where the settings of a replay come from: a search, a recipe, or ``replay.toml``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mpt.config import METHODS, StudyConfig, adapts, known_methods
from mpt.errors import UsageError
from mpt.replay.best import Best, BestPoints
from mpt.replay.request import Request, Setting, methods_asked
from mpt.replay.settings import (
    PRESETS,
    ReplaySettings,
    load_replay_settings,
    studied,
)
from mpt.store.records import ZERO_SHOT
from mpt.study.grids import source_rows
from mpt.study.presets import default_space, load_smoke_size, load_study
from mpt.study.recipes import Recipe, recipe, upstream_steps
from mpt.study.specs import BASELINES, FINE_TUNING, FineTuningConfig, UpstreamSpec, ZeroShotConfig
from mpt.study.study import StudyPlan, plan_study

ADOPTED, ADOPTERS = "maml", ("fomaml", "reptile")
"""Whose three searched settings the others take in the paper (§5.3), see `Request.adopt`."""


class SettingsSource:
    """The settings of one backbone.

    Raises:
        UsageError: a number format cannot be honoured.
    """

    def __init__(self, request: Request, backbone: str, points: BestPoints | None = None) -> None:
        self._request, self._points = request, points
        preset = default_space(backbone)
        own = preset in PRESETS and request.recipe is None
        self._recipe = None if own and not request.published else recipe(request.recipe or "paper")
        study = load_study(backbone, smoke=request.smoke)
        if not own and not request.smoke:
            assert self._recipe is not None
            asked = methods_asked(request, None) or (*known_methods(), FINE_TUNING)
            study = study_of(self._recipe, backbone, asked, request.precision)
        elif request.precision is not None:
            study = dataclasses.replace(
                study, precision=request.precision, upstream_precision=None
            )
        study = dataclasses.replace(study, gym=request.gym, train_seed=request.train_seed)
        self.study = request.options.apply(study)
        """The study on the default partition."""
        self.settings = load_replay_settings(
            self.study.downstream, preset=preset if own else PRESETS[0]
        )
        """The data file."""

    def methods(self) -> tuple[tuple[str, bool], ...]:
        """Return the methods to be replayed, and whether each must have settings.

        Without a choice of the user's those of the paper must; a registered one is replayed where
        there are some, and one of ours where a search found them. Zero-shot is replayed where it
        is named.
        """
        asked = methods_asked(self._request, self.settings)
        if asked:
            return tuple((method, True) for method in asked)
        open_ = known_methods() if self._points is not None else studied()
        return tuple((name, name in (*METHODS, FINE_TUNING)) for name in (*open_, FINE_TUNING))

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
        """Return what is replayed of a method; None if there are no settings of it."""
        if self._points is None or method in BASELINES:
            best = self._unsearched(method, plan)
        else:
            best = self._points.best(self.searched_as(method), plan)
            if best is not None and self.searched_as(method) != method:
                best = _adopted(best, self._unsearched(method, plan))
        if best is None or not self._request.smoke:
            return best
        return dataclasses.replace(best, upstream=_cut(best.upstream, self.settings, plan))

    def searched_as(self, method: str) -> str:
        """Return the method whose search a method's settings are from."""
        return ADOPTED if self._request.adopt and method in ADOPTERS else method

    def _unsearched(self, method: str, plan: StudyPlan) -> Best | None:
        """Return a method's settings of the recipe or of the data file; None if there are none."""
        if method == ZERO_SHOT:
            return Best(upstream=UpstreamSpec(config=ZeroShotConfig()), origin="nothing to be set")
        if self._recipe is not None:
            return published(self._recipe, method, plan)
        if method not in self.settings.own:
            return None
        upstream = self.settings.own[method]
        return Best(upstream=upstream, origin=self.settings.origins[method])


def _adopted(best: Best, own: Best | None) -> Best | None:
    """Return a method's own settings with the two rates and the steps of another's best point."""
    if own is None:
        return None
    from_, to = best.upstream.learned, own.upstream.learned
    assert from_ is not None
    assert to is not None
    config = dataclasses.replace(to, inner_lr=from_.inner_lr, outer_lr=from_.outer_lr)
    return Best(
        upstream=UpstreamSpec(config=config, rungs=best.upstream.rungs),
        origin=f"rates and steps adopted from {from_.method}, {best.origin}; others: {own.origin}",
    )


def study_for(request: Request, backbone: str) -> StudyConfig:
    """Return the study of a backbone that a request asks for, on the default partition."""
    return SettingsSource(request, backbone).study


def study_of(
    recipe: Recipe, backbone: str, methods: Sequence[str], precision: str | None
) -> StudyConfig:
    """Return the study that a recipe asks for.

    Args:
        recipe: the recipe.
        backbone: what is prompted.
        methods: whose number formats must be honoured.
        precision: number format in place of all of the recipe's.

    Raises:
        UsageError: the recipe asks for float16, or for more than one format of what has no inner
            loop: those methods and the baseline share one model.
    """
    wanted = {m: recipe.precision[m] for m in (*methods, "downstream") if m in recipe.precision}
    formats = {form for m, form in wanted.items() if m == "downstream" or not adapts(m)}
    if precision is None and (len(formats) > 1 or "float16" in wanted.values()):
        listed = ", ".join(f"{name} {number_format}" for name, number_format in wanted.items())
        raise UsageError(
            f'recipe "{recipe.name}" has the number formats {listed}; float16 is refused (T5 '
            "overflows in it), and methods without an inner loop share one model with their "
            "baseline; give --precision bfloat16 or float32"
        )
    return StudyConfig(
        backbone=backbone,
        precision=precision or formats.pop(),
        upstream_precision=recipe.upstream_precision if precision is None else None,
        prompt=recipe.prompt,
        text=recipe.downstream_text,
        upstream_lengths=recipe.upstream_text,
        downstream=recipe.downstream,
    )


def published(recipe: Recipe, method: str, plan: StudyPlan) -> Best | None:
    """Return the published settings of a method, with the steps they mean in a study.

    None for a method that the recipe does not have.
    """
    origin = f'recipe "{recipe.name}"'
    if method == FINE_TUNING:
        down = dataclasses.replace(recipe.tuning, catch_up=None)
        # other weights are fine-tuned in place of the recipe's own backbone only
        other = plan.config.backbone == recipe.backbone != recipe.tuning_backbone
        tuned = recipe.tuning_backbone if other else None
        config = FineTuningConfig(downstream=down, backbone=tuned)
        return Best(upstream=UpstreamSpec(config=config), origin=origin)
    if method not in recipe.upstream:
        return None
    items = len(plan.source) * len(plan.config.data_seeds)
    rows = source_rows(plan) if method == "multitask" else 0
    steps = upstream_steps(recipe, method, items, rows)
    upstream = UpstreamSpec(config=recipe.upstream[method], rungs=(steps,))
    return Best(upstream=upstream, origin=origin)


def _cut(upstream: UpstreamSpec, settings: ReplaySettings, plan: StudyPlan) -> UpstreamSpec:
    """Return a trajectory at smoke size."""
    steps = settings.smoke.steps
    if upstream.tuned == "nothing":
        return upstream
    if isinstance(upstream.config, FineTuningConfig):
        down = plan.config.downstream
        own = dataclasses.replace(down, lrs=upstream.config.downstream.lrs[:1], steps=steps)
        config = dataclasses.replace(upstream.config, downstream=own)
        return dataclasses.replace(upstream, config=config)
    return dataclasses.replace(upstream, rungs=(steps,))
