"""What a contest is, read from ``search_spaces/beat_mtl.toml``; the form is explained there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mpt.config import TUNED_FROM, UpstreamConfig
from mpt.errors import DataError, UsageError
from mpt.rules import at_least, check
from mpt.study.options import StudyOptions
from mpt.study.spaces import SPACES
from mpt.study.specs import UpstreamSpec
from mpt.toml_file import only_keys, read_toml, table_of, whole_of
from mpt.words import counted

FILE = "beat_mtl.toml"
REFERENCE = "multitask"
"""The method whose best contestant all others are compared with."""
_NUMBERS = ("search_seeds", "upstream_seeds", "tuning_steps")
_NAMES = ("partitions", "backbones")
_KEYS = ("title", "source", "row_passes", *_NUMBERS, *_NAMES, "contestant")


@dataclass(frozen=True, kw_only=True)
class Started:
    """Which prompt the targets of a contestant are tuned from."""

    start: str
    """One of `TUNED_FROM` (`DownstreamConfig.start`)."""
    race_steps: int | None = None
    """Steps of a race of starts (`DownstreamConfig.race_steps`). None: a third of the tuning."""

    def __post_init__(self) -> None:
        steps = self.race_steps
        if steps is None:
            return
        check(self, race_steps=at_least(1))
        if self.start != "raced":
            raise UsageError(
                f'race_steps is {steps}, but must be left out where start is "{self.start}", '
                'which runs no race; take it out, or write start = "raced"'
            )

    @property
    def options(self) -> StudyOptions:
        """What it changes of a study."""
        return StudyOptions(tuning_start=self.start, race_steps=self.race_steps)

    @property
    def told(self) -> str:
        """The start for people; empty where it is the learned prompt."""
        if self.start == "learned":
            return ""
        steps = "" if self.race_steps is None else f" for {counted(self.race_steps, 'step')}"
        return f"start {self.start} by the target{steps}"


@dataclass(frozen=True, kw_only=True)
class Contestant(Started):
    """A method with the points that are tried of it."""

    name: str
    points: tuple[UpstreamSpec, ...]
    """Each with its steps as the one rung."""

    @property
    def method(self) -> str:
        """The upstream method."""
        return self.points[0].config.method


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Who competes, at which budget, and where it is confirmed."""

    name: str
    title: str
    row_passes: float
    """Matched upstream budget of every point (`mpt.study.contest.passes`)."""
    search_seeds: tuple[int, ...]
    """Upstream seeds that settings are chosen on."""
    upstream_seeds: tuple[int, ...]
    """Upstream seeds of the confirmation."""
    partitions: tuple[str, ...]
    """Those of the confirmation; none: all of the gym's."""
    tuning_steps: tuple[int, ...]
    """Downstream budgets of the confirmation."""
    backbones: tuple[str, ...]
    """Those of the confirmation; settings are chosen on the first."""
    contestants: tuple[Contestant, ...]

    def __post_init__(self) -> None:
        counts = {one.name: len(one.points) for one in self.contestants}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise UsageError(
                f"points of the contestants are {listed}, but must be as many for each; add or "
                "take away values of their axes"
            )
        if not any(one.method == REFERENCE for one in self.contestants) or len(counts) < 2:
            raise UsageError(
                f"contestants are {', '.join(counts) or 'none'}, but must be two or more, "
                f"{REFERENCE} among them: it is what all others are compared with"
            )
        both = [seed for seed in self.upstream_seeds if seed in self.search_seeds]
        if both:
            raise UsageError(
                f"upstream seed {both[0]} is one that settings are chosen on, but those of the "
                "confirmation must be others; take it out of --upstream-seeds"
            )
        for steps in self.tuning_steps:
            self.check_races(steps, "take another number, or leave this budget out of --budgets")

    @property
    def searched(self) -> bool:
        """Whether there are points to choose from: more than one a contestant."""
        return len(self.contestants[0].points) > 1

    def check_races(self, tuning_steps: int, cure: str) -> None:
        """Refuse races that are no shorter than the tuning that they are run for.

        Raises:
            UsageError: a contestant has such a race.
        """
        for one in self.contestants:
            steps = one.race_steps
            if steps is not None and 0 < tuning_steps <= steps:  # 0 breaks a rule of its own
                raise UsageError(
                    f"race_steps of contestant {one.name} is {steps}, but must be smaller than "
                    f"the {counted(tuning_steps, 'step')} of tuning; {cure}"
                )

    def with_only(self, names: Sequence[str]) -> tuple[Contestant, ...]:
        """Return some of the contestants.

        Raises:
            UsageError: a name is unknown.
        """
        known = {one.name: one for one in self.contestants}
        for name in names:
            if name not in known:
                raise UsageError(f"contestant {name!r} is unknown; known are {', '.join(known)}")
        return tuple(known[name] for name in names)


