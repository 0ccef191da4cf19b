"""Which tasks and partitions there are: the published catalogue, or the ``gym.toml`` of a gym.

A gym is a directory of few-shot files (`mpt.gym.fewshot`). Without a ``gym.toml`` in it, the 160
published tasks (``tasks.toml``) and the ten partitions of the paper (``partitions.toml``) hold.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mpt.errors import DataError, UsageError
from mpt.metrics.task_metrics import METRICS
from mpt.rules import is_int

FAMILIES = ("classification", "question_answering", "conditional_generation", "other")
ALL_SHOTS = 0
"""`TaskInfo.shots` of a sample that holds every row; "all" in file names and in ``gym.toml``."""

PARTITIONS = (
    "random_to_random",
    "cls_to_cls",
    "both_to_cls",
    "noncls_to_cls",
    "cls_to_noncls",
    "both_to_noncls",
    "noncls_to_noncls",
    "qa_to_qa",
    "nonqa_to_qa",
    "nonpara_to_para",
)
"""The ten partitions in the order of the paper's Table 1."""

_PARTS = ("train", "dev", "test")


@dataclass(frozen=True)
class TaskInfo:
    """What a reader of few-shot files must know about a task."""

    name: str
    """Directory name and first part of each file name."""
    family: str
    """One of `FAMILIES`."""
    metric: str
    """A key of `mpt.metrics.task_metrics.METRICS`."""
    shots: int
    """k of the file names: examples per class, or in all where the task is not sampled per class;
    `ALL_SHOTS` for every row."""
    group: str = field(default="", compare=False)
    """A part of its family, such as "summarization"; empty where the catalogue names none."""

    def at_shots(self, shots: int) -> TaskInfo:
        """Return the task at another sample size, as ``python -m mpt.gym build --shots`` names it.

        Args:
            shots: examples per class; 16 is the published size. A task that is not sampled per
                class (published with 32 examples) has ``max(32, shots)`` examples.
        """
        size = ALL_SHOTS if shots == ALL_SHOTS else max(shots, self.shots)
        return dataclasses.replace(self, shots=size)

    def file_name(self, seed: int, part: str) -> str:
        """Return the name of the task's file of a data seed and a part (train, dev or test)."""
        return f"{self.name}_{self.shots or 'all'}_{seed}_{part}.tsv"


@dataclass(frozen=True)
class Partition:
    """Source tasks to learn from, target tasks to be tested on; their order is the catalogue's."""

    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]


@dataclass(frozen=True)
class Catalogue:
    """Tasks, partitions, the tasks that select hyperparameters, and named subsets of sources."""

    tasks: Mapping[str, TaskInfo]
    partitions: Mapping[str, Partition]
    validation_tasks: tuple[str, ...]
    source_subsets: Mapping[str, tuple[str, ...]]

    def task(self, name: str) -> TaskInfo:
        """Return a task, or raise `UsageError` that names the nearest known ones."""
        if name in self.tasks:
            return self.tasks[name]
        near = sorted(self.tasks, key=lambda known: (-_common(known, name), known))[:3]
        raise UsageError(f"task {name!r} is unknown; near it are {', '.join(near)}")

    def with_shots(self, shots: int | None) -> Catalogue:
        """Return this catalogue at another sample size (`TaskInfo.at_shots`); None: its own."""
        if shots is None:
            return self
        tasks = {name: info.at_shots(shots) for name, info in self.tasks.items()}
        return replace(self, tasks=tasks)

    @property
    def partition_names(self) -> tuple[str, ...]:
        """The partitions: the paper's in its order, then others."""
        known = tuple(name for name in PARTITIONS if name in self.partitions)
        return known + tuple(name for name in self.partitions if name not in known)

    def partition(self, name: str) -> Partition:
        """Return a partition, or raise `UsageError` that lists the known ones."""
        if name in self.partitions:
            return self.partitions[name]
        raise UsageError(
            f"partition {name!r} is unknown; known are {', '.join(self.partitions) or 'none'}"
        )


def load_catalogue(gym: Path | None = None) -> Catalogue:
    """Read the catalogue of a gym directory.

    Args:
        gym: directory of few-shot files; None for the published catalogue.

    Returns:
        What ``gym/gym.toml`` says (tables ``[tasks.NAME]`` with family, metric, shots and, if
        wanted, group, ``[partitions.NAME]`` with source and target, ``validation_tasks``,
        ``[source_subsets]``) or, where there is no such file, the published catalogue.

    Raises:
        UsageError: `gym` is not a directory.
        DataError: ``gym.toml`` is no file, is malformed, or names an unknown key, family, metric
            or task, or a task that no directory can have the name of.
    """
    if gym is None:
        return _published()
    if not gym.is_dir():
        raise UsageError(
            f"gym {str(gym)!r} is not a directory; build one: python -m mpt.gym build"
        )
    path = gym / "gym.toml"
    if not os.path.lexists(path):
        return _published()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a TOML file in UTF-8: {error}") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise DataError(
            f"{path}: cannot be read ({reason}), but must be a TOML file; mend or remove it"
        ) from None
    return _catalogue(table, str(path))


