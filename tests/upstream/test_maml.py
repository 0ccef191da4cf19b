from __future__ import annotations

import dataclasses

import pytest
import torch
from episode_losses import ModelLoss, Quadratic
from torch import Tensor

from mpt.backbones import Backbone
from mpt.config import UpstreamConfig
from mpt.gym.episodes import Episode, EpisodeStream
from mpt.gym.fewshot import FewShotTask
from mpt.upstream.methods.maml import outer_gradient
from mpt.upstream.second_order import ENGINES

P = 3

INNER_LR = 100.0
"""Gradients of the toy are near 1e-2: this moves a prompt of entries near 1 visibly."""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_meta_gradient_of_a_quadratic_is_its_closed_form(steps: int, engine: str) -> None:
    quadratic = Quadratic(6)
    prompt = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    support = ((0, 1), (2,), (3, 4))[:steps]
    episode = Episode(0, 0, "toy", 13, support, (5, 6))
    config = UpstreamConfig(inner_lr=0.1, inner_steps=steps, second_order=engine)
    gradient, loss = outer_gradient(quadratic, prompt, episode, config)
    # φ_i = φ_{i−1} − α A_i(φ_{i−1} − c_i) is affine, so
    # dL(φ_k, Q)/dφ = (I − αA_1) … (I − αA_k) ∇L(φ_k, Q), with the A symmetric.
    adapted, chain = prompt.flatten(), torch.eye(6, dtype=torch.float64)
    for rows in support:
        hessian = quadratic.curvature[list(rows)].sum(0)
        adapted = adapted - 0.1 * quadratic.gradient(adapted, rows)
        chain = chain @ (torch.eye(6, dtype=torch.float64) - 0.1 * hessian)
    expected = chain @ quadratic.gradient(adapted, (5, 6))
    # A difference of float64 gradients at a step near 1e-6 keeps ten digits, all else all.
    close = 1e-8 if engine == "finite_difference" else 1e-12
    torch.testing.assert_close(gradient.flatten(), expected, rtol=close, atol=close)
    assert loss == pytest.approx(quadratic.query(adapted, (5, 6)).item(), rel=1e-12)
    # First order alone is far off, so the second-order term is really there.
    assert (quadratic.gradient(adapted, (5, 6)) - expected).norm() > 0.1 * expected.norm()


def test_the_prompt_itself_is_neither_changed_nor_given_a_gradient() -> None:
    prompt = torch.ones(2, 3, dtype=torch.float64)
    episode = Episode(0, 0, "toy", 13, ((0,),), (1,))
    gradient, _ = outer_gradient(Quadratic(6), prompt, episode, UpstreamConfig(inner_lr=0.1))
    assert torch.equal(prompt, torch.ones_like(prompt))
    assert not prompt.requires_grad
    assert not gradient.requires_grad


@pytest.fixture(params=[1, 3])
def config(request: pytest.FixtureRequest) -> UpstreamConfig:
    return UpstreamConfig(inner_lr=INNER_LR, inner_steps=request.param, batch_size=3)


@pytest.fixture
def setting(
    toy_backbone64: Backbone, toy_tasks: list[FewShotTask], config: UpstreamConfig
) -> tuple[ModelLoss, Tensor, Episode]:
    episode = EpisodeStream(toy_tasks, config, 42).episode(1)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randn(P, toy_backbone64.d_model, generator=generator, dtype=torch.float64)
    return ModelLoss(toy_backbone64, toy_tasks[episode.item]), prompt, episode


def test_the_meta_gradient_equals_finite_differences_of_the_loss_after_adaptation(
    setting: tuple[ModelLoss, Tensor, Episode], config: UpstreamConfig
) -> None:
    loss, prompt, episode = setting
    gradient, _ = outer_gradient(loss, prompt, episode, config)

    def after_adaptation(start: Tensor) -> float:
        adapted = start
        for rows in episode.support:
            leaf = adapted.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss.support(leaf, rows), leaf)
            adapted = adapted - config.inner_lr * slope
        return float(loss.query(adapted, episode.query))

    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        direction = torch.randn(prompt.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        step = 1e-5
        difference = after_adaptation(prompt + step * direction)
        difference -= after_adaptation(prompt - step * direction)
        # Truncation step² and rounding 1e-16/step are both near 1e-10.
        assert (gradient * direction).sum().item() == pytest.approx(
            difference / (2 * step), rel=1e-6, abs=1e-8
        )


def test_the_meta_gradient_equals_an_explicit_hessian_vector_product(
    setting: tuple[ModelLoss, Tensor, Episode], config: UpstreamConfig
) -> None:
    """g ← g − α H_i g backwards over the stored φ_i (Eq. 4 unrolled), instead of one big graph."""
    loss, prompt, episode = setting
    gradient, query_loss = outer_gradient(loss, prompt, episode, config)
    path = [prompt]
    for rows in episode.support:
        leaf = path[-1].detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss.support(leaf, rows), leaf)
        path.append(leaf.detach() - config.inner_lr * slope)
    leaf = path[-1].detach().requires_grad_()
    final = loss.query(leaf, episode.query)
    (expected,) = torch.autograd.grad(final, leaf)
    first_order = expected
    for at, rows in zip(reversed(path[:-1]), reversed(episode.support), strict=True):
        leaf = at.detach().requires_grad_()
        inner = loss.support(leaf, rows, second_order=True)
        (slope,) = torch.autograd.grad(inner, leaf, create_graph=True)
        (curved,) = torch.autograd.grad((slope * expected).sum(), leaf)
        expected = expected - config.inner_lr * curved
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    assert query_loss == pytest.approx(final.item(), rel=1e-12)
    assert (first_order - expected).norm() > 1e-2 * expected.norm()


@pytest.mark.parametrize("change", [{"inner_lr": INNER_LR / 2}, {"inner_steps": 2}])
def test_inner_settings_change_the_meta_gradient(
    change: dict[str, float], toy_backbone64: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    base = UpstreamConfig(inner_lr=INNER_LR, batch_size=3)
    gradients = []
    for config in (base, dataclasses.replace(base, **change)):  # type: ignore[arg-type]
        episode = EpisodeStream(toy_tasks, config, 42).episode(1)
        loss = ModelLoss(toy_backbone64, toy_tasks[episode.item])
        prompt = toy_backbone64.embeddings()[10 : 10 + P].double()
        gradients.append(outer_gradient(loss, prompt, episode, config)[0])
    assert (gradients[0] - gradients[1]).norm() > 1e-3 * gradients[0].norm()
