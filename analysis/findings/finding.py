"""A finding, and how its numbers are written."""

from __future__ import annotations

from dataclasses import dataclass

from mpt.words import counted

from ..tables.table import shown, shown_interval
from .paired import Paired


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer to one question, computed from the records."""

    question: str
    sentence: str
    """With numbers, intervals and what they were computed from."""
    tables: tuple[str, ...]
    """Names of the tables that hold the numbers, the first the most telling."""
    told: bool = True
    """Whether the records can tell; otherwise the sentence says that they cannot."""


def signed(one: Paired | None, unit: str = " %") -> str:
    """Return "+3.1 % [1.2, 5.0]"; without an interval it says so."""
    if one is None:
        return "no score in common"
    return with_interval(one.value, one.interval, unit)


def with_interval(value: float, interval: tuple[float, float] | None, unit: str = " %") -> str:
    """Return a signed number with its interval."""
    return f"{percent(value, unit)} {shown_interval(interval, 1) or '(no interval)'}"


def percent(value: float, unit: str = " %") -> str:
    """Return a signed number."""
    sign = "+" if shown(value, 1).strip("0.−") and value > 0 else ""
    return f"{sign}{shown(value, 1)}{unit}"


def extent(one: Paired, settings: int | None = None) -> str:
    """Return what a number was computed from: settings, tasks, data seeds, upstream seeds."""
    parts = [] if settings is None else [counted(settings, "setting")]
    parts += [
        counted(len(one.tasks), "task"),
        counted(one.data_seeds, "data seed"),
        counted(one.upstream_seeds, "upstream seed"),
    ]
    return ", ".join(parts)


def listed(parts: list[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
