"""The values of one searched setting, as a list or a range; for drawing, for Ray and for Optuna.

Both ends of a range belong to it. Ray's upper ends do not: `to_ray` adds what lies between, and
keeps the log scale of whole numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.config import DownstreamConfig, UpstreamConfig

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_WHOLE = {"steps", "epochs"} | {
    field.name
    for kind in (UpstreamConfig, DownstreamConfig)
    for field in dataclasses.fields(kind)
    if field.type in ("int", "int | None")
}


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The values of one searched setting: a list, or a range to draw from."""

    name: str
    """Field of `UpstreamConfig`, or "steps" or "epochs"; "lr" of prompt tuning."""
    values: tuple[float, ...] = ()
    """Grid values, in the order they are tried; empty for a range."""
    low: float | None = None
    """Lower end, included; None for a list."""
    high: float | None = None
    """Upper end, included."""
    scale: str = "linear"
    """"linear" or "log"."""

    def __str__(self) -> str:
        if self.values:
            return str(list(self.values))
        draw = "loguniform" if self.scale == "log" else "uniform"
        return f"{draw}({self.low!r}, {self.high!r})"

    @property
    def whole(self) -> bool:
        """Whether the setting is a whole number."""
        return self.name in _WHOLE

    def extremes(self) -> tuple[float, ...]:
        """Return every value that has to be allowed for all of the domain to be."""
        if self.values:
            return self.values
        assert self.low is not None
        assert self.high is not None
        return (self.low, self.high)

    def members(self) -> Sequence[float]:
        """Return every value; empty for a range of real numbers."""
        if self.values or not self.whole:
            return self.values
        low, high = self.extremes()
        return range(int(low), int(high) + 1)

    def at(self, share: float) -> float:
        """Return the value at a share in [0, 1) of the domain; whole numbers stay whole."""
        if self.values:
            return self.values[int(share * len(self.values))]
        low, high = self.extremes()
        if self.whole:
            # every whole number has the same width: [low, high + 1) is cut down
            return min(int(high), math.floor(_between(low, high + 1, share, self.scale)))
        return _between(low, high, share, self.scale)

    def holds(self, value: float) -> bool:
        """Return whether a value is in the domain."""
        if self.values:
            return value in self.values
        low, high = self.extremes()
        return low <= value <= high and not (self.whole and value != int(value))


def _between(low: float, high: float, share: float, scale: str) -> float:
    if scale == "log":
        return min(high, low * (high / low) ** share)
    return min(high, low + (high - low) * share)


def to_ray(domain: Domain) -> Any:
    """Return the domain as one of Ray Tune's (`ray.tune.choice`, `uniform`, `randint`, …).

    The upper end of a range of real numbers is a value that Ray never draws, as with any
    continuous range; it counts as inside (`is_valid`).
    """
    from ray import tune

    if domain.values:
        return tune.choice(list(domain.values))
    low, high = domain.extremes()
    if domain.whole:
        draw = tune.lograndint if domain.scale == "log" else tune.randint
        return draw(int(low), int(high) + 1)
    return (tune.loguniform if domain.scale == "log" else tune.uniform)(low, high)


def to_optuna(domain: Domain) -> BaseDistribution:
    """Return the domain as one of Optuna's distributions, which include both ends."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if domain.values:
        return CategoricalDistribution(domain.values)
    low, high = domain.extremes()
    log = domain.scale == "log"
    if domain.whole:
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)
