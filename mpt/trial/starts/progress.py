"""How far the targets of a point are with taking their starts."""

from __future__ import annotations

from dataclasses import dataclass

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
