"""What figures are made of: plain values, apart from where they come from.

A value that is missing is None and says why; a figure shows it as missing, never as 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval, or the reason why there is none."""

    value: float | None
    low: float | None = None
    """Lower end of the 95 % interval; None without one."""
    high: float | None = None
    note: str = ""
    """Why the value is missing, or what must be known beside it ("18 of 20 tasks")."""

    def __post_init__(self) -> None:
        ends = [end for end in (self.low, self.high) if end is not None]
        numbers = ends if self.value is None else [self.value, *ends]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"estimate is {numbers}, but must be finite; missing is None")
        if self.value is None and (ends or not self.note):
            raise ValueError("an estimate without a value must have a note and no interval")
        if len(ends) == 1 or (ends and ends[0] > ends[1]):
            raise ValueError(
                f"interval is {self.low} to {self.high}, but needs both ends in order"
            )

    @classmethod
    def of(
        cls, value: float | None, interval: tuple[float, float] | None, note: str = ""
    ) -> Estimate:
        """Return a number with its interval, if it has one."""
        low, high = interval or (None, None)
        return cls(value=value, low=low, high=high, note=note)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends; None without an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def missing(why: str) -> Estimate:
    """Return the estimate of what is not there."""
    return Estimate(value=None, note=why)


@dataclass(frozen=True, kw_only=True)
class TaskChart:
    """One number for each task and method (Figures 4–13 and 14–23)."""

    title: str
    axis: str
    """Name and unit of the numbers."""
    tasks: tuple[str, ...]
    """From top to bottom."""
    series: Mapping[str, tuple[Estimate, ...]]
    """Method → an estimate for each task."""
    summary: Mapping[str, Estimate] = field(default_factory=dict)
    """Method → the number over all tasks; drawn on top where it is given."""
    summary_label: str = "mean"
    zero: bool = False
    """Whether 0 is a mark to be compared with."""
    points: Mapping[str, str] = field(default_factory=dict)
    """Method → key of the point that its numbers are of."""

    @property
    def rows(self) -> list[str]:
        """From top to bottom: what stands over all tasks, if it is given, and the tasks."""
        return [*([self.summary_label] if self.summary else []), *self.tasks]

    def row_values(self, method: str) -> list[Estimate]:
        """Return the numbers of a method, one a row."""
        return [*([self.summary[method]] if self.summary else []), *self.series[method]]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A number against an ordered setting, for each method (Figure 3, Tables 3 and 4)."""

    title: str
    setting: str
    """Name of the x axis."""
    axis: str
    """Name and unit of the y axis."""
    values: tuple[str, ...]
    """The setting's values as they are written, in order; they are spaced evenly."""
    series: Mapping[str, tuple[Estimate, ...]]
    """Method → an estimate for each value."""
    published: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Method → the numbers that the paper prints."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """A curve over downstream steps: mean and spread over data seeds."""

    steps: tuple[int, ...]
    """Ascending."""
    mean: tuple[float | None, ...]
    """None where a seed has no value (its run diverged or had ended)."""
    low: tuple[float | None, ...]
    """Lowest seed."""
    high: tuple[float | None, ...]
    """Highest seed."""


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    """The learning curves of all methods on one task, or on the mean over tasks."""

    title: str
    bands: Mapping[str, Band]
    """Method → curve."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class StepsTo:
    """How many downstream steps it takes to come to a share of PT's final dev score."""

    title: str
    shares: tuple[float, ...]
    """Shares of the final score, ascending, in (0, 1]."""
    series: Mapping[str, tuple[Estimate, ...]]
    """Method → median steps for each share; missing where half of the runs never came there."""


@dataclass(frozen=True, kw_only=True)
class SearchPoint:
    """One point of a search."""

    settings: Mapping[str, float]
    """Searched setting → value; the same settings for all points."""
    score: Estimate
    """ARG in % with its interval; missing if the point has none (diverged, incomplete)."""
    trajectory: str
    """Which trajectory it lies on: points of one trajectory differ in ``steps`` only."""
    key: str = ""
    """Key of the point; empty where it is of none."""

    @property
    def steps(self) -> int:
        """The rung."""
        return int(self.settings["steps"])


@dataclass(frozen=True, kw_only=True)
class Search:
    """All points of one search (one method, backbone, gym and partition)."""

    title: str
    points: tuple[SearchPoint, ...]
    leader: str = ""
    """Key of the point that the search has chosen; empty: the one with the highest score."""

    @property
    def varied(self) -> tuple[str, ...]:
        """Settings with more than one value, in the order of the points' settings."""
        return tuple(
            name
            for name in self.points[0].settings
            if len({point.settings[name] for point in self.points}) > 1
        )

    @property
    def scored(self) -> tuple[SearchPoint, ...]:
        """Points that have a score, best first; equal ones keep their order."""
        points = [point for point in self.points if point.score.value is not None]
        return tuple(sorted(points, key=lambda point: -float(point.score.value or 0.0)))

    @property
    def best(self) -> SearchPoint | None:
        """The point that was chosen; None where none has a score."""
        scored = self.scored
        own = (point for point in scored if self.leader and point.key == self.leader)
        return next(own, scored[0] if scored else None)

    @property
    def without(self) -> tuple[SearchPoint, ...]:
        """Points without a score."""
        return tuple(point for point in self.points if point.score.value is None)


def write(value: float) -> str:
    """Return a setting's value as people write it, to three digits: 10000, 0.03, 3e-5."""
    text = f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def name_of(setting: str) -> str:
    """Return a setting's name in words."""
    return setting.replace("_", " ")


def point_label(point: SearchPoint, varied: tuple[str, ...]) -> str:
    """Return a point's values of the varied settings, in one line."""
    return " · ".join(write(point.settings[name]) for name in varied)
