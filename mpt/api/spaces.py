"""Search spaces in Python: lists of values, ranges, and fixed settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mpt.errors import UsageError

if TYPE_CHECKING:
    from mpt.study.spaces import Space


@dataclass(frozen=True)
class Range:
    """A range to draw from; both ends belong to it."""

    low: float
    high: float
    scale: str = "linear"


def uniform(low: float, high: float) -> Range:
    """Return a range whose values are equally likely."""
    return _range(low, high, "linear")


def loguniform(low: float, high: float) -> Range:
    """Return a range whose orders of magnitude are equally likely; `low` > 0."""
    return _range(low, high, "log")


def _range(low: float, high: float, scale: str) -> Range:
    if not low < high or (scale == "log" and low <= 0):
        rule = "0 < low < high" if scale == "log" else "low < high"
        raise UsageError(f"a range from {low!r} to {high!r} must have {rule}")
    return Range(low, high, scale)


def make_space(
    method: str,
    *,
    steps: int | Sequence[int],
    decay: bool = False,
    title: str = "",
    first: dict[str, float] | None = None,
    **settings: float | Sequence[float] | Range,
) -> Space:
    """Return the search space of a method.

    Args:
        method: name of a built-in or registered method.
        steps: upstream steps at which a trial is scored (rungs of one run).
        decay: let the outer rate fall linearly to 0 at each of `steps`, each in a run of its own.
        title: for headers and tables.
        first: settings that are tried first.
        **settings: a number (fixed), a list of values, or a range. What is not named has its
            default.

    Raises:
        UsageError: method or setting is unknown, or a value is not allowed.
    """
    from mpt.api.methods import method_named
    from mpt.config import UpstreamConfig
    from mpt.study.domains import Domain
    from mpt.study.spaces import Space, check_space

    own = [name for name, _ in method_named(method).settings]
    common = [one.name for one in fields(UpstreamConfig) if one.name not in ("method", "extra")]
    for name in settings:
        if name not in (*common, *own):
            raise UsageError(
                f"setting {name!r} of {method} is unknown; known are {', '.join((*common, *own))}"
            )
    domains: list[Domain] = []
    fixed: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Range):
            domains.append(Domain(name=name, low=value.low, high=value.high, scale=value.scale))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            domains.append(Domain(name=name, values=tuple(value)))
        else:
            fixed[name] = value
    if decay and "decay_horizon" in settings:
        raise UsageError("decay is True, and decay_horizon is given too; leave one of them out")
    space = Space(
        name="own",
        method=method,
        title=title or f"{method}, a space of one's own",
        source="",
        domains=tuple(domains),
        rungs=(steps,) if isinstance(steps, int) else tuple(steps),
        fixed=fixed,
        first=dict(first or {}),
    )
    space = space.decaying() if decay else space
    check_space(space)
    return space
