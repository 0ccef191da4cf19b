"""What a trial works on: one method with its settings in one study, scored at rungs.

Plain prompt tuning, fine-tuning and the model as it is (zero-shot) are methods like the others;
they learn nothing upstream, so their one rung is step 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from mpt.config import DownstreamConfig, UpstreamConfig, adapts
from mpt.errors import UsageError
from mpt.store.records import BASELINE, ZERO_SHOT
from mpt.study.study import StudyPlan, shots_text

FINE_TUNING = "fine_tuning"
BASELINES = (BASELINE, FINE_TUNING, ZERO_SHOT)
"""Methods without upstream learning: a replay has them, a search does not."""


@dataclass(frozen=True, kw_only=True)
class PromptTuningConfig:
    """Plain prompt tuning from a vocabulary start; its settings are the study's own."""

    tuned: ClassVar[str] = "prompt"
    """What its runs tune."""
    method: str = BASELINE
    """Always "prompt_tuning"."""


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """Settings of fine-tuning."""

    tuned: ClassVar[str] = "weights"
    """What its runs tune."""
    downstream: DownstreamConfig
    """The recipe, with fine-tuning's own learning rates and steps."""
    backbone: str | None = None
    """Checkpoint that is tuned, in float32; None: the study's."""
    method: str = FINE_TUNING
    """Always "fine_tuning"."""

    def __post_init__(self) -> None:
        if self.method != FINE_TUNING:
            raise UsageError(f"method is {self.method!r}, but must be {FINE_TUNING!r}")
        if self.downstream.catch_up is not None:
            raise UsageError(
                f"catch_up is {self.downstream.catch_up}, but must be None in fine-tuning, whose "
                "runs come one after the other"
            )


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    """The frozen model without a prompt; how it is evaluated is the study's own."""

    tuned: ClassVar[str] = "nothing"
    """What its runs tune."""
    method: str = ZERO_SHOT
    """Always "zero_shot"."""


MethodConfig = UpstreamConfig | PromptTuningConfig | FineTuningConfig | ZeroShotConfig


@dataclass(frozen=True, kw_only=True)
class UpstreamSpec:
    """A method with its settings, and the rungs at which it is scored."""

    config: MethodConfig
    rungs: tuple[int, ...] = (0,)
    """Upstream steps at which a point is scored, ascending."""

    @property
    def learned(self) -> UpstreamConfig | None:
        """Settings of upstream learning; None of a method that learns nothing upstream."""
        return self.config if isinstance(self.config, UpstreamConfig) else None

    @property
    def tuned(self) -> str:
        """What the runs tune: "prompt", "weights" or "nothing"."""
        return self.config.tuned

    def without_seed(self) -> UpstreamSpec:
        """Return what replicates over upstream seeds share; itself where nothing is learned."""
        if self.learned is None:
            return self
        return dataclasses.replace(self, config=dataclasses.replace(self.learned, seed=None))

    @property
    def name(self) -> str:
        """Readable name, e.g. ``maml-inner3e-05-outer0.5-k1-b2`` (k inner steps, batch b)."""
        config = self.config
        if isinstance(config, FineTuningConfig):
            down = config.downstream
            return f"{config.method}-{len(down.lrs)}lrs-{down.steps}steps"
        if not isinstance(config, UpstreamConfig):
            return config.method
        inner = f"-inner{config.inner_lr:g}" if adapts(config.method) else ""
        steps = f"-k{config.inner_steps}" if adapts(config.method) else ""
        seed = "" if config.seed is None else f"-seed{config.seed}"
        seed += "" if config.start_seed is None else f"-start{config.start_seed}"
        soup = "" if config.soup == 1 else f"-soup{config.soup}"
        horizon = "" if config.decay_horizon is None else f"-decay{config.decay_horizon}"
        words = [config.inner_optimiser, config.average, config.start]
        choices = "".join(f"-{word}" for word in words if word not in ("sgd", "last", "names"))
        extra = "".join(f"-{name}{value:g}" for name, value in config.extra)
        return (
            f"{config.method}{inner}-outer{config.outer_lr:g}{steps}-b{config.batch_size}"
            f"{choices}{horizon}{soup}{extra}{seed}"
        )


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One method in one study."""

    plan: StudyPlan
    """Backbone, source tasks and scored tasks."""
    upstream: UpstreamSpec
    """Method, settings and rungs."""
    tasks: tuple[str, ...] = ()
    """Scored tasks that this trial tunes; none: all of them. Plain prompt tuning is cut by task,
    so that workers share it."""

    @property
    def method(self) -> str:
        """The method's name."""
        return self.upstream.config.method

    @property
    def name(self) -> str:
        """Readable name, e.g. ``maml-inner0.1-outer0.3-k1-b4-random_to_random``.

        A cell of a sweep has its sources and sample sizes in it: ``…-cls_to_cls-sources12``.
        """
        plan = self.plan
        sweep = "" if plan.source_set == "all" else f"-sources{plan.source_set}"
        for kind, shots in (("source", plan.source_shots), ("target", plan.target_shots)):
            sweep += "" if shots is None else f"-{kind}_shots_{shots_text(shots)}"
        tasks = f"-{'+'.join(self.tasks)}" if self.tasks else ""
        return f"{self.upstream.name}-{plan.config.partition}{sweep}{tasks}"

    @property
    def learned(self) -> UpstreamConfig | None:
        """Settings of upstream learning; None of a method that learns nothing upstream."""
        return self.upstream.learned

    @property
    def downstream(self) -> DownstreamConfig:
        """Recipe of the runs: fine-tuning's own, or else the study's."""
        config = self.upstream.config
        own = config.downstream if isinstance(config, FineTuningConfig) else None
        return own or self.plan.config.downstream

    def without_seed(self) -> TrialSpec:
        """Return the cell whose replicates differ in the upstream seed."""
        return dataclasses.replace(self, upstream=self.upstream.without_seed())

    @property
    def learned_from(self) -> object:
        """What trials share that have one upstream trajectory."""
        plan, config = self.plan, self.plan.config
        return (
            self.upstream.config,
            config.backbone,
            config.gym,
            config.precision,
            config.upstream_precision,
            config.prompt,
            config.upstream_text,
            config.data_seeds,
            config.train_seed,
            plan.source,
            plan.source_shots,
        )


def trials_of(plan: StudyPlan, specs: Iterable[UpstreamSpec]) -> tuple[TrialSpec, ...]:
    """Return the trials of one study."""
    return tuple(TrialSpec(plan=plan, upstream=spec) for spec in specs)


def baseline_trials(plan: StudyPlan) -> tuple[TrialSpec, ...]:
    """Return plain prompt tuning of a study, one trial a scored task."""
    upstream = UpstreamSpec(config=PromptTuningConfig())
    return tuple(TrialSpec(plan=plan, upstream=upstream, tasks=(task,)) for task in plan.scored)


def settings_of(config: MethodConfig) -> dict[str, Any]:
    """Return a method's settings as a record has them."""
    return dataclasses.asdict(config)
