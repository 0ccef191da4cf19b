from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from episode_losses import ModelLoss
from torch import Tensor

from mpt.backbones import Backbone, load_backbone
from mpt.config import PromptConfig, TextConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.gym.episodes import Episode, EpisodeStream
from mpt.gym.fewshot import FewShotTask
from mpt.upstream.engine import UpstreamRun
from mpt.upstream.finite_difference import finite_difference_products
from mpt.upstream.inner import InnerStep, adapt_stack
from mpt.upstream.losses import EpisodeLoss, ItemRows, ItemsLoss
from mpt.upstream.methods.maml import outer_gradient
from mpt.upstream.one_episode import StackOfOne, adapt
from mpt.upstream.second_order import ENGINES, exact_products, resolve

INNER_LR = 300.0
"""Gradients of the toy are near 1e-2: the second-order term is a tenth of the whole and more."""


def _setting(
    backbone: Backbone, tasks: list[FewShotTask], **changes: Any
) -> tuple[ModelLoss, Tensor, Episode, UpstreamConfig]:
    config = UpstreamConfig(inner_lr=INNER_LR, batch_size=4, **changes)
    episode = EpisodeStream(tasks, config, 42).episode(1)
    dtype = torch.float64 if backbone.dtype == torch.float64 else torch.float32
    prompt = backbone.embeddings()[10:15].to(dtype)
    return ModelLoss(backbone, tasks[episode.item]), prompt, episode, config


def _with(config: UpstreamConfig, engine: str) -> UpstreamConfig:
    return dataclasses.replace(config, second_order=engine)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm())


