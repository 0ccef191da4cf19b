"""Untrained: nothing is learned, φ* is the start itself.

The control of all others. Plain prompt tuning starts from words of the vocabulary, a learned
prompt from names of source tasks; what a method gains over plain tuning holds both what it has
learned and what its start is worth. This is the second part alone, at one step that reads no row
and moves nothing, scored like any other method and drawn by the same upstream seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import EpisodeLoss


def outer_gradient(
    loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> tuple[Tensor, float]:
    """Return zeros [P, d] and the loss 0; the engine takes no step along them."""
    return torch.zeros_like(prompt), 0.0
