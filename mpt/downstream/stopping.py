"""When a run ends before its last step. Both rules are off in the paper's recipe.

A *family* is the learning rates of one (task, data seed, starting prompt), in their order; of
these the one with the best dev score is taken in the end, and ties keep the earlier rate. Scores
are only ever compared at equal step counts, so a decision depends neither on the packing nor on
the clock.

patience
    No evaluation was better than the best one for so many evaluations in a row.
catch_up
    The best dev score is too far below that of another rate of the family. This can change which
    rate is taken: it is a bet. (A rate that has diverged is compared with no longer.)
maximum
    Part of catch_up, where the best prompt is selected. A run whose dev score is the highest there
    is ends: nothing can replace its selected prompt. So do all later rates of its family: a tie
    would keep the earlier one. Neither changes what is taken from the family, unless a run would
    have diverged after its maximum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.downstream.record import Curve, Record

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig

HIGHEST = 1.0
"""The maximum of every metric of the gym."""


def stop_reasons(
    family: Sequence[Record], running: Sequence[bool], config: DownstreamConfig
) -> list[str | None]:
    """Return for every run of a family the rule and step by which it ends now, or None.

    Args:
        family: records in the order of the learning rates; those running have been evaluated.
        running: which of them have steps to go. The others are never stopped, but compared with.
        config: the rules.
    """
    reasons: list[str | None] = []
    for position, (record, going) in enumerate(zip(family, running, strict=True)):
        reason = _reason(position, family, config) if going else None
        reasons.append(reason and f"{reason} at step {record.curve[-1][0]}")
    return reasons


def out_of_patience(curve: Curve, patience: int | None) -> bool:
    """Return whether the last `patience` evaluations were no better than the best before them."""
    if patience is None or len(curve) <= patience:
        return False
    last = curve[-1][0]
    return not best_until(curve, last) > best_until(curve[:-patience], last)


def best_until(curve: Curve, step: int) -> float:
    """Return the best dev score up to and with a step, −∞ if there is none."""
    scores = [dev for at, dev, _ in curve if at <= step and not math.isnan(dev)]
    return max(scores, default=-math.inf)


def _reason(position: int, family: Sequence[Record], config: DownstreamConfig) -> str | None:
    curve = family[position].curve
    step = curve[-1][0]
    best = [-math.inf if r.diverged else best_until(r.curve, step) for r in family]
    if config.catch_up is not None and config.select == "best":
        if best[position] >= HIGHEST:
            return "maximum"
        if max(best[:position], default=-math.inf) >= HIGHEST:
            return "maximum of an earlier rate"
    if out_of_patience(curve, config.patience):
        return "patience"
    if config.catch_up is None or len(curve) < config.catch_up_after:
        return None
    behind = max(best) - best[position]
    return "catch_up" if best[position] > -math.inf and behind > config.catch_up else None
