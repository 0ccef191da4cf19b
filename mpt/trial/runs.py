"""The downstream runs of a point before they are done: what each is, and its key.

The runs of one prompt on one task (data seeds × learning rates) are a *pack*; they go through the
model side by side. Where a study has several downstream starts, each has packs of its own: their
runs have the train seed of the start in the place of the study's, so that those of the first are
the runs of a study with one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.keys import changed, digest, key_of
from mpt.seeds import numpy_generator
from mpt.store.records import UNTUNED, ZERO_SHOT, RunIdentity
from mpt.study.record import HOW_STARTED, run_recipe
from mpt.study.specs import (
    FineTuningConfig,
    MethodConfig,
    PromptTuningConfig,
    ZeroShotConfig,
)
from mpt.study.study import OpenStudy

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.config import UpstreamConfig
    from mpt.gym.fewshot import FewShotTask
    from mpt.trial.starts.choice import StartChoice


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One downstream run to be done."""

    task: FewShotTask
    lr: float
    prompt: Tensor
    """Starting prompt [P, d]; [0, d] where there is none."""
    identity: RunIdentity

    @property
    def key(self) -> str:
        """The run's key."""
        return self.identity.key


@dataclass(frozen=True)
class RunPack:
    """The runs of one prompt on one task, at one downstream start."""

    task: str
    runs: tuple[PlannedRun, ...]

    def missing(self, stored_keys: Collection[str]) -> tuple[PlannedRun, ...]:
        """Return the runs that are not among these keys."""
        return tuple(run for run in self.runs if run.key not in stored_keys)

    def of_seed(self, seed: int) -> RunPack:
        """Return the part of one data seed."""
        return RunPack(self.task, tuple(run for run in self.runs if run.task.seed == seed))


def of_tasks(packs: Iterable[RunPack]) -> dict[str, list[RunPack]]:
    """Return task → its packs, one a downstream start."""
    by_task: dict[str, list[RunPack]] = {}
    for pack in packs:
        by_task.setdefault(pack.task, []).append(pack)
    return by_task


def keys_of(packs: Iterable[RunPack]) -> list[str]:
    """Return the keys of all runs, in order."""
    return [run.key for pack in packs for run in pack.runs]


def owner_of(packs: Iterable[RunPack]) -> str:
    """Return what checkpoints of a trial that is nothing but these runs are stored under."""
    return digest(keys_of(packs))


def learned_packs(study: OpenStudy, prompt: Tensor) -> list[RunPack]:
    """Return one pack a start and scored task, all from one learned prompt [P, d]."""
    return _prompt_packs(study, lambda *_: prompt)


def baseline_packs(study: OpenStudy) -> list[RunPack]:
    """Return the packs of plain prompt tuning, which every point is compared with.

    The starting prompt is drawn anew for every (task, data seed) and start, so that the mean over
    data seeds is one over starting prompts too; it is the same for all learning rates.
    """
    return _prompt_packs(study, lambda task, seed: vocabulary_start(study, task, seed))


def vocabulary_start(study: OpenStudy, task: FewShotTask, train_seed: int) -> Tensor:
    """Return the prompt [P, d] that plain prompt tuning of a few-shot sample starts from."""
    from mpt.prompts import init_downstream

    rng = numpy_generator(train_seed, "init", "downstream", task.name, task.seed)
    return init_downstream(study.backbone, task.name, study.config.prompt.length, rng)


def chosen_packs(study: OpenStudy, choice: StartChoice) -> list[RunPack]:
    """Return one pack a start and scored task, each data seed from the prompt it has chosen."""
    return _prompt_packs(study, choice.start)


def marked_packs(study: OpenStudy, prompt: Tensor, record: Mapping[str, Any]) -> list[RunPack]:
    """Return the packs of a stored choice to be looked up, not to be run.

    Args:
        study: the open study.
        prompt: stands in the place of every start.
        record: see `StartChoice.record`.
    """

    def start(task: FewShotTask, train_seed: int) -> tuple[Tensor, str]:
        return prompt, str(taken_by(record, study, task, train_seed)["prompt"])

    return _packs(study, start, tuned="prompt")


def choice_name(study: OpenStudy, task: FewShotTask, train_seed: int) -> str:
    """Return what the choice of a few-shot sample at a downstream start is stored under."""
    first = train_seed == study.config.train_seed
    return str(task.seed) if first else f"{task.seed}/{train_seed}"


def taken_by(
    record: Mapping[str, Any], study: OpenStudy, task: FewShotTask, train_seed: int
) -> Mapping[str, Any]:
    """Return what a target took at a downstream start."""
    taken: Mapping[str, Any] = record["taken"][task.name][choice_name(study, task, train_seed)]
    return taken


def fine_tuning_packs(study: OpenStudy) -> list[RunPack]:
    """Return one pack a start and scored task; `study` is that of `tuned_study`.

    There is no prompt to draw, but the order of train rows and dropout are drawn.
    """
    from mpt.downstream.fine_tuning import no_prompt

    start = no_prompt(study.backbone)
    return _packs(study, lambda *_: (start, None), tuned="weights")


