"""The settings of a folder of score files: whole methods with their scores as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from ..tables.arg import ScoredMethod, scored_methods


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
    rows: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in read_scores(path):
        rows.setdefault((row.partition, row.backbone), []).append(row)
    scored: dict[tuple[str, str], list[ScoredMethod]] = {key: [] for key in rows}
    for one in scored_methods(path):
        scored[one.partition, one.backbone].append(one)
    return [_setting(*key, rows[key], scored[key]) for key in rows]


def _setting(
    partition: str, backbone: str, rows: Sequence[ScoreRow], scored: Sequence[ScoredMethod]
) -> Setting:
    tests = {(row.method, row.task, row.seed): row.test for row in rows}
    tasks = tuple(sorted({row.task for row in rows if row.method == BASELINE}))
    seeds = tuple(sorted({row.seed for row in rows}))
    whole = [one.method for one in scored if one.summary.whole]
    scores = {}
    # else nothing is compared, and the baseline itself may lack scores
    for method in (BASELINE, *whole) if whole else ():
        table = [[tests[method, task, seed] for seed in seeds] for task in tasks]
        scores[method] = np.array(table, dtype=np.float64)
    main = paper_backbone(backbone) == MAIN
    printed = {one.method: scores_comparison(one) for one in scored if main}
    lacking = [one for one in scored if not one.summary.whole]
    return Setting(
        partition=partition,
        backbone=backbone,
        tasks=tasks,
        seeds=seeds,
        scores=scores,
        printed={name: one.published.value for name, one in printed.items() if one is not None},
        left_out=(
            *(f"{method_label(one.method)}: {one.summary.gain.reasons[0]}" for one in lacking),
            *_absent(partition, backbone, {row.method for row in rows}),
        ),
    )


def _absent(partition: str, backbone: str, scored: set[str]) -> list[str]:
    """Name the methods that Table 2 has a number for and the file nothing."""
    if paper_backbone(backbone) != MAIN:
        return []
    wanted = {n.row for n in published_numbers() if (n.place, n.column) == ("Table 2", partition)}
    return [
        f"{method_label(name)}: no score on file" for name in METHODS if name in wanted - scored
    ]
