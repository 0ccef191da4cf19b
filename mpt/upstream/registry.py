"""Method name → its outer gradient. A new method is a file and a row here (and in `METHODS`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from mpt.upstream import maml

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import EpisodeLoss

OuterGradient = Callable[
    ["EpisodeLoss", Tensor, "Episode", "UpstreamConfig"], tuple[Tensor, float]
]
"""(loss, prompt [P, d], episode, config) → (outer gradient [P, d], query loss)."""

OUTER_GRADIENTS: Mapping[str, OuterGradient] = {"maml": maml.outer_gradient}