def _first_order(
    loss: ModelLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> Tensor:
    leaf = adapt(loss, prompt, episode, config).prompt.requires_grad_()
    return torch.autograd.grad(loss.query(leaf, episode.query), leaf)[0]


def _step(
    loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> InnerStep:
    """Return the first inner step, as a stack of one."""
    return adapt_stack(StackOfOne(loss), prompt[None], [episode], config).steps[0]


def _difference(loss: EpisodeLoss, step: InnerStep, v: Tensor, inner_lr: float) -> Tensor:
    config = UpstreamConfig(inner_lr=inner_lr)
    return finite_difference_products(StackOfOne(loss), step, v[None], config)[0]


@pytest.mark.parametrize("steps", [1, 3])
def test_all_engines_give_the_same_meta_gradient_in_float64(
    steps: int, toy_backbone64: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    loss, prompt, episode, config = _setting(toy_backbone64, toy_tasks, inner_steps=steps)
    found = {name: outer_gradient(loss, prompt, episode, _with(config, name)) for name in ENGINES}
    reference, query = found["higher"]
    # Truncation of the difference is what is left in float64.
    close = dict.fromkeys(ENGINES, 1e-11) | {"finite_difference": 1e-7}
    for name, (gradient, value) in found.items():
        assert _apart(gradient, reference) < close[name], name
        assert value == pytest.approx(query, rel=1e-12)
        assert not gradient.requires_grad
    assert _apart(_first_order(loss, prompt, episode, config), reference) > 0.1


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("inner_lr", [1e-2, INNER_LR])
def test_finite_differences_in_float32_are_within_a_thousandth_of_exact(
    steps: int, inner_lr: float, toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    loss, prompt, episode, config = _setting(toy_backbone, toy_tasks, inner_steps=steps)
    config = dataclasses.replace(config, inner_lr=inner_lr)
    exact, _ = outer_gradient(loss, prompt, episode, _with(config, "exact"))
    lean, _ = outer_gradient(loss, prompt, episode, _with(config, "finite_difference"))
    assert _apart(lean, exact) < 1e-3


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_step_of_the_difference_follows_the_scale_of_the_vector(
    scale: float, toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    """H(cv) = c·Hv; at an α so large that nothing but the product counts."""
    loss, prompt, episode, config = _setting(toy_backbone, toy_tasks)
    step = _step(loss, prompt, episode, config)
    v = torch.randn(prompt.shape, generator=torch.Generator().manual_seed(1))
    expected = exact_products(StackOfOne(loss), step, v[None])[0]
    found = _difference(loss, step, scale * v, 1e6) / scale
    assert _apart(found, expected) < 2e-3


class Exponential:
    """L(φ) = Σ exp(s (φ − c)) / s², so ∇L = exp(s (φ − c)) / s and ∇²L = diag(exp(s (φ − c)))."""

    def __init__(self, sharp: float, centre: float):
        self.sharp, self.centre, self.passes = sharp, centre, 0

    def support(self, prompt: Tensor, rows: Any, *, second_order: bool = False) -> Tensor:
        self.passes += 1
        return (torch.exp(self.sharp * (prompt - self.centre)) / self.sharp**2).sum()

    query = support

    def shares(self, rows: Any) -> list[float]:
        return [1.0]


@pytest.mark.parametrize(("sharp", "passes"), [(0.01, 2), (10.0, 4)])
def test_a_step_that_is_too_long_is_seen_and_shortened(sharp: float, passes: int) -> None:
    """The first step is near 1e-6 of the prompt: 0.12, which is long where s = 10."""
    loss = Exponential(sharp, centre=1e5)
    offset = torch.linspace(-0.1, 0.1, 12, dtype=torch.float64).reshape(3, 4)
    episode = Episode(0, 0, "toy", 13, ((0,),), (0,))
    step = _step(loss, 1e5 + offset, episode, UpstreamConfig(inner_lr=1e-9))
    loss.passes = 0
    product = _difference(loss, step, torch.ones_like(offset), inner_lr=1e6)
    assert _apart(product, torch.exp(sharp * offset)) < 1e-3
    assert loss.passes == passes


def test_a_vector_of_zeros_and_of_nans_ends_the_search_at_once(
    toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    loss, prompt, episode, config = _setting(toy_backbone, toy_tasks)
    step = _step(loss, prompt, episode, config)
    zero = torch.zeros_like(prompt)
    assert torch.equal(_difference(loss, step, zero, 1.0), zero)
    assert _difference(loss, step, zero + math.nan, 1.0).isnan().all()


@pytest.mark.parametrize("engine", ["finite_difference", "exact"])
def test_dropout_is_replayed_so_that_both_passes_see_one_network(
    engine: str,
    toy_backbone64: Backbone,
    toy_tasks: list[FewShotTask],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reference keeps the graph of the inner pass, so nothing is drawn twice in it.

    Row by row dropout draws other numbers than in one batch: the reference has one row.
    """
    loss, prompt, episode, config = _setting(toy_backbone64, toy_tasks, inner_steps=2)
    episode = dataclasses.replace(episode, support=tuple(rows[:1] for rows in episode.support))
    loss.double = True  # one attention kernel draws as the other does only if it is the same

    def gradient(name: str) -> Tensor:
        with toy_backbone64.dropout(0.2, seed=5):
            return outer_gradient(loss, prompt, episode, _with(config, name))[0]

    reference = gradient("unrolled")
    assert _apart(gradient(engine), reference) < 1e-6
    assert torch.equal(gradient(engine), gradient(engine))

    @contextlib.contextmanager
    def forgotten(_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr("mpt.upstream.randomness.RandomState.again", forgotten)
    assert _apart(gradient(engine), reference) > 1e-2


def test_replaying_leaves_the_generator_as_it_found_it() -> None:
    from mpt.upstream.randomness import RandomState

    with torch.random.fork_rng(devices=[]):
        state = RandomState.now(torch.device("cpu"))
        first = torch.rand(3)
        before = torch.get_rng_state()
        with state.again():
            assert torch.equal(torch.rand(3), first)
        assert torch.equal(torch.get_rng_state(), before)


class Counting(ModelLoss):
    """Counts the passes by kind."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.kinds: list[tuple[int, bool]] = []

    def _loss(self, split: str, prompt: Tensor, rows: Any, double: bool) -> Tensor:
        self.kinds.append((len(rows), double))
        return super()._loss(split, prompt, rows, double)


def test_only_what_is_differentiated_twice_does_without_fused_attention(
    toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    plain, prompt, episode, config = _setting(toy_backbone, toy_tasks)
    seen = {}
    for name in ("finite_difference", "exact"):
        loss = Counting(plain.backbone, toy_tasks[episode.item])
        outer_gradient(loss, prompt, episode, _with(config, name))
        seen[name] = loss.kinds
    assert all(not double for _, double in seen["finite_difference"])
    # inner steps and Hessian-vector products row by row, the query in one batch
    assert seen["exact"] == [(1, False)] * 4 + [(4, False)] + [(1, True)] * 4


@pytest.mark.parametrize(
    ("dtype", "small", "choice"),
    [
        (torch.float32, True, "unrolled"),
        (torch.float32, False, "finite_difference"),
        (torch.float64, True, "exact"),
        (torch.bfloat16, True, "exact"),
        (torch.bfloat16, False, "exact"),
    ],
)
def test_auto_chooses_by_dtype_and_size(
    dtype: torch.dtype,
    small: bool,
    choice: str,
    toy_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not small:
        monkeypatch.setattr("mpt.upstream.second_order.SMALL", 0)
    backbone = load_backbone(str(toy_checkpoint), dtype=dtype)
    assert resolve(UpstreamConfig(), backbone).second_order == choice
    asked = UpstreamConfig(second_order="higher")
    assert resolve(asked, backbone) == asked


def test_finite_differences_are_refused_in_bfloat16(
    toy_checkpoint: Path, toy_tasks: list[FewShotTask]
) -> None:
    backbone = load_backbone(str(toy_checkpoint), dtype=torch.bfloat16)
    config = UpstreamConfig(second_order="finite_difference")
    with pytest.raises(UsageError, match="'finite_difference', but must be 'exact' or 'auto'"):
        UpstreamRun(backbone, toy_tasks, config, PromptConfig(length=3), TextConfig(), 42)
    # Where there is no second-order term the setting has no say.
    resolve(dataclasses.replace(config, method="fomaml"), backbone)


def test_the_choice_is_logged_and_auto_has_the_key_of_what_it_chose(
    toy_backbone: Backbone, toy_tasks: list[FewShotTask], caplog: pytest.LogCaptureFixture
) -> None:
    def run(engine: str, method: str = "maml") -> UpstreamRun:
        config = UpstreamConfig(second_order=engine, method=method)
        return UpstreamRun(
            toy_backbone, toy_tasks, config, PromptConfig(length=3), TextConfig(), 42
        )

    with caplog.at_level(logging.INFO, logger="mpt.upstream.engine"):
        keys = [run(engine).key for engine in ("auto", "unrolled", "finite_difference")]
        run("auto", "fomaml")
    assert keys[0] == keys[1] != keys[2]
    messages = [record.getMessage() for record in caplog.records]
    assert "second order: unrolled (auto); attention: math where" in messages[0]
    assert "second order: finite_difference; attention: fused" in messages[2]
    assert "second order: none; attention: fused" in messages[3]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_activation_checkpointing_changes_memory_but_no_number(
    dropout: float, toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    def prompt(checkpointing: bool) -> Tensor:
        config = UpstreamConfig(
            inner_lr=INNER_LR,
            second_order="finite_difference",
            dropout=dropout,
            activation_checkpointing=checkpointing,
        )
        settings = (config, PromptConfig(length=3), TextConfig(), 42)
        run = UpstreamRun(toy_backbone, toy_tasks, *settings)
        run.advance(2)
        return run.prompt

    toy_backbone.model.eval()
    assert torch.equal(prompt(False), prompt(True))
    assert not any(module.training for module in toy_backbone.model.modules())


def _kept_bytes(backbone: Backbone, task: FewShotTask, checkpointing: bool) -> int:
    """Return the bytes that autograd keeps for the backward pass of one loss."""
    rows = ItemRows(backbone, [task], TextConfig())
    loss = ItemsLoss(backbone, rows, [0], checkpointing=checkpointing)
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    prompts = backbone.embeddings()[None, :5].clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss.support(prompts, [[0, 1, 2, 3]])
    return kept


def test_activation_checkpointing_keeps_less(
    toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    plain, lean = (_kept_bytes(toy_backbone, toy_tasks[0], on) for on in (False, True))
    assert lean < 0.7 * plain
