"""Which start a target is tuned from, where the target itself takes one of several.

At hand are the learned prompt, the members of a soup, and the start of plain prompt tuning, in
this order. Every (task, data seed, downstream start) takes one of them by its own train and dev
rows, those that the recipe reads; test rows are not read. `DownstreamConfig.start` says how:

chosen
    The lowest loss on these rows, before any tuning (`losses.py`).
raced
    The best dev score after the first steps of tuning, all starts side by side (`race.py`).

A study with several downstream starts has as many starts of plain prompt tuning; a target chooses
once with each of them at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

LEARNED, VOCABULARY = "learned", "vocabulary"
"""Names of the learned prompt and of the start of plain prompt tuning."""
_DOING = {"chosen": "choosing starts", "raced": "racing starts"}


@dataclass(frozen=True, kw_only=True)
class Choosing:
    """Where a choice of starts stands."""

    how: str
    """"chosen" or "raced" (`DownstreamConfig.start`)."""
    made: int
    """Targets that have taken theirs."""
    of: int
    """All targets; in a race each counts once a downstream start."""


def choosing_text(how: str, made: int, of: int) -> str:
    """Return where a choice stands, as in "racing starts 12 of 45"."""
    return f"{_DOING.get(how, how)} {made} of {of}"
