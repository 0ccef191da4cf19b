"""A method of one's own in a file of its own, as a user writes it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import mpt


@mpt.upstream_method(settings={"mu": 0.1})
def pulled(loss: Any, prompt: Tensor, episode: Any, config: Any) -> tuple[Tensor, float]:
    """First-order MAML with a pull of strength μ towards where the inner steps began."""
    adapted = mpt.adapt(loss, prompt, episode, config).prompt
    gradient, value = mpt.query_gradient(loss, adapted, episode)
    return gradient + config.mu * (adapted - prompt), value
