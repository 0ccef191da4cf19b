"""How far a queue of runs is."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class QueueProgress:
    """How far a queue is; counts are over all it has done, before a resumption too."""

    runs: int
    finished: int
    running: int
    waiting: int
    steps: int
    """Steps taken, summed over runs."""
    steps_left: int
    """Most steps still to be taken, summed over runs."""
    examples: int
    tokens: int
    """Real tokens trained on, those of the prompts included."""
    padded_tokens: int
    """Tokens that went through the model in training."""
    seconds: float
    """Seconds of work, evaluation included."""

    @property
    def useful_share(self) -> float:
        """Real tokens / padded tokens in training; NaN before the first step."""
        return self.tokens / self.padded_tokens if self.padded_tokens else math.nan
