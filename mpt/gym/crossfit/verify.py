"""Compare few-shot files with the published MD5 sums (160 tasks × 5 seeds × 3 parts)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mpt.gym.catalogue import TaskInfo, load_catalogue


@cache
def published_sums() -> Mapping[str, Mapping[str, str]]:
    """Return task name → file name → MD5 sum, 15 files a task."""
    table = json.loads((files("mpt.gym.crossfit") / "md5.json").read_text(encoding="utf-8"))
    catalogue = load_catalogue(None)
    return MappingProxyType(
        {name: _by_file(catalogue.tasks[name], sums) for name, sums in table.items()}
    )


def _by_file(info: TaskInfo, sums: Mapping[str, Any]) -> Mapping[str, str]:
    """Expand ``{"test": sum, "13": [train sum, dev sum], …}``: one test serves all five seeds."""
    by_file = {}
    for seed in sorted(set(sums) - {"test"}):
        train, dev = sums[seed]
        for part, digest in (("train", train), ("dev", dev), ("test", sums["test"])):
            by_file[info.file_name(int(seed), part)] = digest
    return MappingProxyType(by_file)


@dataclass(frozen=True)
class FileComparison:
    """One task's files beside the published sums; names of files, sorted."""

    task: str
    same: tuple[str, ...]
    different: tuple[str, ...]
    absent: tuple[str, ...]

    def counts(self) -> str:
        """Say how many of the published files of each part are the same: ``train 5/5, …``."""
        all_names = (*self.same, *self.different, *self.absent)
        return ", ".join(
            f"{part} {_count(self.same, part)}/{_count(all_names, part)}"
            for part in ("train", "dev", "test")
        )


def _count(names: tuple[str, ...], part: str) -> int:
    return sum(name.endswith(f"_{part}.tsv") for name in names)


def compare(gym: Path, task: str) -> FileComparison:
    """Compare one task of a gym directory with the published sums."""
    groups: dict[str, list[str]] = {"same": [], "different": [], "absent": []}
    for name, digest in sorted(published_sums()[task].items()):
        try:
            with (gym / task / name).open("rb") as file:
                checksum = hashlib.file_digest(file, "md5").hexdigest()
        except FileNotFoundError:
            groups["absent"].append(name)
            continue
        groups["same" if checksum == digest else "different"].append(name)
    return FileComparison(task, **{key: tuple(names) for key, names in groups.items()})
