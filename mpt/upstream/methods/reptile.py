"""Reptile: the direction in which k inner steps moved the prompt, on support rows only.

    g = (φ − φ_k) / α = Σ_i ∇L(φ_i, S_{i+1})

The released code walks the prompt itself, rounds it at every step and subtracts φ_k from φ in the
end ("subtracted"). In float32 with prompt entries near 20 and α = 3e-5 the two are equal in nearly
every entry, and what is left is rounding (recipe row 15); by default ("accumulated") the inner
loop keeps the displacement in a tensor of its own.
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
    walk = config.reptile_difference == "subtracted"
    path = adapt(loss, prompt, episode, config, walk=walk)
    value = sum(step.loss for step in path.steps) / len(path.steps)
    return path.displacement / config.inner_lr, value
