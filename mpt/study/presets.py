"""What every point of a search shares, read from ``search_spaces/studies.toml``.

The learning rates, steps and batches of downstream tuning are the grid of the same name in
``prompt_tuning.toml``; a study may lay other values over them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpt.config import (
    EMBEDDED_BACKBONES,
    SMOLLM2,
    DownstreamConfig,
    PromptConfig,
    StudyConfig,
    TextConfig,
)
from mpt.errors import UsageError
from mpt.keys import tupled
from mpt.rules import at_least
from mpt.study.spaces import PROMPT_TUNING, SPACES, load_space
from mpt.study.specs import UpstreamSpec
from mpt.toml_file import check_values, only_keys, read_toml, table_of

_PARTS: Mapping[str, type] = {
    "prompt": PromptConfig,
    "text": TextConfig,
    "downstream": DownstreamConfig,
}
_OWN = (
    "data_seeds",
    "precision",
    "upstream_precision",
    "validation",
    "classification",
    "target",
    "target_seeds",
    "replicates",
    "fresh_replicates",
    "starts",
)
"""Keys of `StudyConfig` itself."""


@dataclass(frozen=True, kw_only=True)
class SmokeSize:
    """How a smoke run cuts a search down (table ``[smoke.search]``)."""

    trajectories: int
    """Trajectories, from the first on."""
    steps: tuple[int, ...]
    """Rungs instead of the space's."""
    source_tasks: int
    """Source tasks, from the first available on."""

    def cut(self, trajectories: list[UpstreamSpec]) -> list[UpstreamSpec]:
        """Return the first few trajectories with the smoke rungs."""
        few = trajectories[: self.trajectories]
        return [dataclasses.replace(trajectory, rungs=self.steps) for trajectory in few]


def default_space(backbone: str) -> str:
    """Return the space that suits a backbone: its embeddings' scale and its size decide."""
    if backbone in EMBEDDED_BACKBONES:
        return "embedded"
    return SMOLLM2 if backbone == SMOLLM2 else "paper"


def load_study(
    backbone: str,
    *,
    smoke: bool = False,
    precision: str | None = None,
    preset: str | None = None,
    folder: Path = SPACES,
) -> StudyConfig:
    """Return the study preset of a backbone; partition, gym and train seed are the defaults.

    Args:
        backbone: one of `EMBEDDED_BACKBONES`, a Hub id or a local path.
        smoke: lay the smoke size over it.
        precision: number format in place of the preset's two, upstream and downstream.
        preset: table of studies.toml; None: the one that suits the backbone.
        folder: where studies.toml and the grid of prompt tuning lie.

    Raises:
        DataError: studies.toml is not TOML, or holds an unknown key.
        UsageError: a value in it is not allowed, or there is no such preset.
    """
    path = folder / "studies.toml"
    tables = read_toml(path)
    name = default_space(backbone) if preset is None else preset
    if name == "smoke" or name not in tables:
        known = ", ".join(one for one in tables if one != "smoke")
        raise UsageError(f"preset {name!r} is unknown; known are {known}")
    settings = _settings(tables, name, path)
    grid = _tuning_grid(name, folder)
    settings["downstream"] = {**grid, **settings["downstream"]}
    if smoke:
        for part, values in _settings(tables, "smoke", path).items():
            settings[part] = {**settings[part], **values} if part in _PARTS else values
    if precision is not None:
        settings["precision"] = precision
        settings.pop("upstream_precision", None)
    try:
        parts = {part: kind(**settings.pop(part)) for part, kind in _PARTS.items()}
        return StudyConfig(backbone=backbone, **parts, **settings)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _tuning_grid(name: str, folder: Path) -> dict[str, Any]:
    """Return downstream settings from the grid of plain prompt tuning."""
    space = load_space(PROMPT_TUNING, name, folder)
    lrs = tuple(point["lr"] for point in space.points())
    return {**space.fixed, "lrs": lrs, "steps": space.rungs[-1]}


def load_smoke_size(folder: Path = SPACES) -> SmokeSize:
    """Return the size of a smoke run."""
    path = folder / "studies.toml"
    table = table_of(read_toml(path).get("smoke", {}), path, "smoke")
    row = table_of(table.get("search", {}), path, "smoke.search")
    known = tuple(field.name for field in dataclasses.fields(SmokeSize))
    only_keys(row, known, path, "smoke.search")
    whole = at_least(1)
    steps = ((lambda v: v and all(map(whole[0], v))), "a list of whole numbers ≥ 1")
    check_values(row, path, "smoke.search", {**dict.fromkeys(known, whole), "steps": steps})
    return SmokeSize(
        trajectories=row["trajectories"],
        steps=tuple(row["steps"]),
        source_tasks=row["source_tasks"],
    )


def _settings(tables: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = table_of(tables.get(name), path, name)
    extra = ("search",) if name == "smoke" else ()
    only_keys(table, ("source", *_OWN, *_PARTS, *extra), path, name)
    settings: dict[str, Any] = {}
    for part, kind in _PARTS.items():
        row = table_of(table.get(part, {}), path, f"{name}.{part}")
        only_keys(row, [field.name for field in dataclasses.fields(kind)], path, f"{name}.{part}")
        settings[part] = {key: tupled(value) for key, value in row.items()}
    return settings | {key: tupled(table[key]) for key in _OWN if key in table}
