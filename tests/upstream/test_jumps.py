"""Jumps of the loss: what is one, what is none, and that they outlive a resume."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mpt.backbones.base import Backbone
from mpt.config import PromptConfig, TextConfig, UpstreamConfig
from mpt.gym.episodes import Episode
from mpt.gym.fewshot import FewShotTask
from mpt.upstream.engine import UpstreamRun
from mpt.upstream.jumps import AFTER, DEVIATIONS, FACTOR, HELD, Jump, LossWatch, jump_at

EARLY = [1.2, 0.8] * 8
"""Mean 1, standard deviation √(16 · .04 / 15)."""


def _largest(losses: list[float]) -> Jump | None:
    watch = LossWatch()
    for step, loss in enumerate(losses, start=1):
        watch.see(step, loss)
    return watch.largest


def test_losses_that_stay_up_are_a_jump_with_its_numbers() -> None:
    found = _largest([*EARLY, 5.0, 5.2, 4.8, 5.0, 5.1])
    assert found is not None
    assert (found.step, found.loss, found.before) == (21, 5.0, pytest.approx(1.0, rel=1e-12))
    assert found.deviations == pytest.approx(4 / math.sqrt(0.64 / 15), rel=1e-9)
    assert found.text == (
        "loss jumped to 5 at step 21, 5.0 times what it was before (19 standard deviations)"
    )


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ([*EARLY, 9.0, 9.0, 1.0, 1.0, 1.0], "two hard steps are no level"),
        ([*EARLY, 1.9, 1.9, 1.9, 1.9, 1.9], "less than twice as large"),
        ([*(0.1, 2.5, 0.1, 0.1) * 5, 2.5, 2.5, 2.5, 2.5, 2.5], "hard tasks in a row"),
        ([1.0] * (AFTER - 1) + [9.0] * HELD, "nothing to compare with"),
        ([0.0] * 20, "the control has no loss"),
        ([5.0 - 0.1 * step for step in range(40)], "a loss that falls"),
    ],
)
def test_what_is_no_jump(losses: list[float], why: str) -> None:
    assert _largest(losses) is None, why


def test_both_conditions_stand_at_their_stated_values() -> None:
    for level, expected in ((FACTOR * 1.001, True), (FACTOR * 0.999, False)):
        assert (jump_at(21, EARLY + [level] * HELD) is not None) == expected, level
    wide = [0.5, 1.5] * 8  # deviations of .52: four of them are above the factor
    spread = math.sqrt(16 * 0.25 / 15)
    for share, expected in ((1.001, True), (0.999, False)):
        level = 1 + DEVIATIONS * spread * share
        assert (jump_at(21, wide + [level] * HELD) is not None) == expected, level


def test_losses_of_chance_hardly_ever_jump_and_a_level_of_six_times_does() -> None:
    """Gamma(5): means of four episodes' losses as wide apart as those of the embedded study."""
    rng = np.random.default_rng(3)
    quiet = [_largest(list(rng.gamma(5.0, 0.3, 96))) for _ in range(60)]
    assert sum(one is not None for one in quiet) == 0
    jumping = [
        _largest([*rng.gamma(5.0, 0.3, 24), *(6 * rng.gamma(5.0, 0.3, 24))]) for _ in range(60)
    ]
    assert sum(one is not None for one in jumping) > 55


def test_a_state_through_json_goes_on_as_if_nothing_had_happened() -> None:
    losses = [*EARLY, 5.0, 5.2, 4.8, 5.0, 5.1, *EARLY]
    for stop in range(len(losses)):
        first, second = LossWatch(), LossWatch()
        for step, loss in enumerate(losses[:stop], start=1):
            first.see(step, loss)
        second.load(json.loads(json.dumps(first.state())))
        for step, loss in enumerate(losses[stop:], start=stop + 1):
            second.see(step, loss)
        assert second.largest == _largest(losses)
        assert second.state()["recent"] == losses


def test_a_trajectory_knows_its_jump_after_a_resume_and_takes_old_checkpoints(
    toy_backbone: Backbone, toy_tasks: list[FewShotTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = UpstreamConfig(outer_lr=0.1, batch_size=2, items_per_step=2)

    def gradients(run: UpstreamRun, episodes: list[Episode]) -> tuple[Tensor, list[float]]:
        losses = [1.0 if episode.index < 2 * 16 else 7.0 for episode in episodes]
        return torch.zeros(len(episodes), *run.iterate.shape), losses

    monkeypatch.setattr(UpstreamRun, "_gradients", gradients)

    def new() -> UpstreamRun:
        return UpstreamRun(
            toy_backbone, toy_tasks, config, PromptConfig(length=2), TextConfig(), 42
        )

    run = new()
    run.advance(20)
    assert run.jump is None
    state = run.state_dict()
    run.advance(1)
    assert run.jump is not None
    assert (run.jump.step, run.jump.ratio) == (21, 7.0)
    resumed = new()
    resumed.load_state_dict(state)
    resumed.advance(1)
    assert resumed.jump == run.jump
    json.dumps(run.state_dict()["meta"], allow_nan=False)
    del state["meta"]["losses"]  # as an older version wrote it
    old = new()
    old.load_state_dict(state)
    old.advance(1)
    assert old.step_count == 21
    assert old.jump is None
    assert math.isfinite(old.query_loss)
