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


def test_a_start_of_words_names_no_task_and_is_drawn_by_the_seed(
    new_run: NewRun, toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    run, other = new_run(start="words"), new_run(start="words", seed=1042)
    frequent = toy_backbone.embeddings()[toy_backbone.frequent_ids(5000)]
    for start in (run.prompt, other.prompt):
        distance = (start[:, None] - frequent[None]).abs().amax(2)  # [P, V]
        assert torch.equal(distance.amin(1), torch.zeros(4))  # every row is a word's
        assert len(set(distance.argmin(1).tolist())) == 4  # and no word stands twice
    assert not torch.equal(run.prompt, other.prompt)
    assert not torch.equal(run.prompt, new_run(start="names").prompt)
    learned = new_run(method="multitask", start="words", average="last", outer_lr=0.3)
    assert torch.equal(learned.prompt, run.prompt)
    learned.advance(1)
    assert not torch.equal(learned.prompt, run.prompt)
    assert {len(new_run(start=s).key) for s in ("names", "drawn", "words")} == {64}
    assert len({new_run(start=s).key for s in ("names", "drawn", "words")}) == 3