def zero_shot_packs(study: OpenStudy) -> list[RunPack]:
    """Return one pack a scored task, of one run a data seed: nothing is tried, and nothing drawn.

    So there is one start, however many the study has.
    """
    from mpt.downstream.fine_tuning import no_prompt

    start = no_prompt(study.backbone)
    return _packs(study, lambda *_: (start, None), tuned="nothing")


def tuned_study(study: OpenStudy, config: FineTuningConfig) -> OpenStudy:
    """Return the study as fine-tuning sees it: its own recipe, and float32 weights."""
    own = dataclasses.replace(
        study.config,
        backbone=config.backbone or study.config.backbone,
        precision="float32",
        downstream=config.downstream,
    )
    return dataclasses.replace(
        study,
        plan=dataclasses.replace(study.plan, config=own),
        backbone=study.further_backbone(own),
    )


def upstream_key(study: OpenStudy, config: MethodConfig) -> str:
    """Return the key of what a point's runs start from, the number of steps excepted.

    That is an upstream trajectory on the study's source items, or a soup of some; fine-tuning has
    a key of its settings in its place, zero-shot one of its backbone and evaluation, and plain
    prompt tuning none ("").
    """
    from mpt.upstream.soup import soup_key

    if isinstance(config, PromptTuningConfig):
        return ""
    if isinstance(config, FineTuningConfig):
        return _fine_tuning_key(study, config)
    if isinstance(config, ZeroShotConfig):
        own = {"backbone": study.backbone.digest, **_recipe(study, "nothing")}
        return key_of(ZERO_SHOT, own)
    return soup_key(member_keys(study, config))


def member_keys(study: OpenStudy, config: UpstreamConfig) -> list[str]:
    """Return the keys of the trajectories that a configuration learns on a study's items.

    Several where it is a soup.
    """
    from mpt.upstream.engine import trajectory_key
    from mpt.upstream.soup import members_of

    own = study.config
    backbone = study.upstream_backbone(config.method)
    settings = (own.prompt, own.upstream_text, own.train_seed)
    return [
        trajectory_key(backbone, study.items, member, *settings)
        for member in members_of(config, own.train_seed)
    ]


def _fine_tuning_key(study: OpenStudy, config: FineTuningConfig) -> str:
    own, downstream = tuned_study(study, config), changed(config.downstream)
    for name in HOW_STARTED:
        downstream.pop(name, None)  # of prompts
    return key_of(
        "fine_tuning",
        {
            "backbone": own.backbone.digest,
            "text": changed(own.config.text),
            "downstream": downstream,
            "train_seed": own.config.train_seed,
        },
    )


def _prompt_packs(
    study: OpenStudy, prompt_for: Callable[[FewShotTask, int], Tensor]
) -> list[RunPack]:
    from mpt.prompts import prompt_digest

    def start(task: FewShotTask, train_seed: int) -> tuple[Tensor, str]:
        prompt = prompt_for(task, train_seed)
        return prompt, prompt_digest(prompt)

    return _packs(study, start, tuned="prompt")


def _packs(
    study: OpenStudy, start: Callable[[FewShotTask, int], tuple[Tensor, str | None]], *, tuned: str
) -> list[RunPack]:
    """Return one pack a start and task; `start` is asked with a sample and its start's seed."""
    recipe, seeds = _recipe(study, tuned), study.config.start_seeds
    return [
        _pack(study, name, start, train_seed, recipe, tuned)
        for train_seed in (seeds[:1] if tuned == "nothing" else seeds)
        for name in study.scored
    ]


def _pack(
    study: OpenStudy,
    name: str,
    start: Callable[[FewShotTask, int], tuple[Tensor, str | None]],
    train_seed: int,
    recipe: Mapping[str, Any],
    tuned: str,
) -> RunPack:
    runs = []
    for task in study.scored[name].values():
        prompt, mark = start(task, train_seed)
        for lr in (UNTUNED,) if tuned == "nothing" else study.config.downstream.lrs:
            identity = RunIdentity(
                backbone=study.backbone.digest,
                task=task.name,
                data=task.digest,
                data_seed=task.seed,
                shots=task.shots,
                metric=task.metric,
                init=mark,
                lr=float(lr),
                recipe=recipe,
                train_seed=train_seed,
                tuned=tuned,
                precision=study.config.precision,
            )
            runs.append(PlannedRun(task, lr, prompt, identity))
    return RunPack(name, tuple(runs))


def _recipe(study: OpenStudy, tuned: str) -> dict[str, Any]:
    """Return the part of a recipe that a run's number depends on, by what is tuned."""
    recipe = run_recipe(study.config)
    if tuned == "prompt":
        return recipe
    del recipe["prompt"]
    if tuned == "nothing":
        down = recipe["downstream"]
        recipe["downstream"] = {name: down[name] for name in down if name in _EVALUATION}
    return recipe


_EVALUATION = (
    *("max_dev", "max_test", "sample", "max_generated"),
    *("beams", "repetition_penalty", "length_penalty"),
)
"""Settings of `DownstreamConfig` that the score of a model without a prompt depends on."""


def spread(packs: Sequence[RunPack], count: int) -> list[PlannedRun]:
    """Return runs from as many packs as there are, at most `count`."""
    from itertools import zip_longest

    turns = zip_longest(*(pack.runs for pack in packs))
    return [run for turn in turns for run in turn if run is not None][:count]
