"""First-order MAML: the query gradient at the adapted prompt, without the second-order term.

φ_k = φ − α Σ_i ∇L(φ_i, S_{i+1}),   g = ∇L(φ_k, Q)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mpt.upstream.inner import adapt, query_gradient

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import EpisodeLoss


def outer_gradient(
    loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> tuple[Tensor, float]:
    """Return ∇L(φ_k, Q) [P, d] of one episode, detached, and L(φ_k, Q)."""
    adapted = adapt(loss, prompt, episode, config).prompt
    return query_gradient(loss, adapted, episode)
