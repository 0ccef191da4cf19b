"""Path: the first-order gradient of the area under the learning curve that a start will have.

The inner loop is the downstream one (Adafactor at the downstream rate, see
`UpstreamConfig.inner_optimiser`), and every batch counts at the prompt where it was met::

    φ_0 = φ,   φ_{i+1} = Adafactor(φ_i, ∇L(φ_i, S_{i+1}); α)
    g = Σ_i ∇L(φ_i, S_{i+1}) + ∇L(φ_k, Q)            i = 0 … k − 1

No pass is wasted: each one that adapts counts outside too. With k = 0 it is multitask learning on
the query batch.
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
    """Return Σ_i ∇L(φ_i, B_i) [P, d] over the batches of one episode, detached, and L(φ_k, Q)."""
    walked = adapt(loss, prompt, episode, config)
    gradient, value = query_gradient(loss, walked.prompt, episode)
    for step in walked.steps:
        gradient = gradient + step.gradient
    return gradient, value
