"""Replay settings as data: ``search_spaces/replay.toml``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpt.config import (
    OWN_METHODS,
    SMOLLM2,
    DownstreamConfig,
    UpstreamConfig,
    known_methods,
)
from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import ALL_SHOTS
from mpt.rules import is_int
from mpt.store.records import ZERO_SHOT
from mpt.study.spaces import SPACES
from mpt.study.specs import FINE_TUNING, FineTuningConfig, UpstreamSpec
from mpt.toml_file import only_keys, read_toml, table_of, whole_of

SWEEPS = ("target_shots", "source_shots", "sources")
PRESETS = ("embedded", SMOLLM2)
"""Presets of `mpt.study.presets` that bring replay settings of their own."""


def replayable() -> tuple[str, ...]:
    """Return the methods that can be compared with plain prompt tuning: all that are known."""
    return (*known_methods(), FINE_TUNING, ZERO_SHOT)


def studied() -> tuple[str, ...]:
    """Return the methods that are searched where none is named: the paper's and the user's own."""
    return tuple(method for method in known_methods() if method not in OWN_METHODS)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Which cells a sweep runs by default."""

    partitions: tuple[str, ...]
    methods: tuple[str, ...]
    shots: tuple[int, ...] = ()
    """Sample sizes, `ALL_SHOTS` among them; none where the sources are varied."""


@dataclass(frozen=True, kw_only=True)
class SmokeCut:
    """How a smoke run cuts a replay down."""

    partitions: int
    """Partitions, from the first on."""
    target_tasks: int
    """Target tasks of each, from the first available on."""
    steps: int
    """Steps, upstream and of fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """The whole file."""

    sweeps: Mapping[str, Sweep]
    own: Mapping[str, UpstreamSpec]
    """Method → its settings on the backbones of a preset, with the steps as the one rung; a method
    without some is not replayed unless a search found them."""
    origins: Mapping[str, str]
    """Method → where these settings are from."""
    smoke: SmokeCut


def load_replay_settings(
    downstream: DownstreamConfig, folder: Path = SPACES, *, preset: str = "embedded"
) -> ReplaySettings:
    """Read the replay settings.

    Args:
        downstream: prompt tuning of the preset's study; fine-tuning has the rest from it.
        folder: where ``replay.toml`` lies.
        preset: one of `PRESETS`, whose settings are read.

    Raises:
        DataError: the file is not TOML, lacks a table, or holds an unknown key or name.
        UsageError: there is no such file, or a value in it is not allowed.
    """
    path = folder / "replay.toml"
    tables = read_toml(path)
    only_keys(tables, ("sweep", *PRESETS, "smoke"), path, "")
    sweeps = _table(tables, path, "sweep", SWEEPS)
    own = _table(tables, path, preset, (*known_methods(), FINE_TUNING))
    cut = ("partitions", "target_tasks", "steps")
    smoke = _table(tables, path, "smoke", (*cut, "source"))
    try:
        return ReplaySettings(
            sweeps={name: _sweep(sweeps.get(name), path, name) for name in SWEEPS},
            own={
                name: _method(row, path, f"{preset}.{name}", downstream)
                for name, row in own.items()
            },
            origins={name: str(row.get("source", path.name)) for name, row in own.items()},
            smoke=SmokeCut(**{key: whole_of(smoke, key, path, "smoke") for key in cut}),
        )
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _table(
    tables: Mapping[str, Any], path: Path, name: str, known: tuple[str, ...]
) -> Mapping[str, Any]:
    table = table_of(tables.get(name), path, name)
    only_keys(table, known, path, name)
    return table


def _sweep(row: Any, path: Path, name: str) -> Sweep:
    where = f"sweep.{name}"
    row = table_of(row, path, where)
    only_keys(row, ("source", "partitions", "methods", "values"), path, where)
    methods, values = row.get("methods"), row.get("values", [])
    known = replayable()
    if not methods or any(method not in known for method in methods):
        raise DataError(
            f"{path}: [{where}] methods is {methods!r}, but must be some of {', '.join(known)}"
        )
    if not all(value == "all" or (is_int(value) and value >= 1) for value in values):
        raise DataError(f'{path}: [{where}] values is {values!r}, but must be numbers or "all"')
    return Sweep(
        partitions=tuple(row.get("partitions", ())),
        methods=tuple(methods),
        shots=tuple(ALL_SHOTS if value == "all" else value for value in values),
    )


def _method(row: Any, path: Path, where: str, downstream: DownstreamConfig) -> UpstreamSpec:
    name = where.partition(".")[2]
    row = dict(table_of(row, path, where))
    row.pop("source", None)
    steps = whole_of(row, "steps", path, where)
    if name == FINE_TUNING:
        only_keys(row, [field.name for field in dataclasses.fields(downstream)], path, where)
        tuned = {**row, "lrs": tuple(row.get("lrs", downstream.lrs)), "catch_up": None}
        return UpstreamSpec(
            config=FineTuningConfig(downstream=dataclasses.replace(downstream, **tuned))
        )
    from mpt.upstream.registry import UPSTREAM_METHODS, config_of  # torch takes seconds to import

    fixed = ("method", "extra")
    fields = [one.name for one in dataclasses.fields(UpstreamConfig) if one.name not in fixed]
    own = [key for key, _ in UPSTREAM_METHODS[name].settings]
    only_keys(row, (*fields, *own, "steps"), path, where)
    del row["steps"]
    return UpstreamSpec(config=config_of(name, row), rungs=(steps,))
