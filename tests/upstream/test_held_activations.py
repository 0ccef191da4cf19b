"""What autograd holds at its peak, counted tensor by tensor: the same on any machine."""

from __future__ import annotations

import pytest
import torch
from episode_losses import ModelLoss
from torch import Tensor

from mpt.backbones import Backbone
from mpt.config import UpstreamConfig
from mpt.gym.episodes import Episode
from mpt.gym.fewshot import FewShotTask
from mpt.upstream.registry import UPSTREAM_METHODS


class Meter:
    """Counts the bytes of tensors that are saved for a backward pass and not yet let go."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> Kept:
        return Kept(self, tensor)

    def unpack(self, kept: Kept) -> Tensor:
        return kept.tensor


class Kept:
    def __init__(self, meter: Meter, tensor: Tensor):
        self.meter, self.tensor = meter, tensor
        # A weight is kept anyway.
        self.size = 0 if _is_weight(tensor) else tensor.numel() * tensor.element_size()
        meter.now += self.size
        meter.peak = max(meter.peak, meter.now)

    def __del__(self) -> None:
        self.meter.now -= self.size


def _is_weight(tensor: Tensor) -> bool:
    base = tensor if tensor._base is None else tensor._base
    return isinstance(base, torch.nn.Parameter)


def _peak(
    backbone: Backbone, task: FewShotTask, engine: str, steps: int, method: str = "maml"
) -> int:
    rows = (0, 1, 2, 3)
    episode = Episode(0, 0, task.name, task.seed, (rows,) * steps, rows)
    config = UpstreamConfig(method=method, inner_lr=20.0, inner_steps=steps, second_order=engine)
    prompt = backbone.embeddings()[10:15].clone()
    meter = Meter()
    with torch.autograd.graph.saved_tensors_hooks(meter.pack, meter.unpack):
        UPSTREAM_METHODS[method].outer_gradient(ModelLoss(backbone, task), prompt, episode, config)
    assert meter.now == 0
    return meter.peak


@pytest.mark.parametrize("engine", ["finite_difference", "exact"])
def test_ten_inner_steps_hold_no_more_than_one(
    engine: str, toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    one, ten = (_peak(toy_backbone, toy_tasks[0], engine, steps) for steps in (1, 10))
    assert ten <= 1.05 * one


def test_one_graph_through_all_inner_steps_grows_with_them(
    toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    """The meter sees what it is there to see."""
    one, ten = (_peak(toy_backbone, toy_tasks[0], "unrolled", steps) for steps in (1, 10))
    assert ten > 5 * one


def test_finite_differences_hold_what_first_order_holds_and_exact_little_more(
    toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    first = _peak(toy_backbone, toy_tasks[0], "auto", 1, method="fomaml")
    assert _peak(toy_backbone, toy_tasks[0], "finite_difference", 1) <= 1.05 * first
    assert _peak(toy_backbone, toy_tasks[0], "exact", 1) <= 1.6 * first
    assert _peak(toy_backbone, toy_tasks[0], "unrolled", 1) > 1.6 * first
