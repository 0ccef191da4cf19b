"""Between one episode and a stack of them: what a method of one's own is written with.

The library's own methods are written on stacks, `OnStacks`, so that the episodes of an outer step
can share passes. A method of one's own is a function of one episode, and gets them one at a time;
`mpt.adapt` and `mpt.query_gradient` do for it what the stacked functions do for the others.

Shapes: E episodes, P prompt tokens, d model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from mpt.upstream.inner import adapt_stack, query_gradients

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import EpisodeLoss, StackLoss, StackRows

OuterGradient = Callable[
    ["EpisodeLoss", Tensor, "Episode", "UpstreamConfig"], tuple[Tensor, float]
]
"""(loss, prompt [P, d], episode, config) → (outer gradient [P, d], loss that is reported).

It must not change the prompt. The reported loss is that after adaptation on query rows where the
method has any, and that of its training rows otherwise.
"""
StackGradient = Callable[
    ["StackLoss", Tensor, Sequence["Episode"], "UpstreamConfig"], tuple[Tensor, list[float]]
]
"""The same of E episodes in shared passes: (losses, prompts [E, P, d], episodes, config) → (outer
gradients [E, P, d], reported loss of each). Each is what it would be alone, up to rounding."""


@dataclass(frozen=True)
class OnStacks:
    """An outer gradient that is written on stacks; called as any other, it takes one episode."""

    together: StackGradient

    def __call__(
        self, loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
    ) -> tuple[Tensor, float]:
        """Return the outer gradient [P, d] and the loss of one episode, see `OuterGradient`."""
        gradients, (value,) = self.together(StackOfOne(loss), prompt[None], [episode], config)
        return gradients[0], value


def on_stacks(outer_gradient: OuterGradient) -> StackGradient:
    """Return an outer gradient as a function of stacks; what is not written on them takes one."""
    if isinstance(outer_gradient, OnStacks):
        return outer_gradient.together

    def alone(
        loss: StackLoss, prompts: Tensor, episodes: Sequence[Episode], config: UpstreamConfig
    ) -> tuple[Tensor, list[float]]:
        (prompt,), (episode,) = prompts, episodes
        gradient, value = outer_gradient(OnlyLoss(loss), prompt, episode, config)
        return gradient[None], [value]

    return alone


class OnlyLoss:
    """`EpisodeLoss` of the only episode of a stack."""

    def __init__(self, stack: StackLoss):
        self._stack = stack

    def support(
        self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False
    ) -> Tensor:
        """Return the loss on train rows, see `EpisodeLoss`."""
        return self._stack.support(prompt[None], [rows], second_order=second_order)[0]

    def query(self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False) -> Tensor:
        """Return the loss on dev rows, see `EpisodeLoss`."""
        return self._stack.query(prompt[None], [rows], second_order=second_order)[0]

    def shares(self, rows: Sequence[int]) -> list[float]:
        """Return each train row's share, see `EpisodeLoss`."""
        return self._stack.shares([rows])[0]


class StackOfOne:
    """`StackLoss` of one episode."""

    def __init__(self, loss: EpisodeLoss):
        self._loss = loss

    def support(self, prompts: Tensor, rows: StackRows, *, second_order: bool = False) -> Tensor:
        """Return the one loss [1] on train rows, see `StackLoss`."""
        return self._loss.support(prompts[0], rows[0], second_order=second_order)[None]

    def query(self, prompts: Tensor, rows: StackRows, *, second_order: bool = False) -> Tensor:
        """Return the one loss [1] on dev rows, see `StackLoss`."""
        return self._loss.query(prompts[0], rows[0], second_order=second_order)[None]

    def shares(self, rows: StackRows) -> list[list[float]]:
        """Return the shares of the one episode's rows, see `StackLoss`."""
        return [self._loss.shares(rows[0])]


@dataclass(frozen=True)
class InnerStep:
    """One inner step at φ_i."""

    prompt: Tensor
    """φ_i [P, d]."""
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
    path = adapt_stack(StackOfOne(loss), prompt[None], [episode], config, by_row=by_row, walk=walk)
    steps = (InnerStep(one.prompts[0], one.gradients[0], one.losses[0]) for one in path.steps)
    return Adaptation(tuple(steps), path.prompts[0], path.displacements[0])


def query_gradient(loss: EpisodeLoss, prompt: Tensor, episode: Episode) -> tuple[Tensor, float]:
    """Return the gradient [P, d] of the query loss at `prompt` [P, d], and the loss."""
    gradients, (value,) = query_gradients(StackOfOne(loss), prompt[None], [episode])
    return gradients[0], value
