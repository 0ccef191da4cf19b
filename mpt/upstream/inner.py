"""The inner loop that all meta methods share: k steps on the support batches, first order.

By default the steps are those of SGD:

    Δ_0 = 0,   φ_i = φ − Δ_i,   Δ_{i+1} = Δ_i + α ∇L(φ_i, S_{i+1})

Only φ_0 … φ_k and the k gradients outlive a step, [P, d] each, so that memory does not grow with k
in any way that counts. The displacement Δ has a tensor of its own: beside prompt entries of size
20 a step of 3e-5 · 1e-2 is below one unit of the last place in float32 (recipe row 15). The
released code walks the prompt itself, φ_{i+1} = φ_i − α ∇L(φ_i, S_{i+1}), rounded at every step;
`walk` does so too. With "adafactor" the steps are those of downstream tuning,
φ_{i+1} = Adafactor(φ_i, ∇L(φ_i, S_{i+1}); α), with moments that start anew in every episode.

Shapes: P prompt tokens, d model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpt.optim import Adafactor
from mpt.upstream.randomness import RandomState

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import EpisodeLoss


@dataclass(frozen=True)
class Pass:
    """One pass over support rows that can be done again exactly."""

    rows: tuple[int, ...]
    share: float
    """Its weight in the loss of the whole support batch."""
    random: RandomState
    """Where the random numbers stood before it."""


@dataclass(frozen=True)
class InnerStep:
    """One inner step at φ_i."""

    prompt: Tensor
    """φ_i [P, d]."""
    passes: tuple[Pass, ...]
    gradient: Tensor
    """∇L(φ_i, S_{i+1}) [P, d]."""
    loss: float
    """L(φ_i, S_{i+1})."""


@dataclass(frozen=True)
class Adaptation:
    """The whole inner loop of an episode."""

    steps: tuple[InnerStep, ...]
    prompt: Tensor
    """φ_k [P, d]."""
    displacement: Tensor
    """Δ_k = φ − φ_k [P, d], to full relative precision unless the prompt itself was walked."""


def adapt(
    loss: EpisodeLoss,
    prompt: Tensor,
    episode: Episode,
    config: UpstreamConfig,
    *,
    by_row: bool = False,
    walk: bool = False,
) -> Adaptation:
    """Take the inner steps of an episode.

    Args:
        loss: the loss of a prompt on rows of the episode's item.
        prompt: φ [P, d].
        episode: its support batches are the steps.
        config: inner optimiser and its learning rate α.
        by_row: pass through the model row by row (less memory, the same gradient).
        walk: let SGD round φ_i at every step instead of keeping Δ_i in a tensor of its own.
    """
    start = prompt.detach()
    way = _way(start, config, walk)
    at, steps = start, []
    for rows in episode.support:
        step = _inner_step(loss, at, rows, by_row)
        at = way.step(step.gradient)
        steps.append(step)
    return Adaptation(tuple(steps), at, way.displacement)


class _Accumulating:
    """SGD that keeps the displacement in a tensor of its own."""

    def __init__(self, start: Tensor, lr: float):
        self._start, self._lr = start, lr
        self.displacement = torch.zeros_like(start)

    def step(self, gradient: Tensor) -> Tensor:
        """Return the next prompt [P, d] (in a tensor of its own)."""
        self.displacement = self.displacement + self._lr * gradient
        return self._start - self.displacement


class _Walking:
    """SGD that rounds the prompt itself at every step."""

    def __init__(self, start: Tensor, lr: float):
        self._start, self._at, self._lr = start, start, lr

    def step(self, gradient: Tensor) -> Tensor:
        self._at = self._at - self._lr * gradient
        return self._at

    @property
    def displacement(self) -> Tensor:
        return self._start - self._at


class _Tuning:
    """Adafactor with fresh moments, as downstream; its steps are far above rounding."""

    def __init__(self, start: Tensor, lr: float):
        self._start = start
        self._optimiser = Adafactor(start[None].clone(), [lr])

    def step(self, gradient: Tensor) -> Tensor:
        self._optimiser.step(gradient[None])
        return self._optimiser.prompts[0].clone()

    @property
    def displacement(self) -> Tensor:
        return self._start - self._optimiser.prompts[0]


def _way(start: Tensor, config: UpstreamConfig, walk: bool) -> _Accumulating | _Walking | _Tuning:
    """Return what takes the inner steps from `start` [P, d]."""
    if config.inner_optimiser == "adafactor":
        return _Tuning(start, config.inner_lr)
    return (_Walking if walk else _Accumulating)(start, config.inner_lr)


def query_gradient(loss: EpisodeLoss, prompt: Tensor, episode: Episode) -> tuple[Tensor, float]:
    """Return the gradient [P, d] of the query loss at `prompt` [P, d], and the loss."""
    leaf = prompt.detach().requires_grad_()
    query = loss.query(leaf, episode.query)
    (gradient,) = torch.autograd.grad(query, leaf)
    return gradient, float(query.detach())


def pass_gradient(loss: EpisodeLoss, prompt: Tensor, one: Pass) -> Tensor:
    """Return the gradient [P, d] of a pass's part of the support loss at another prompt."""
    leaf = prompt.detach().requires_grad_()
    with one.random.again():
        (gradient,) = torch.autograd.grad(loss.support(leaf, one.rows), leaf)
    return one.share * gradient


def _inner_step(loss: EpisodeLoss, at: Tensor, rows: Sequence[int], by_row: bool) -> InnerStep:
    parts = [(row,) for row in rows] if by_row else [tuple(rows)]
    shares = loss.shares(rows) if by_row else [1.0]
    gradient, total = torch.zeros_like(at), 0.0
    passes = []
    for part, share in zip(parts, shares, strict=True):
        passes.append(Pass(part, share, RandomState.now(at.device)))
        leaf = at.detach().requires_grad_()
        value = loss.support(leaf, part)
        gradient += share * torch.autograd.grad(value, leaf)[0]
        total += share * float(value.detach())
    return InnerStep(at, tuple(passes), gradient, total)
