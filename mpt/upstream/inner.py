"""The inner loop that all meta methods share: k steps on the support batches, first order.

By default the steps are those of SGD:

    Δ_0 = 0,   φ_i = φ − Δ_i,   Δ_{i+1} = Δ_i + α ∇L(φ_i, S_{i+1})

Only φ_0 … φ_k and the k gradients outlive a step, [P, d] each, so that memory does not grow with k
in any way that counts. The displacement Δ has a tensor of its own: beside prompt entries of size
20 a step of 3e-5 · 1e-2 is below one unit of the last place in float32 (recipe row 15). The
released code walks the prompt itself, φ_{i+1} = φ_i − α ∇L(φ_i, S_{i+1}), rounded at every step;
`walk` does so too. With "adafactor" the steps are those of downstream tuning,
φ_{i+1} = Adafactor(φ_i, ∇L(φ_i, S_{i+1}); α), with moments that start anew in every episode.

E episodes take their steps side by side, in the same passes, each as if it were alone.

Shapes: E episodes, P prompt tokens, d model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpt.optim import Adafactor
from mpt.upstream.randomness import RandomState

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import StackLoss, StackRows

    Parts = Iterator[tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]]


@dataclass(frozen=True)
class Pass:
    """One pass over support rows that can be done again exactly."""

    rows: tuple[tuple[int, ...], ...]
    """Rows of each episode."""
    shares: tuple[float, ...]
    """Their weight in the loss of the episode's whole support batch."""
    random: RandomState
    """Where the random numbers stood before it."""

    def weighed(self, gradients: Tensor) -> Tensor:
        """Return each episode's gradient [E, P, d] times its share."""
        if all(share == 1.0 for share in self.shares):
            return gradients
        return gradients.new_tensor(self.shares)[:, None, None] * gradients


@dataclass(frozen=True)
class InnerStep:
    """One inner step of every episode."""

    prompts: Tensor
    """φ_i [E, P, d]."""
    passes: tuple[Pass, ...]
    gradients: Tensor
    """∇L(φ_i, S_{i+1}) [E, P, d]."""
    losses: tuple[float, ...]
    """L(φ_i, S_{i+1}) of each episode."""


@dataclass(frozen=True)
class Adaptation:
    """The whole inner loop of every episode."""

    steps: tuple[InnerStep, ...]
    prompts: Tensor
    """φ_k [E, P, d]."""
    displacements: Tensor
    """Δ_k = φ − φ_k [E, P, d], to full relative precision unless the prompt itself was walked."""


def adapt_stack(
    loss: StackLoss,
    prompts: Tensor,
    episodes: Sequence[Episode],
    config: UpstreamConfig,
    *,
    by_row: bool = False,
    walk: bool = False,
) -> Adaptation:
    """Take the inner steps of episodes side by side.

    Args:
        loss: the losses of prompts on rows of the episodes' items.
        prompts: φ [E, P, d].
        episodes: their support batches are the steps; all have as many.
        config: inner optimiser and its learning rate α.
        by_row: pass through the model with one row of each episode at a time (less memory, the
            same gradients).
        walk: let SGD round φ_i at every step instead of keeping Δ_i in a tensor of its own.
    """
    start = prompts.detach()
    way = _way(start, config, walk)
    at, steps = start, []
    for rows in zip(*(episode.support for episode in episodes), strict=True):
        step = _inner_step(loss, at, rows, by_row)
        at = way.step(step.gradients)
        steps.append(step)
    return Adaptation(tuple(steps), at, way.displacement)


class _Accumulating:
    """SGD that keeps the displacement in a tensor of its own."""

    def __init__(self, start: Tensor, lr: float):
        self._start, self._lr = start, lr
        self.displacement = torch.zeros_like(start)

    def step(self, gradients: Tensor) -> Tensor:
        """Return the next prompts [E, P, d] (in a tensor of their own)."""
        self.displacement = self.displacement + self._lr * gradients
        return self._start - self.displacement


class _Walking:
    """SGD that rounds the prompt itself at every step."""

    def __init__(self, start: Tensor, lr: float):
        self._start, self._at, self._lr = start, start, lr

    def step(self, gradients: Tensor) -> Tensor:
        self._at = self._at - self._lr * gradients
        return self._at

    @property
    def displacement(self) -> Tensor:
        return self._start - self._at


class _Tuning:
    """Adafactor with fresh moments, as downstream; its steps are far above rounding."""

    def __init__(self, start: Tensor, lr: float):
        self._start = start
        self._optimiser = Adafactor(start.clone(), [lr] * len(start))

    def step(self, gradients: Tensor) -> Tensor:
        self._optimiser.step(gradients)
        return self._optimiser.prompts.clone()

    @property
    def displacement(self) -> Tensor:
        return self._start - self._optimiser.prompts


def _way(start: Tensor, config: UpstreamConfig, walk: bool) -> _Accumulating | _Walking | _Tuning:
    """Return what takes the inner steps from `start` [E, P, d]."""
    if config.inner_optimiser == "adafactor":
        return _Tuning(start, config.inner_lr)
    return (_Walking if walk else _Accumulating)(start, config.inner_lr)


def query_gradients(
    loss: StackLoss, prompts: Tensor, episodes: Sequence[Episode]
) -> tuple[Tensor, list[float]]:
    """Return the gradients [E, P, d] of the query losses at prompts [E, P, d], and the losses."""
    leaf = prompts.detach().requires_grad_()
    query = loss.query(leaf, [episode.query for episode in episodes])
    (gradients,) = torch.autograd.grad(query.sum(), leaf)
    return gradients, query.detach().tolist()


def pass_gradients(
    loss: StackLoss, prompts: Tensor, one: Pass, rows: StackRows | None = None
) -> Tensor:
    """Return the gradients [E, P, d] of a pass's part of the support losses at other prompts.

    Args:
        loss: see `adapt_stack`.
        prompts: [E, P, d].
        one: the pass.
        rows: fewer rows than the pass's own; with dropout other units are dropped then.
    """
    leaf = prompts.detach().requires_grad_()
    with one.random.again():
        losses = loss.support(leaf, one.rows if rows is None else rows)
        (gradients,) = torch.autograd.grad(losses.sum(), leaf)
    return one.weighed(gradients)


def _inner_step(
    loss: StackLoss, at: Tensor, rows: tuple[tuple[int, ...], ...], by_row: bool
) -> InnerStep:
    gradients, totals = torch.zeros_like(at), [0.0] * len(rows)
    passes = []
    parts = _row_by_row(loss, rows) if by_row else iter([(rows, (1.0,) * len(rows))])
    for part, shares in parts:
        one = Pass(part, shares, RandomState.now(at.device))
        passes.append(one)
        leaf = at.detach().requires_grad_()
        losses = loss.support(leaf, part)
        gradients += one.weighed(torch.autograd.grad(losses.sum(), leaf)[0])
        own = zip(totals, shares, losses.detach().tolist(), strict=True)
        totals = [total + share * value for total, share, value in own]
    return InnerStep(at, tuple(passes), gradients, tuple(totals))


def _row_by_row(loss: StackLoss, rows: tuple[tuple[int, ...], ...]) -> Parts:
    """Yield row j of every episode, and its share; an episode with fewer rows has none there."""
    shares = loss.shares(rows)
    for j in range(max(map(len, rows))):
        part = tuple(own[j : j + 1] for own in rows)
        yield part, tuple(own[j] if j < len(own) else 0.0 for own in shares)
