"""Multitask learning: plain prompt tuning on the union of train and dev of all source tasks.

g = ∇L(φ, B),   B a batch of rows of any items
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import EpisodeLoss


def outer_gradient(
    loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> tuple[Tensor, float]:
    """Return ∇L(φ, B) [P, d] of the episode's one batch, detached, and L(φ, B)."""
    leaf = prompt.detach().requires_grad_()
    (rows,) = episode.support
    value = loss.support(leaf, rows)
    (gradient,) = torch.autograd.grad(value, leaf)
    return gradient, float(value.detach())
