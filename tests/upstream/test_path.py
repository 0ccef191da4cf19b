"""What ties `path` to the other methods, and MAML through inner steps of Adafactor."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from episode_losses import ModelLoss, Quadratic
from torch import Tensor
from toys import toy_task
from transformers.optimization import Adafactor as HuggingFaceAdafactor

from mpt.backbones import Backbone
from mpt.config import PromptConfig, TextConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.gym.episodes import Episode
from mpt.upstream.engine import UpstreamRun
from mpt.upstream.methods import fomaml, maml, multitask, path

PATH = UpstreamConfig(method="path", inner_lr=5.0)


@pytest.fixture
def loss(toy_backbone64: Backbone) -> ModelLoss:
    return ModelLoss(toy_backbone64, toy_task())


def _prompt(width: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(3, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("inner", ["sgd", "adafactor"])
def test_without_inner_steps_it_is_multitask_learning_on_the_query_batch(
    inner: str, loss: ModelLoss
) -> None:
    prompt = _prompt(loss.backbone.d_model)
    config = dataclasses.replace(PATH, inner_optimiser=inner)
    found, value = path.outer_gradient(
        loss, prompt, Episode(0, 0, "toy", 13, (), (1, 2, 5)), config
    )
    swapped = ModelLoss(loss.backbone, toy_task())
    swapped.rows["train"] = swapped.rows["dev"]  # multitask learning has one batch of any rows
    union = Episode(0, 0, "toy", 13, ((1, 2, 5),), ())
    expected, same = multitask.outer_gradient(swapped, prompt, union, PATH)
    assert torch.equal(found, expected)
    assert value == same


@pytest.mark.parametrize("inner", ["sgd", "adafactor"])
def test_one_inner_step_gives_fomaml_and_the_support_gradient(inner: str, loss: ModelLoss) -> None:
    prompt = _prompt(loss.backbone.d_model)
    config = dataclasses.replace(PATH, inner_optimiser=inner)
    episode = Episode(0, 0, "toy", 13, ((0, 3),), (1, 2))
    found, value = path.outer_gradient(loss, prompt, episode, config)
    query, same = fomaml.outer_gradient(loss, prompt, episode, config)
    leaf = prompt.clone().requires_grad_()
    (support,) = torch.autograd.grad(loss.support(leaf, (0, 3)), leaf)
    assert torch.equal(found, query + support)
    assert value == same
    assert support.norm() > 0.1 * query.norm()


def test_three_steps_of_a_number_by_hand() -> None:
    """L = ½ a (φ − c)², α = 0.5 and three batches of SGD, then the query.

    φ: 1 → 1 − .5 · 2 · (1 − 0) = 0 → 0 − .5 · 1 · (0 − 2) = 1 → 1 − .5 · 4 · (1 − 2) = 3.
    g = 2 · 1 + 1 · (−2) + 4 · (−1) + 3 · (3 − 1) = 2.
    """
    quadratic = Quadratic(1)
    quadratic.curvature = torch.tensor([2.0, 1.0, 4.0, 3.0]).view(4, 1, 1).double()
    quadratic.centre = torch.tensor([0.0, 2.0, 2.0, 1.0]).view(4, 1).double()
    episode = Episode(0, 0, "toy", 13, ((0,), (1,), (2,)), (3,))
    config = dataclasses.replace(PATH, inner_lr=0.5)
    found, value = path.outer_gradient(
        quadratic, torch.ones(1, 1, dtype=torch.float64), episode, config
    )
    assert found.item() == pytest.approx(2.0, rel=1e-12)
    assert value == pytest.approx(0.5 * 3 * 4, rel=1e-12)


def test_maml_differentiates_through_adafactor() -> None:
    """Central differences of L(φ_k, Q), φ_k from three steps of Hugging Face's Adafactor."""
    quadratic = Quadratic(6)
    prompt = _prompt(2)
    episode = Episode(0, 0, "toy", 13, ((0, 1), (2,), (3, 4)), (5, 6))
    config = UpstreamConfig(method="maml", inner_lr=0.2, inner_optimiser="adafactor")

    def after(start: Tensor) -> float:
        phi = torch.nn.Parameter(start.clone())
        inner: Any = HuggingFaceAdafactor(
            [phi], lr=0.2, scale_parameter=False, relative_step=False, weight_decay=1e-5
        )
        for rows in episode.support:
            phi.grad = quadratic.gradient(phi.detach(), rows).view_as(phi)
            inner.step()
        return float(quadratic.query(phi.detach(), episode.query))

    found, value = maml.outer_gradient(quadratic, prompt, episode, config)
    assert value == pytest.approx(after(prompt), rel=1e-12)
    step = 1e-6
    expected = torch.zeros_like(prompt)
    for place in range(prompt.numel()):
        change = torch.zeros_like(prompt)
        change.view(-1)[place] = step
        expected.view(-1)[place] = (after(prompt + change) - after(prompt - change)) / (2 * step)
    # differences of order ε² beside rounding of 1e-16 / ε
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    first, _ = fomaml.outer_gradient(quadratic, prompt, episode, config)
    assert (first - expected).norm() > 0.01 * expected.norm()


@pytest.mark.parametrize("engine", ["exact", "finite_difference", "higher"])
def test_engines_that_know_sgd_only_are_refused(engine: str, toy_backbone: Backbone) -> None:
    config = UpstreamConfig(method="maml", inner_optimiser="adafactor", second_order=engine)
    arguments: Any = ([toy_task()], config, PromptConfig(length=2), TextConfig(), 42)
    with pytest.raises(UsageError, match=f"second_order is '{engine}', but must be 'unrolled'"):
        UpstreamRun(toy_backbone, *arguments)
