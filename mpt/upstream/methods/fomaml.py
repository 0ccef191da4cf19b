"""First-order MAML: the query gradient at the adapted prompt, without the second-order term.

φ_k = φ − α Σ_i ∇L(φ_i, S_{i+1}),   g = ∇L(φ_k, Q)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from mpt.upstream.inner import adapt_stack, query_gradients
from mpt.upstream.one_episode import OnStacks

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import StackLoss


def outer_gradients(
    loss: StackLoss, prompts: Tensor, episodes: Sequence[Episode], config: UpstreamConfig
) -> tuple[Tensor, list[float]]:
    """Return ∇L(φ_k, Q) [E, P, d] of each episode, detached, and L(φ_k, Q)."""
    adapted = adapt_stack(loss, prompts, episodes, config).prompts
    return query_gradients(loss, adapted, episodes)


outer_gradient = OnStacks(outer_gradients)
"""The same of one episode, see `mpt.upstream.one_episode.OuterGradient`."""
