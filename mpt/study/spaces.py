"""Search spaces as data: ``search_spaces/<method>.toml`` → trajectories to run.

Settings that make a trajectory (learning rates and the like) are searched; `steps` are rungs of a
trajectory, because the learning rate is constant and n steps are the beginning of any longer run.
So 3 × 3 trajectories with 3 rungs are 27 points. With ``decay = true`` beside the steps the outer
rate falls linearly to 0 at each of them: then no run is the beginning of another, and the same 27
points are 27 trajectories, whose horizon is searched like any setting. Multitask learning may
count `epochs` over the source tasks' rows instead; how many steps they are depends on the study
and on the batch size.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpt
from mpt.config import (
    CONTROL,
    METHODS,
    OWN_METHODS,
    DownstreamConfig,
    UpstreamConfig,
    known_methods,
)
from mpt.errors import DataError, UsageError
from mpt.keys import changed
from mpt.rules import is_number
from mpt.seeds import numpy_generator
from mpt.study.domains import Domain
from mpt.study.recipes import RECIPES, paper, recipe, upstream_steps
from mpt.study.specs import UpstreamSpec
from mpt.toml_file import only_keys, read_toml, table_of

_PACKAGE = Path(mpt.__file__).resolve().parent
SPACES = next(
    (
        folder
        for folder in (_PACKAGE.parent / "search_spaces", _PACKAGE / "search_spaces")
        if (folder / "studies.toml").is_file()
    ),
    _PACKAGE / "search_spaces",
)
"""Where the shipped spaces lie: beside the package in a checkout, inside it when installed."""

MOST_SAMPLES = 1_000_000
"""More trials than these nobody runs; a larger number is a slip."""

LIKE = "fomaml"
"""Whose spaces serve a registered method that has no file of its own."""

HORIZON = "decay_horizon"
"""The step at which the outer rate is 0; with ``decay = true`` that of every value of `steps`."""

PROMPT_TUNING = "prompt_tuning"
"""Plain prompt tuning: its space holds settings of `DownstreamConfig`, and `lr` for one of `lrs`;
it has no trajectories."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """One table of a space file."""

    name: str
    method: str
    title: str
    source: str
    domains: tuple[Domain, ...]
    """Searched settings other than steps."""
    rungs: tuple[int, ...]
    """The values of `steps`, ascending; empty where epochs are counted."""
    epochs: tuple[int, ...] = ()
    """The values of `epochs`, ascending; empty where steps are counted."""
    rows: int | None = None
    """Train and dev rows of the source tasks, which an epoch runs over; None: not known yet."""
    fixed: Mapping[str, Any]
    """Settings that are not searched but differ from the defaults."""
    first: Mapping[str, Any]
    """The point that is tried first; empty: the grid's own order."""
    decay: bool = False
    """Whether the outer rate falls to 0 at each of `rungs`, each in a trajectory of its own; then
    `decay_horizon` is one of `domains`, with these values."""

    def __repr__(self) -> str:
        shown = (f"{name}={text}" for name, text in self._shown().items())
        return f"Space({', '.join((repr(self.method), *shown))})"

    def _repr_html_(self) -> str:
        import pandas as pd

        from mpt.store.frames import html_of

        rows = [("method", self.method), *self._shown().items()]
        return html_of(pd.DataFrame(rows, columns=["setting", "values"]))

    def _shown(self) -> dict[str, str]:
        """Return settings → values, as `mpt.Space` takes them."""
        horizon = HORIZON if self.decay else ""
        searched = {d.name: str(d) for d in self.domains if d.name != horizon}
        rest: dict[str, Any] = dict(self.fixed)
        rest |= {"steps": list(self.rungs)} if self.rungs else {}
        rest |= {"epochs": list(self.epochs)} if self.epochs else {}
        rest |= {"decay": True} if self.decay else {}
        rest |= {"first": dict(self.first)} if self.first else {}
        return searched | {name: repr(value) for name, value in rest.items()}

    def decaying(self) -> Space:
        """Return the space with an outer rate that falls to 0 at each of its steps."""
        domains = (*self.domains, Domain(name=HORIZON, values=self.rungs))
        return dataclasses.replace(self, domains=domains, decay=True).at_steps(self.rungs)

    def at_steps(self, rungs: tuple[int, ...]) -> Space:
        """Return the space with other steps; where the outer rate decays, to 0 at each of them."""
        space = dataclasses.replace(self, rungs=rungs, epochs=())
        if not self.decay:
            return space
        horizon = Domain(name=HORIZON, values=rungs)
        domains = (horizon if domain.name == HORIZON else domain for domain in self.domains)
        first = {**self.first, HORIZON: rungs[0]} if self.first else {}
        return dataclasses.replace(space, domains=tuple(domains), first=first)

    def on_rows(self, rows: int) -> Space:
        """Return the space for source tasks with this many train and dev rows."""
        return dataclasses.replace(self, rows=rows)

    def grid(self) -> list[UpstreamSpec]:
        """Return all trajectories of the grid, the first point's first.

        Raises:
            UsageError: the space holds a range, of which no grid can be made.
        """
        return [self.trajectory(point) for point in self.points()]

    def points(self) -> list[dict[str, Any]]:
        """Return the searched settings of every grid trajectory, the first point's first.

        Raises:
            UsageError: as for `grid`.
        """
        ranges = [domain.name for domain in self.domains if not domain.values]
        if ranges:
            raise UsageError(
                f"space {self.name!r} holds a range for {', '.join(ranges)}, of which no grid can "
                "be made; use --searcher random or optuna with --num-samples N"
            )
        points = list(self.every_point())
        points.sort(key=lambda point: point != dict(self.first))  # stable: only `first` moves
        return points

    @property
    def size(self) -> int | None:
        """How many different trajectories there are; None if a range of real numbers is one."""
        members = [domain.members() for domain in self.domains]
        return math.prod(map(len, members)) if all(members) else None

    def every_point(self) -> Iterator[dict[str, Any]]:
        """Yield the searched settings of every trajectory; nothing where they are countless."""
        for row in itertools.product(*(domain.members() for domain in self.domains)):
            yield dict(zip(self._names(), row, strict=True))

    def check_count(self, count: int) -> None:
        """Refuse to draw more different trajectories than there are.

        Raises:
            UsageError: the space holds fewer.
        """
        if count > MOST_SAMPLES:
            raise UsageError(f"--num-samples is {count}, but must be ≤ {MOST_SAMPLES}")
        if self.size is not None and count > self.size:
            raise UsageError(
                f"--num-samples is {count}, but space {self.name!r} holds {self.size} trajectories"
            )

    def sample(self, count: int, seed: int) -> list[UpstreamSpec]:
        """Return `count` distinct trajectories: the first point, then random draws.

        Draw i depends on (seed, i) alone, so a larger count extends a smaller one.

        Raises:
            UsageError: the space holds fewer than `count` different trajectories.
        """
        self.check_count(count)
        points: dict[tuple[float, ...], dict[str, Any]] = {}
        if self.first:
            points[tuple(self.first[domain.name] for domain in self.domains)] = dict(self.first)
        for index in itertools.count():
            if len(points) >= count:
                break
            rng = numpy_generator(seed, "random search", self.method, self.name, index)
            drawn = tuple(domain.at(float(rng.random())) for domain in self.domains)
            points.setdefault(drawn, dict(zip(self._names(), drawn, strict=True)))
        return [self.trajectory(point) for point in list(points.values())[:count]]

    def _names(self) -> list[str]:
        return [domain.name for domain in self.domains]

    def trajectory(self, point: Mapping[str, Any]) -> UpstreamSpec:
        """Return the trajectory with these searched settings.

        Raises:
            UsageError: epochs are counted and the source tasks' rows are not known.
        """
        config = _config(self.method, {**self.fixed, **point})
        return UpstreamSpec(config=config, rungs=self._rungs(config))

    def _rungs(self, config: UpstreamConfig) -> tuple[int, ...]:
        if self.decay:
            assert config.decay_horizon is not None
            return (config.decay_horizon,)
        if not self.epochs:
            return self.rungs
        if self.rows is None:
            raise UsageError(f"space {self.name!r} counts epochs: it needs the source tasks' rows")
        recipe = dataclasses.replace(paper(), upstream={config.method: config})
        return tuple(
            upstream_steps(
                dataclasses.replace(recipe, multitask_epochs=epochs), config.method, 0, self.rows
            )
            for epochs in self.epochs
        )

    def settings(self, trajectory: UpstreamSpec) -> dict[str, Any]:
        """Return the searched settings of a trajectory; the inverse of `trajectory`."""
        return {name: getattr(trajectory.config, name) for name in self._names()}


