"""The settings of a folder of score files: whole methods with their scores as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpt.errors import DataError, UsageError

from ..paper.answers import MAIN, scores_comparison
from ..published.numbers import published_numbers
from ..results.names import (
    BASELINE,
    METHODS,
    PARTITION_LABELS,
    in_order,
    method_label,
    paper_backbone,
    partition_label,
    rank,
)
from ..results.scores import ScoreRow, read_scores
from ..tables.arg import scored_methods


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One partition on one backbone, with every method that has all of its scores."""

    partition: str
    backbone: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    """Data seeds."""
    scores: Mapping[str, np.ndarray]
    """Method → test scores, fractions, [tasks, data seeds]; plain prompt tuning is among them."""
    printed: Mapping[str, float]
    """Method → ARG in % that Table 2 of the paper prints for it."""
    left_out: tuple[str, ...] = ()
    """One line a method that lacks scores, or has none: why it is not compared."""

    @property
    def label(self) -> str:
        """Partition and backbone, as they are shown."""
        return f"{partition_label(self.partition)}, {self.backbone}"

    @property
    def methods(self) -> list[str]:
        """Methods beside plain prompt tuning, in the order of the paper."""
        return in_order(self.scores.keys() - {BASELINE}, METHODS)


def read_settings(source: Path) -> list[Setting]:
    """Read a file of scores, or every ``*.csv`` of a folder (see `results.scores`).

    Raises:
        UsageError: there is no such file, or the folder holds none.
        DataError: a file breaks a rule, or two files hold the same setting.
    """
    files = sorted(source.glob("*.csv")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise UsageError(f"DIR is {str(source)!r}, but must be a folder of *.csv files of scores")
    settings: dict[tuple[str, str], Setting] = {}
    origin: dict[tuple[str, str], Path] = {}
    for path in files:
        for setting in _settings(path):
            key = (setting.partition, setting.backbone)
            if key in settings:
                raise DataError(
                    f"{path}: holds {setting.label}, which {origin[key].name} holds too; a "
                    "setting must stand in one file"
                )
            settings[key], origin[key] = setting, path
    if not any(setting.scores for setting in settings.values()):
        reasons = [why for setting in settings.values() for why in setting.left_out]
        raise DataError(
            f"{source}: holds no method with a score for every task and data seed, so there is "
            f"nothing to compare; the first that lacks is {reasons[0]}"
        )
    order = sorted(settings, key=lambda key: (rank(key[0], PARTITION_LABELS), key[1]))
    return [settings[key] for key in order]


def _settings(path: Path) -> list[Setting]:
    rows = read_scores(path)
    groups: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in rows:
        groups.setdefault((row.partition, row.backbone), []).append(row)
    whole = {key: [BASELINE] for key in groups}
    printed: dict[tuple[str, str], dict[str, float]] = {key: {} for key in groups}
    missing: dict[tuple[str, str], list[str]] = {key: [] for key in groups}
    for one in scored_methods(path):
        key = (one.partition, one.backbone)
        if one.summary.whole:
            whole[key].append(one.method)
        else:
            missing[key].append(f"{method_label(one.method)}: {one.summary.gain.reasons[0]}")
        comparison = scores_comparison(one)
        if comparison is not None and paper_backbone(one.backbone) == MAIN:
            printed[key][one.method] = comparison.published.value
    for key, group in groups.items():
        missing[key] += _absent(*key, {row.method for row in group})
    return [
        _setting(key, group, whole[key], printed[key], tuple(missing[key]))
        for key, group in groups.items()
    ]


def _absent(partition: str, backbone: str, scored: set[str]) -> list[str]:
    """Name the methods that Table 2 has a number for and the file nothing."""
    if paper_backbone(backbone) != MAIN:
        return []
    wanted = {n.row for n in published_numbers() if (n.place, n.column) == ("Table 2", partition)}
    return [
        f"{method_label(name)}: no score on file" for name in METHODS if name in wanted - scored
    ]


def _setting(
    key: tuple[str, str],
    rows: list[ScoreRow],
    methods: list[str],
    printed: Mapping[str, float],
    left_out: tuple[str, ...],
) -> Setting:
    tests = {(row.method, row.task, row.seed): row.test for row in rows}
    tasks = tuple(sorted({row.task for row in rows if row.method == BASELINE}))
    seeds = tuple(sorted({row.seed for row in rows}))
    scores = {}
    if len(methods) > 1:  # else nothing is compared, and the baseline itself may lack scores
        for method in methods:
            table = [[tests[method, task, seed] for seed in seeds] for task in tasks]
            scores[method] = np.array(table, dtype=np.float64)
    partition, backbone = key
    return Setting(
        partition=partition,
        backbone=backbone,
        tasks=tasks,
        seeds=seeds,
        scores=scores,
        printed=printed,
        left_out=left_out,
    )
