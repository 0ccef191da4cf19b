"""Which tasks are compared, and how, as data: ``search_spaces/similarity.toml``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpt.errors import DataError, UsageError
from mpt.replay.similarity.measure import SimilarityConfig
from mpt.study.spaces import SPACES
from mpt.toml_file import names_of, only_keys, read_toml, table_of, whole_of

FILE = "similarity.toml"
GYMS = ("published", "embedded")
_MEASURE = tuple(field.name for field in dataclasses.fields(SimilarityConfig))


@dataclass(frozen=True, kw_only=True)
class PilotSize:
    """What Table 8 compares on a gym."""

    partition: str
    """Whose source tasks are the candidates."""
    targets: tuple[str, ...]
    """Tasks that are scored."""
    candidates: int
    """Source tasks to choose from; a partition with more is cut down by a draw."""
    count: int
    """Source tasks that are chosen: highest, random and lowest."""

    def __post_init__(self) -> None:
        if not self.targets:
            raise UsageError("targets are none, but must be one task or more; name some")
        if self.candidates < 2 * self.count:
            raise UsageError(
                f"candidates is {self.candidates}, but must be ≥ {2 * self.count}: the highest "
                f"and the lowest {self.count} must not overlap"
            )


@dataclass(frozen=True, kw_only=True)
class PairFamilies:
    """Which pairs Table 7 compares: the families of their two tasks."""

    similar: tuple[str, str]
    """Families of the pairs that are expected to be alike."""
    dissimilar: tuple[str, str]
    """Families of those that are not."""
    count: int
    """Pairs of either kind."""
    nearest: Mapping[str, str]
    """Family → the one that stands for it in a gym without it."""


@dataclass(frozen=True, kw_only=True)
class SimilaritySettings:
    """The file, as far as a gym and a size are concerned."""

    measure: SimilarityConfig
    """What a similarity is computed from."""
    seed: int
    """Root of all draws."""
    pilot: PilotSize
    """Table 8."""
    pairs: PairFamilies
    """Table 7."""
    path: Path
    """The file, for errors."""


def load_similarity_settings(
    gym: str, *, smoke: bool = False, folder: Path = SPACES
) -> SimilaritySettings:
    """Read what is compared on a gym.

    Args:
        gym: "embedded" or a folder; any folder has the tasks of the published gym.
        smoke: lay the smoke size over it.
        folder: where ``similarity.toml`` lies.

    Raises:
        DataError: the file is not TOML, lacks a table, or holds an unknown key.
        UsageError: there is no such file, or a value in it is not allowed.
    """
    path = folder / FILE
    tables = read_toml(path)
    only_keys(tables, ("measure", *GYMS, "pairs", "smoke"), path, "")
    measure = dict(_table(tables, path, "measure", (*_MEASURE, "seed")))
    small = _table(tables, path, "smoke", ("targets", "candidates", "count", "samples"))
    seed = whole_of(measure, "seed", path, "measure", 0)
    del measure["seed"]
    for key in small:
        whole_of(small, key, path, "smoke")
    name = "embedded" if gym == "embedded" else "published"
    rows = table_of(tables.get(name), path, name)
    only_keys(rows, ("pilot",), path, name)
    try:
        pilot = _pilot(rows, path, f"{name}.pilot")
        if smoke:
            measure["samples"] = small["samples"]
            pilot = dataclasses.replace(
                pilot,
                targets=pilot.targets[: small["targets"]],
                candidates=small["candidates"],
                count=small["count"],
            )
        config = SimilarityConfig(**measure)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return SimilaritySettings(
        measure=config,
        seed=seed,
        pilot=pilot,
        pairs=_families(tables, path),
        path=path,
    )


def _table(
    tables: Mapping[str, Any], path: Path, where: str, keys: tuple[str, ...]
) -> Mapping[str, Any]:
    """Return a table that has all of these keys and no others, without its source."""
    row = table_of(tables.get(where.rpartition(".")[2]), path, where)
    only_keys(row, ("source", *keys), path, where, keys)
    return {key: row[key] for key in keys}


def _pilot(rows: Mapping[str, Any], path: Path, where: str) -> PilotSize:
    keys = tuple(field.name for field in dataclasses.fields(PilotSize))
    row = dict(_table(rows, path, where, keys))
    for key in ("candidates", "count"):
        whole_of(row, key, path, where)
    if not isinstance(row["partition"], str):
        raise DataError(f"{path}: [{where}] partition is {row['partition']!r}, but must be a name")
    row["targets"] = names_of(row["targets"], path, f"[{where}] targets")
    return PilotSize(**row)


def _families(tables: Mapping[str, Any], path: Path) -> PairFamilies:
    row = _table(tables, path, "pairs", ("similar", "dissimilar", "count", "nearest"))
    nearest = table_of(row["nearest"], path, "pairs.nearest")
    if not all(isinstance(name, str) for name in nearest.values()):
        raise DataError(f"{path}: [pairs.nearest] is {dict(nearest)!r}, but must name families")
    return PairFamilies(
        similar=_two(row["similar"], path, "similar"),
        dissimilar=_two(row["dissimilar"], path, "dissimilar"),
        count=whole_of(row, "count", path, "pairs"),
        nearest=dict(nearest),
    )


def _two(value: Any, path: Path, key: str) -> tuple[str, str]:
    words = value if isinstance(value, list) else []
    if len(words) != 2 or not all(isinstance(word, str) for word in words):
        raise DataError(f"{path}: [pairs] {key} is {value!r}, but must be two families")
    return words[0], words[1]
