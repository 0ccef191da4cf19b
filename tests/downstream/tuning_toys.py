"""Runs, limits and comparisons that the suites of the tuning queue share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import toy_task

from mpt.backbones import Backbone
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.limits import PackLimits
from mpt.downstream.queue import TuningQueue
from mpt.downstream.record import TuningResult, TuningRun
from mpt.gym.fewshot import FewShotTask

P = 4
TEXT = TextConfig()


def start_prompt(backbone: Backbone, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(P, backbone.d_model, generator=generator)


def mixed_tasks() -> list[FewShotTask]:
    """Tasks of different length and size, one with two data seeds."""
    return [
        toy_task("toy-one", 13),
        toy_task("toy-one", 21),
        toy_task("a_task_with_a_long_name", 13, shots=5),
    ]


def families(
    backbone: Backbone,
    tasks: Sequence[FewShotTask],
    lrs: Sequence[float] = (0.3, 0.1),
    prompts: int = 2,
) -> list[TuningRun]:
    """Every task with every learning rate and some starting prompts."""
    return [
        TuningRun(task, lr, start_prompt(backbone, seed))
        for task in tasks
        for lr in lrs
        for seed in range(prompts)
    ]


def limits(runs: int = 3, tokens: int = 500, **changes: Any) -> PackLimits:
    settings: dict[str, Any] = {"pass_cost": 20, "source": "toy"} | changes
    return PackLimits(runs=runs, tokens=tokens, **settings)


def queue(
    backbone: Backbone,
    runs: Sequence[TuningRun],
    config: DownstreamConfig,
    packed: PackLimits | None = None,
) -> TuningQueue:
    return TuningQueue(backbone, runs, config, TEXT, 42, packed or limits())


def same(one: TuningResult, other: TuningResult) -> bool:
    """Whether two results have the same bits; the time they took is left out."""
    return torch.equal(one.prompt, other.prompt) and _numbers(one) == _numbers(other)


def _numbers(result: TuningResult) -> list[Any]:
    cost = {key: value for key, value in result.cost.items() if key != "seconds"}
    scores = (result.dev, result.test, result.best_step, result.curve)
    return [*map(repr, scores), result.status, result.stopped, cost]  # repr: NaN equals NaN


def same_results(
    one: Sequence[tuple[int, TuningResult]], other: Sequence[tuple[int, TuningResult]]
) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a[0] == b[0] and same(a[1], b[1]) for a, b in pairs)


def script_dev_scores(
    monkeypatch: pytest.MonkeyPatch, tuning: TuningQueue, scores_of: Sequence[Sequence[float]]
) -> None:
    """Let the n-th dev score of the run at a position be ``scores_of[position][n]``.

    Every test score is 0.25.
    """
    seen = [0] * len(scores_of)

    def scores(self: Evaluator, prompts: Tensor, task_of_run: Sequence[int]) -> list[float]:
        if self.split == "test":
            return [0.25] * len(prompts)
        found = []
        for place in tuning._pack.places:
            found.append(scores_of[place][seen[place]])
            seen[place] += 1
        assert len(found) == len(prompts) == len(task_of_run)
        return found

    monkeypatch.setattr(Evaluator, "scores", scores)
