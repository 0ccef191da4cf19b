"""Reptile: the direction in which k inner steps moved the prompt, on support rows only.

    g = (φ − φ_k) / α = Σ_i ∇L(φ_i, S_{i+1})

The released code subtracts φ_k from φ. In float32 with prompt entries near 20 and α = 3e-5 the
two are equal in nearly every entry, and what is left is rounding (PROTOCOL row 15); the inner loop
here keeps the displacement in a tensor of its own instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mpt.upstream.inner import adapt

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import EpisodeLoss


def outer_gradient(
    loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> tuple[Tensor, float]:
    """Return (φ − φ_k) / α [P, d] of one episode, detached, and the mean loss of its steps."""
    path = adapt(loss, prompt, episode, config)
    value = sum(step.loss for step in path.steps) / len(path.steps)
    if config.reptile_difference == "accumulated":
        return path.displacement / config.inner_lr, value
    return (prompt.detach() - path.prompt) / config.inner_lr, value