def load_space(method: str, name: str, folder: Path = SPACES) -> Space:
    """Read one space of a method.

    Raises:
        UsageError: there is no such space (the known ones are listed), or a value is not allowed.
        DataError: the file is not TOML, holds an unknown key, or lacks one.
    """
    path = folder / f"{method}.toml"
    if method not in METHODS and method in known_methods() and not path.is_file():
        path = folder / f"{LIKE}.toml"
    tables = read_toml(path)
    if name not in tables:
        raise UsageError(f"space {name!r} is unknown; {path.name} holds {', '.join(tables)}")
    return _space(method, name, table_of(tables[name], path, name), path)


def control_space(space: Space, default: str, folder: Path = SPACES) -> str:
    """Return the name of the control's space whose start is that of a space.

    Only then is the difference of the two what was learned.

    Args:
        space: what is searched.
        default: the one that is taken where it suits, and where none does.
        folder: where `untrained.toml` is.
    """
    names = [default, *read_toml(folder / f"{CONTROL}.toml")]
    start = space.fixed.get("start", "names")
    starts = {
        name: load_space(CONTROL, name, folder).fixed.get("start", "names")
        for name in dict.fromkeys(names)
    }
    return next((name for name, own in starts.items() if own == start), default)


def _space(method: str, name: str, table: Mapping[str, Any], path: Path) -> Space:
    needed = ("title", "source", "search")
    only_keys(table, (*needed, "recipe", "fixed", "first"), path, name, needed)
    lengths = ("steps", "epochs") if method == "multitask" else ("steps",)
    searchable = _searchable(method)
    search = dict(table_of(table["search"], path, f"{name}.search"))
    only_keys(search, (*searchable, *lengths), path, f"{name}.search")
    length = [key for key in lengths if key in search]
    if len(length) != 1:
        fault = "lacks 'steps'" if not length else "must hold either steps or epochs"
        raise DataError(f"{path}: [{name}.search] {fault}")
    fixed = table_of(table.get("fixed", {}), path, f"{name}.fixed")
    only_keys(fixed, tuple(key for key in searchable if key not in search), path, f"{name}.fixed")
    row = dict(table_of(search.pop(length[0]), path, f"{name}.search.{length[0]}"))
    decay = _decays(row.pop("decay", False), length[0], (*search, *fixed), path, name)
    rungs = _ascending(_domain(length[0], row, path, name), path, name)
    space = Space(
        name=name,
        method=method,
        title=str(table["title"]),
        source=str(table["source"]),
        domains=tuple(_domain(key, row, path, name) for key, row in search.items()),
        rungs=rungs if length == ["steps"] else (),
        epochs=rungs if length == ["epochs"] else (),
        fixed={**_of_recipe(table.get("recipe"), method, search, path, name), **fixed},
        first=table_of(table.get("first", {}), path, f"{name}.first"),
    )
    space = space.decaying() if decay else space
    check_space(space, str(path))
    return space