def load_contest(name: str, folder: Path = SPACES) -> Contest:
    """Read a contest.

    Raises:
        UsageError: there is no such contest, or a value in it is not allowed.
        DataError: the file is not TOML, or holds an unknown key or lacks one.
    """
    path = folder / FILE
    tables = read_toml(path)
    if name not in tables:
        raise UsageError(f"contest {name!r} is unknown; {FILE} holds {', '.join(tables)}")
    table = table_of(tables[name], path, name)
    only_keys(table, _KEYS, path, name, _KEYS)
    rows = table_of(table["contestant"], path, f"{name}.contestant")
    try:
        return Contest(
            name=name,
            title=str(table["title"]),
            row_passes=float(table["row_passes"]),
            **{key: tuple(table[key]) for key in (*_NUMBERS, *_NAMES)},
            contestants=tuple(_contestant(one, rows, path, name) for one in rows),
        )
    except UsageError as error:
        raise UsageError(f"{path}: [{name}] {error}") from None


def _contestant(name: str, rows: Mapping[str, Any], path: Path, contest: str) -> Contestant:
    where = f"{contest}.contestant.{name}"
    row = table_of(rows[name], path, where)
    only_keys(row, ("method", "like", "start", "race_steps", "fixed", "axes"), path, where)
    race_steps = row.get("race_steps")
    start = row.get("start", TUNED_FROM[0])
    if start not in TUNED_FROM:
        raise DataError(
            f"{path}: [{where}] start is {start!r}, but must be one of {', '.join(TUNED_FROM)}"
        )
    if "like" in row:
        if row["like"] not in rows or "like" in rows[row["like"]]:
            raise DataError(
                f"{path}: [{where}] like is {row['like']!r}, but must name a contestant of this "
                "contest that has axes of its own"
            )
        row = rows[row["like"]]
        if start == "raced" and race_steps is None:
            race_steps = row.get("race_steps")
    method, axes = row.get("method"), row.get("axes")
    if not isinstance(axes, list) or not all(isinstance(axis, list) and axis for axis in axes):
        raise DataError(f"{path}: [{where}] axes is {axes!r}, but must be lists of tables")
    choices = itertools.product(*axes)
    points = [_point(method, [row.get("fixed", {}), *one], path, where) for one in choices]
    try:
        return Contestant(name=name, start=start, race_steps=race_steps, points=tuple(points))
    except UsageError as error:
        raise DataError(f"{path}: [{where}] {error}") from None


def _point(method: Any, tables: Sequence[Any], path: Path, where: str) -> UpstreamSpec:
    settings: dict[str, Any] = {}
    for one in tables:
        settings |= table_of(one, path, where)
    steps = whole_of(settings, "steps", path, where)
    del settings["steps"]
    if settings.pop("decay", False):
        settings["decay_horizon"] = steps
    known = [one.name for one in fields(UpstreamConfig) if one.name not in _OWN]
    only_keys(settings, known, path, where)
    return UpstreamSpec(config=UpstreamConfig(method=method, **settings), rungs=(steps,))


_OWN = ("method", "seed", "extra")
"""Settings that a point does not say of itself."""
