"""What a trial reports at a rung: the metrics that searchers and schedulers see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpt.trial.score import PointScore


def rung_report(rungs: Sequence[int], scores: Mapping[int, PointScore]) -> dict[str, Any]:
    """Return ARG and interval at the last scored rung; NaN before the first.

    Args:
        rungs: of the trial, ascending, of one ratio where somebody halves by them.
        scores: rung → score, so far.

    Returns:
        ``arg``, ``arg_low`` and ``arg_high`` (in %, NaN where undefined); ``score``, which is
        finite at every rung, and ``best``, the highest so far; ``rung``, which grows by the ratio
        of the rungs from 1 on; ``rung_steps``, the rung itself (0 before the first).
    """
    if not scores:
        nothing = dict.fromkeys(("arg", "arg_low", "arg_high", "score", "best"), math.nan)
        return {**nothing, "rung": 0.0, "rung_steps": 0}
    steps = max(scores)
    arg, ratio = scores[steps].arg, rungs[1] / rungs[0] if len(rungs) > 1 else 1.0
    low, high = scores[steps].interval or (math.nan, math.nan)
    return {
        "arg": math.nan if arg is None else arg,
        "arg_low": low,
        "arg_high": high,
        "score": scores[steps].score,
        "best": max(score.score for score in scores.values()),
        "rung": ratio ** rungs.index(steps),
        "rung_steps": steps,
    }
