"""Path: the first-order gradient of the area under the learning curve that a start will have.

The inner loop is the downstream one (Adafactor at the downstream rate, see
`UpstreamConfig.inner_optimiser`), and every batch counts at the prompt where it was met::

    φ_0 = φ,   φ_{i+1} = Adafactor(φ_i, ∇L(φ_i, S_{i+1}); α)
    g = Σ_i ∇L(φ_i, S_{i+1}) + ∇L(φ_k, Q)            i = 0 … k − 1

No pass is wasted: each one that adapts counts outside too. With k = 0 it is multitask learning on
the query batch.
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
    """Return Σ_i ∇L(φ_i, B_i) [E, P, d] over each episode's batches, detached, and L(φ_k, Q)."""
    walked = adapt_stack(loss, prompts, episodes, config)
    gradients, values = query_gradients(loss, walked.prompts, episodes)
    for step in walked.steps:
        gradients = gradients + step.gradients
    return gradients, values


outer_gradient = OnStacks(outer_gradients)
"""The same of one episode, see `mpt.upstream.one_episode.OuterGradient`."""
