"""Reptile: the direction in which k inner steps moved the prompt, on support rows only.

    g = (φ − φ_k) / α = Σ_i ∇L(φ_i, S_{i+1})

The released code walks the prompt itself, rounds it at every step and subtracts φ_k from φ in the
end ("subtracted"). In float32 with prompt entries near 20 and α = 3e-5 the two are equal in nearly
every entry, and what is left is rounding (recipe row 15); by default ("accumulated") the inner
loop keeps the displacement in a tensor of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from mpt.upstream.inner import adapt_stack
from mpt.upstream.one_episode import OnStacks

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import StackLoss


def outer_gradients(
    loss: StackLoss, prompts: Tensor, episodes: Sequence[Episode], config: UpstreamConfig
) -> tuple[Tensor, list[float]]:
    """Return (φ − φ_k) / α [E, P, d] of each episode, detached, and the mean loss of its steps."""
    walk = config.reptile_difference == "subtracted"
    path = adapt_stack(loss, prompts, episodes, config, walk=walk)
    by_episode = zip(*(step.losses for step in path.steps), strict=True)
    values = [sum(losses) / len(losses) for losses in by_episode]
    return path.displacements / config.inner_lr, values


outer_gradient = OnStacks(outer_gradients)
"""The same of one episode, see `mpt.upstream.one_episode.OuterGradient`."""