def _decays(decay: Any, length: str, others: Collection[str], path: Path, space: str) -> bool:
    """Return whether the steps of a space are horizons, too."""
    where = f"{path}: [{space}.search.{length}] decay"
    if not isinstance(decay, bool):
        raise DataError(f"{where} is {decay!r}, but must be true or false")
    if decay and length != "steps":
        raise DataError(f"{where} is true, but needs steps: epochs have no horizon")
    if decay and HORIZON in others:
        raise DataError(f"{where} is true, and {HORIZON} is given too; leave one of them out")
    return decay


def _of_recipe(
    name: Any, method: str, searched: Collection[str], path: Path, space: str
) -> dict[str, Any]:
    """Return what a recipe sets besides the defaults, as far as a space does not search it."""
    if name is None:
        return {}
    if name not in RECIPES:
        raise DataError(
            f"{path}: [{space}] recipe is {name!r}, but must be one of {', '.join(RECIPES)}"
        )
    settings = recipe(name)
    if method == PROMPT_TUNING:
        differing = changed(settings.downstream)
    else:
        differing = changed(settings.upstream.get(method, settings.upstream[LIKE]))
    left_out = {*searched, "method", "lrs", "steps"}
    return {key: value for key, value in differing.items() if key not in left_out}


def _searchable(method: str) -> tuple[str, ...]:
    kind: type = DownstreamConfig if method == PROMPT_TUNING else UpstreamConfig
    names = [field.name for field in dataclasses.fields(kind)]
    own = ("lr",) if method == PROMPT_TUNING else ()
    return (*own, *(name for name in names if name not in ("method", "lrs", "steps")))


