"""Which tasks and partitions there are: the published catalogue, or the ``gym.toml`` of a gym.

A gym is a directory of few-shot files (`mpt.gym.fewshot`). Without a ``gym.toml`` in it, the 160
published tasks (``tasks.toml``) and the ten partitions of the paper (``partitions.toml``) hold.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mpt.errors import DataError, UsageError
from mpt.metrics.task_metrics import METRICS
from mpt.rules import Rule, at_least, one_of
from mpt.toml_file import (
    check_values,
    names_of,
    only_keys,
    parse_toml,
    read_toml,
    read_toml_text,
    table_of,
    tables_of,
)

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

_HERE = Path(__file__).parent
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
        near = difflib.get_close_matches(name, self.tasks, n=3, cutoff=0)
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
    return _of_gym(read_toml_text(path), path)


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


@lru_cache(maxsize=8)  # a plan asks for the same gym cell by cell
def _of_gym(text: str, path: Path) -> Catalogue:
    return _catalogue(parse_toml(text, path), path)


@cache
def _published() -> Catalogue:
    rows = read_toml(_HERE / "tasks.toml")
    keys = ("family", "metric", "shots")
    tasks = {
        name: {**{key: row[key] for key in keys}, "group": row["group_of_family"]}
        for name, row in rows.items()
    }
    path = _HERE / "partitions.toml"
    return _catalogue({"tasks": tasks, **read_toml(path)}, path)


def _catalogue(table: Mapping[str, Any], path: Path) -> Catalogue:
    only_keys(table, ("tasks", "partitions", "validation_tasks", "source_subsets"), path, "")
    rows = tables_of(table.get("tasks", {}), path, "tasks")
    tasks = {name: _task(name, row, path) for name, row in rows.items()}
    if not tasks:
        raise DataError(f"{path}: has no [tasks.NAME] table, but needs at least one")

    def names(value: Any, where: str) -> tuple[str, ...]:
        for name in (listed := names_of(value, path, where)):
            if name not in tasks:
                raise DataError(
                    f"{path}: {where} names {name!r}, which is not a task of this catalogue"
                )
        return listed

    partitions = {}
    for name, row in tables_of(table.get("partitions", {}), path, "partitions").items():
        where, sides = f"partitions.{name}", ("source", "target")
        only_keys(row, sides, path, where, sides)
        source, target = (names(row[side], f"[{where}] {side}") for side in sides)
        both = sorted(set(source) & set(target))
        if both:
            raise DataError(f"{path}: [{where}] {both[0]!r} is both source and target")
        partitions[name] = Partition(name, source, target)
    subsets = table_of(table.get("source_subsets", {}), path, "source_subsets")
    return Catalogue(
        tasks=MappingProxyType(tasks),
        partitions=MappingProxyType(partitions),
        validation_tasks=names(table.get("validation_tasks", []), "validation_tasks"),
        source_subsets=MappingProxyType(
            {key: names(value, f"[source_subsets] {key}") for key, value in subsets.items()}
        ),
    )


_RULES: Mapping[str, Rule] = {
    "family": one_of(FAMILIES),
    "metric": one_of(METRICS),
    "shots": ((lambda n: n == "all" or at_least(1)[0](n)), 'a whole number ≥ 1 or "all"'),
    "group": ((lambda name: isinstance(name, str)), "a name"),
}


def _task(name: str, row: Mapping[str, Any], path: Path) -> TaskInfo:
    where = f"tasks.{name}"
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise DataError(
            f"{path}: a task is named {name!r}, but must have the name of a directory in the gym; "
            "rename it"
        )
    only_keys(row, tuple(_RULES), path, where, ("family", "metric", "shots"))
    check_values({"group": "", **row}, path, where, _RULES)
    shots = ALL_SHOTS if row["shots"] == "all" else row["shots"]
    return TaskInfo(name, row["family"], row["metric"], shots, row.get("group", ""))
