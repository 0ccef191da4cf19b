"""Multitask learning: plain prompt tuning on the union of train and dev of all source tasks.

g = ∇L(φ, B),   B a batch of rows of any items
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpt.upstream.one_episode import OnStacks

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import StackLoss


def outer_gradients(
    loss: StackLoss, prompts: Tensor, episodes: Sequence[Episode], config: UpstreamConfig
) -> tuple[Tensor, list[float]]:
    """Return ∇L(φ, B) [E, P, d] of each episode's one batch, detached, and L(φ, B)."""
    leaf = prompts.detach().requires_grad_()
    values = loss.support(leaf, [rows for episode in episodes for rows in episode.support])
    (gradients,) = torch.autograd.grad(values.sum(), leaf)
    return gradients, values.detach().tolist()


outer_gradient = OnStacks(outer_gradients)
"""The same of one episode, see `mpt.upstream.one_episode.OuterGradient`."""