def _domain(name: str, row: Any, path: Path, space: str) -> Domain:
    where = f"{space}.search.{name}"
    row = table_of(row, path, where)
    only_keys(row, ("values", "low", "high", "scale", "source", "why"), path, where)
    if ("values" in row) == ("low" in row or "high" in row):
        raise DataError(f"{path}: [{where}] must hold either values or low and high")
    if "values" in row:
        values = row["values"]
        numbers = isinstance(values, list) and values and all(map(is_number, values))
        if not numbers or len(set(values)) < len(values):
            raise DataError(
                f"{path}: [{where}] values is {values!r}, but must be a list of different numbers"
            )
        return Domain(name=name, values=tuple(values))
    low, high, scale = row.get("low"), row.get("high"), row.get("scale", "linear")
    if not (is_number(low) and is_number(high) and low < high):
        raise DataError(
            f"{path}: [{where}] low is {low!r}, high is {high!r}; must be numbers, low < high"
        )
    if scale not in ("linear", "log"):
        raise DataError(f'{path}: [{where}] scale is {scale!r}, but must be "linear" or "log"')
    if scale == "log" and low <= 0:
        raise DataError(f"{path}: [{where}] low is {low!r}, but must be > 0 on a log scale")
    return Domain(name=name, low=low, high=high, scale=scale)


def _ascending(domain: Domain, path: Path, space: str) -> tuple[int, ...]:
    values = domain.values
    fine = values and all(isinstance(value, int) and value >= 1 for value in values)
    if not fine or list(values) != sorted(values):
        raise DataError(
            f"{path}: [{space}.search.{domain.name}] must hold values, whole numbers ≥ 1, "
            "ascending (they are rungs of one trajectory)"
        )
    return tuple(int(value) for value in values)


def check_space(space: Space, where: str = "space") -> None:
    """Refuse a space with a value that the settings do not allow, naming place and key.

    Raises:
        UsageError: a value is not allowed.
        DataError: rungs do not ascend, or the first point is not in the space.
    """
    lengths = space.rungs or space.epochs
    if not lengths or any(b <= a for a, b in itertools.pairwise((0, *lengths))):
        raise DataError(
            f"{where}: steps are {list(lengths)}, but must be whole numbers ≥ 1, ascending (they "
            "are rungs of one trajectory)"
        )
    for key, value in space.fixed.items():
        _try(space.method, {key: value}, f"{where}: [{space.name}.fixed]")
    for domain in space.domains:
        for value in domain.extremes():
            _try(
                space.method, {domain.name: value}, f"{where}: [{space.name}.search.{domain.name}]"
            )
    if not space.first:
        return
    names = {domain.name for domain in space.domains}
    if set(space.first) != names:
        raise DataError(
            f"{where}: [{space.name}.first] must hold exactly {', '.join(sorted(names))}"
        )
    for domain in space.domains:
        value = space.first[domain.name]
        if not (is_number(value) and domain.holds(value)):
            raise DataError(
                f"{where}: [{space.name}.first] {domain.name} is {value!r}, which is not in "
                f"[{space.name}.search.{domain.name}]"
            )


def _config(method: str, settings: Mapping[str, Any]) -> UpstreamConfig:
    """Return settings of a method; registered ones may have settings of their own."""
    if method in (*METHODS, *OWN_METHODS):
        return UpstreamConfig(method=method, **settings)
    from mpt.upstream.registry import config_of  # torch takes seconds to import

    return config_of(method, settings)


def _try(method: str, settings: Mapping[str, Any], where: str) -> None:
    try:
        if method == PROMPT_TUNING:
            lrs = {"lrs": (settings["lr"],)} if "lr" in settings else settings
            DownstreamConfig(**lrs)
        else:
            _config(method, settings)
    except UsageError as error:
        raise UsageError(f"{where} {error}") from None