def missing_tasks(
    gym: Path, names: Iterable[str], seeds: Iterable[int], shots: int | None = None
) -> dict[str, str]:
    """Say which tasks cannot be read for these data seeds, and why: task name → reason.

    Args:
        gym: directory of few-shot files.
        names: task names.
        seeds: data seeds.
        shots: another sample size than the catalogue's, see `Catalogue.with_shots`.
    """
    catalogue = load_catalogue(gym).with_shots(shots)
    seeds = tuple(seeds)
    missing = {}
    for name in names:
        reason = _lack(gym, catalogue.tasks.get(name), seeds)
        if reason:
            missing[name] = reason
    return missing


def _lack(gym: Path, info: TaskInfo | None, seeds: tuple[int, ...]) -> str:
    if info is None:
        return "not in the catalogue"
    folder = gym / info.name
    if not folder.is_dir():
        return "not built (no directory)"
    wanted = [info.file_name(seed, part) for seed in seeds for part in _PARTS]
    absent = [name for name in wanted if not (folder / name).is_file()]
    if not absent:
        return ""
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    return f"no file {absent[0]}{more}"


@cache
def _published() -> Catalogue:
    here = files("mpt.gym")
    rows = tomllib.loads((here / "tasks.toml").read_text(encoding="utf-8"))
    table = tomllib.loads((here / "partitions.toml").read_text(encoding="utf-8"))
    keys = ("family", "metric", "shots")
    tasks = {
        name: {**{key: row[key] for key in keys}, "group": row["group_of_family"]}
        for name, row in rows.items()
    }
    return _catalogue({"tasks": tasks, **table}, "partitions.toml")


def _catalogue(table: Mapping[str, Any], path: str) -> Catalogue:
    _only(table, ("tasks", "partitions", "validation_tasks", "source_subsets"), path)
    rows = _tables(table.get("tasks", {}), f"{path}: [tasks]")
    tasks = {name: _task(name, row, path) for name, row in rows.items()}
    if not tasks:
        raise DataError(f"{path}: has no [tasks.NAME] table, but needs at least one")

    def names(value: Any, where: str) -> tuple[str, ...]:
        return _names(value, tasks, f"{path}: {where}")

    partitions = {}
    for name, row in _tables(table.get("partitions", {}), f"{path}: [partitions]").items():
        where = f"[partitions.{name}]"
        _only(row, ("source", "target"), f"{path}: {where}")
        source = names(row.get("source"), f"{where} source")
        target = names(row.get("target"), f"{where} target")
        both = sorted(set(source) & set(target))
        if both:
            raise DataError(f"{path}: {where}: {both[0]!r} is both source and target")
        partitions[name] = Partition(name, source, target)
    subsets = table.get("source_subsets", {})
    if not isinstance(subsets, dict):
        raise DataError(
            f"{path}: [source_subsets] is {subsets!r}, but must hold a list of task names a name"
        )
    return Catalogue(
        tasks=MappingProxyType(tasks),
        partitions=MappingProxyType(partitions),
        validation_tasks=names(table.get("validation_tasks", []), "validation_tasks"),
        source_subsets=MappingProxyType(
            {key: names(value, f"source_subsets.{key}") for key, value in subsets.items()}
        ),
    )


def _task(name: str, row: Mapping[str, Any], path: str) -> TaskInfo:
    where = f"{path}: [tasks.{name}]"
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise DataError(
            f"{path}: a task is named {name!r}, but must have the name of a directory in the gym; "
            "rename it"
        )
    _only(row, ("family", "metric", "shots", "group"), where)
    for key, known in (("family", FAMILIES), ("metric", tuple(METRICS))):
        if row.get(key) not in known:
            raise DataError(f"{where}: {key} is {row.get(key)!r}, but must be one of {known}")
    shots = row.get("shots")
    if shots == "all":
        shots = ALL_SHOTS
    elif not is_int(shots) or shots < 1:
        raise DataError(f'{where}: shots is {shots!r}, but must be a whole number ≥ 1 or "all"')
    group = row.get("group", "")
    if not isinstance(group, str):
        raise DataError(f"{where}: group is {group!r}, but must be a name")
    return TaskInfo(name, row["family"], row["metric"], shots, group)


def _names(value: Any, tasks: Mapping[str, TaskInfo], where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise DataError(f"{where} is {value!r}, but must be a list of task names")
    for name in value:
        if name not in tasks:
            raise DataError(f"{where} names {name!r}, which is not a task of this catalogue")
        if value.count(name) > 1:
            raise DataError(f"{where} names {name!r} twice")
    return tuple(value)


def _only(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise DataError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")


def _tables(value: Any, where: str) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(row, dict) for row in value.values()):
        raise DataError(f"{where} must hold one table a name")
    return value


def _common(left: str, right: str) -> float:
    return difflib.SequenceMatcher(a=left, b=right).ratio()
