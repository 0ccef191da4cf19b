"""Second order on every architecture; its rows come from the contract suite of the backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
from episode_losses import ModelLoss
from torch import Tensor
from toy_backbones import FAMILIES
from toys import toy_task

from mpt.backbones import Backbone, load_backbone
from mpt.config import PromptConfig, TextConfig, UpstreamConfig
from mpt.gym.episodes import Episode
from mpt.upstream.engine import UpstreamRun
from mpt.upstream.methods.maml import outer_gradient
from mpt.upstream.one_episode import adapt, query_gradient


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("families")
    return {family: save(place / family) for family, save in FAMILIES.items()}


@pytest.fixture(params=[(f, p) for f in FAMILIES for p in ("prepend", "append")], ids=str)
def backbone(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Backbone:
    family, position = request.param
    return load_backbone(str(checkpoints[family]), position=position)


EPISODE = Episode(0, 0, "toy", 13, ((0, 1, 2, 3), (4, 5)), (0, 1, 2, 3))


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_engines_agree_and_finite_differences_are_within_a_thousandth(backbone: Backbone) -> None:
    loss = ModelLoss(backbone, toy_task())
    prompt = backbone.embeddings()[10:14].clone()

    def gradient(engine: str, inner_lr: float) -> Tensor:
        config = UpstreamConfig(inner_lr=inner_lr, second_order=engine)
        return outer_gradient(loss, prompt, EPISODE, config)[0]

    # An α at which the inner steps move the prompt by a third of its length.
    (first, *_) = adapt(loss, prompt, EPISODE, UpstreamConfig(inner_lr=1.0)).steps
    inner_lr = 0.3 * float(prompt.norm() / first.gradient.norm())
    reference = gradient("unrolled", inner_lr)
    assert _apart(gradient("exact", inner_lr), reference) < 1e-4
    assert _apart(gradient("higher", inner_lr), reference) < 1e-4
    assert _apart(gradient("finite_difference", inner_lr), reference) < 1e-3
    path = adapt(loss, prompt, EPISODE, UpstreamConfig(inner_lr=inner_lr))
    assert _apart(query_gradient(loss, path.prompt, EPISODE)[0], reference) > 1e-2


def test_activation_checkpointing_changes_no_number(backbone: Backbone) -> None:
    def prompt(checkpointing: bool) -> Tensor:
        config = UpstreamConfig(
            inner_lr=1.0,
            second_order="finite_difference",
            activation_checkpointing=checkpointing,
        )
        settings = (config, PromptConfig(length=3, position=backbone.position), TextConfig(), 42)
        run = UpstreamRun(backbone, [toy_task()], *settings)
        run.advance(1)
        return run.prompt

    # Without its cache of the input GPT-2 rounds otherwise, and Adafactor's first step is near the
    # sign of the gradient: small entries feel it.
    assert _apart(prompt(True), prompt(False)) < 1e-3
