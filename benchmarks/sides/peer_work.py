"""What the sides of `peers.py` are given: the same points, samples, starts, episodes and orders.

A user of PEFT has tokens and rows in memory too; reading and tokenising the gym is left out on the
peers' sides and counted on ours.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mpt.backbones import Backbone
from mpt.config import StudyConfig, UpstreamConfig
from mpt.downstream.data import BatchOrder
from mpt.gym.fewshot import Example, FewShotTask, some_rows
from mpt.seeds import numpy_generator
from mpt.study.specs import UpstreamSpec
from mpt.study.study import OpenStudy
from mpt.upstream.engine import UpstreamRun
from mpt.upstream.registry import UPSTREAM_METHODS
from sides.peft_tuning import Row


@dataclass(frozen=True)
class Split:
    """Rows that are scored."""

    sources: tuple[list[int], ...]
    answers: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sample:
    """One scored task at one data seed."""

    task: str
    seed: int
    metric: str
    train: tuple[Row, ...]
    batches: tuple[tuple[int, ...], ...]
    """Train rows of every step."""
    dev: Split
    test: Split
    start: Tensor
    """Where plain prompt tuning starts [P, d]."""


@dataclass(frozen=True)
class Episode:
    """What an outer step reads of one item."""

    support: tuple[tuple[Row, ...], ...]
    query: tuple[Row, ...]


@dataclass(frozen=True)
class Lessons:
    """Upstream learning with one upstream seed: the same for all points."""

    start: Tensor
    """[P, d]."""
    episodes: tuple[Episode, ...]
    per_step: int
    """Episodes whose gradients are summed in an outer step."""
    average: str
    """"last" or "polynomial"."""


@dataclass(frozen=True)
class Point:
    """One point of a search."""

    inner_lr: float
    outer_lr: float
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """Readable name."""
        return f"inner{self.inner_lr:g}-outer{self.outer_lr:g}-steps{self.steps}-seed{self.seed}"


@dataclass(frozen=True)
class Work:
    """All of it."""

    checkpoint: str
    dtype: str
    length: int
    """P."""
    points: tuple[Point, ...]
    lessons: dict[int, Lessons]
    """By upstream seed."""
    samples: tuple[Sample, ...]
    lrs: tuple[float, ...]
    steps: int
    """Of a downstream run."""
    eval_every: int
    max_generated: int
    eval_batch: int
    """Rows generated at once."""


def work_of(
    study: OpenStudy, checkpoint: Path, trajectories: Sequence[UpstreamSpec], eval_batch: int
) -> Work:
    """Return what the points of some trajectories of MAML are made of."""
    config, down = study.config, study.config.downstream
    points: list[Point] = []
    lessons: dict[int, Lessons] = {}
    for one in trajectories:
        assert isinstance(one.config, UpstreamConfig)
        seed = config.train_seed if one.config.seed is None else one.config.seed
        for steps in one.rungs:
            points.append(Point(one.config.inner_lr, one.config.outer_lr, steps, seed))
        longest = max(rung for other in trajectories for rung in other.rungs)
        lessons.setdefault(seed, _lessons(study, one.config, seed, longest))
    return Work(
        checkpoint=str(checkpoint),
        dtype=str(study.backbone.dtype).removeprefix("torch."),
        length=config.prompt.length,
        points=tuple(points),
        lessons=lessons,
        samples=tuple(
            _sample(study, task) for by in study.scored.values() for task in by.values()
        ),
        lrs=down.lrs,
        steps=down.steps,
        eval_every=down.eval_every,
        max_generated=down.max_generated,
        eval_batch=eval_batch,
    )


def _lessons(study: OpenStudy, config: UpstreamConfig, seed: int, steps: int) -> Lessons:
    settings, text = study.config, study.config.upstream_text
    run = UpstreamRun(study.backbone, study.items, config, settings.prompt, text, seed)
    stream = UPSTREAM_METHODS[config.method].stream(list(study.items), config, seed)
    known: dict[int, tuple[list[Row], list[Row]]] = {}

    def episode(index: int) -> Episode:
        drawn = stream.episode(index)
        if drawn.item not in known:
            task, encode = study.items[drawn.item], study.backbone.encode_rows
            parts = (encode(task.name, rows, text) for rows in (task.train, task.dev))
            known[drawn.item] = (next(parts), next(parts))
        train, dev = known[drawn.item]
        support = tuple(tuple(train[row] for row in batch) for batch in drawn.support)
        return Episode(support, tuple(dev[row] for row in drawn.query))

    count = config.items_per_step
    return Lessons(
        start=run.prompt.clone().cpu(),
        episodes=tuple(map(episode, range(steps * count))),
        per_step=count,
        average=config.average,
    )


def _sample(study: OpenStudy, task: FewShotTask) -> Sample:
    from mpt.prompts import init_downstream

    config, backbone = study.config, study.backbone
    down, root = config.downstream, config.train_seed
    order = BatchOrder(root, down.batch_size)
    rng = numpy_generator(root, "init", "downstream", task.name, task.seed)
    return Sample(
        task=task.name,
        seed=task.seed,
        metric=task.metric,
        train=tuple(backbone.encode_rows(task.name, task.train, config.text)),
        batches=tuple(tuple(order.rows(task, step + 1)) for step in range(down.steps)),
        dev=_split(backbone, config, task, "dev"),
        test=_split(backbone, config, task, "test"),
        start=init_downstream(backbone, task.name, config.prompt.length, rng),
    )


def _split(backbone: Backbone, config: StudyConfig, task: FewShotTask, split: str) -> Split:
    """Return the rows of a split that an evaluation takes (see `downstream.evaluation`)."""
    down = config.downstream
    every, most = (task.dev, down.max_dev) if split == "dev" else (task.test, down.max_test)
    stratified = down.sample == "stratified"
    examples: list[Example] = list(
        some_rows(every, most, stratified=stratified, name=f"{task.name} {split}")
    )
    rows = backbone.encode_rows(task.name, examples, config.text)
    return Split(tuple(row[0] for row in rows), tuple(one.outputs for one in examples))


def trajectories_of(
    trajectories: Sequence[UpstreamSpec], seeds: Sequence[int]
) -> list[UpstreamSpec]:
    """Return the trajectories once for every upstream seed."""
    replicates = []
    for seed, one in itertools.product(seeds, trajectories):
        assert isinstance(one.config, UpstreamConfig)
        replicates.append(
            dataclasses.replace(one, config=dataclasses.replace(one.config, seed=seed))
        )
    return replicates
