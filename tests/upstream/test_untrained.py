"""The control: its prompt is the start, whatever its steps; it reads nothing and costs nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mpt.backbones.base import Backbone
from mpt.config import PromptConfig, TextConfig, UpstreamConfig, adapts
from mpt.gym.fewshot import FewShotTask
from mpt.upstream.engine import UpstreamRun

CONFIG = UpstreamConfig(method="untrained", start="drawn", outer_lr=0.5)
NewRun = Callable[..., UpstreamRun]


@pytest.fixture
def new_run(toy_backbone: Backbone, toy_tasks: list[FewShotTask]) -> NewRun:
    def make(**changes: Any) -> UpstreamRun:
        config = dataclasses.replace(CONFIG, **changes)
        return UpstreamRun(
            toy_backbone, toy_tasks, config, PromptConfig(length=4), TextConfig(), 42
        )

    return make


@pytest.mark.parametrize("average", ["last", "polynomial", "schedule_free"])
def test_its_prompt_is_the_start_of_the_others_bit_for_bit(average: str, new_run: NewRun) -> None:
    start = new_run(method="multitask").prompt.clone()
    run = new_run(average=average)
    run.advance(3)
    assert run.step_count == 3
    assert torch.equal(run.prompt, start)
    resumed = new_run(average=average)
    resumed.load_state_dict(run.state_dict())
    resumed.advance(1)
    assert torch.equal(resumed.prompt, start)


def test_it_reads_nothing_and_has_no_inner_loop(new_run: NewRun) -> None:
    run = new_run()
    run.advance(2)
    assert (run.cost.examples, run.cost.tokens, run.cost.steps) == (0, 0, 2)
    assert not adapts("untrained")


def test_another_upstream_seed_is_another_start_and_another_trajectory(new_run: NewRun) -> None:
    one, other = new_run(), new_run(seed=1042)
    for run in (one, other):
        run.advance(1)
    assert one.key != other.key
    assert not torch.equal(one.prompt, other.prompt)
