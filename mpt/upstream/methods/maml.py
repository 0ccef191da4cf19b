"""MAML on a soft prompt, exact to second order (paper Eq. 4).

k inner SGD steps on support batches S_1 … S_k, then the query loss at the adapted prompt::

    φ_0 = φ,   φ_{i} = φ_{i−1} − α ∇L(φ_{i−1}, S_i)
    g = ∇_φ L(φ_k, Q)            for k = 1:  g_Q(φ′) − α H_S(φ) g_Q(φ′)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from mpt.upstream.one_episode import OnStacks
from mpt.upstream.second_order import ENGINES

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import StackLoss


def outer_gradients(
    loss: StackLoss, prompts: Tensor, episodes: Sequence[Episode], config: UpstreamConfig
) -> tuple[Tensor, list[float]]:
    """Return the meta-gradient of each episode and its query loss after adaptation.

    Args:
        loss: the losses of prompts on rows of the episodes' items.
        prompts: φ [E, P, d].
        episodes: k support batches and one query batch each.
        config: inner learning rate α and engine; the number of inner steps is the episodes'.
            "auto" is resolved by `UpstreamRun`, which knows the backbone; here it is "exact", or
            "unrolled" with inner steps of Adafactor.

    Returns:
        ∇_φ L(φ_k, Q) [E, P, d], detached, and L(φ_k, Q).
    """
    name = config.second_order
    if name == "auto":
        name = "unrolled" if config.inner_optimiser == "adafactor" else "exact"
    return ENGINES[name](loss, prompts, episodes, config)


outer_gradient = OnStacks(outer_gradients)
"""The same of one episode, see `mpt.upstream.one_episode.OuterGradient`."""
