"""Which lines go to train, dev and test: the published procedure, and more shots.

The published files come from NumPy's legacy generator (``np.random.seed`` + ``shuffle``), whose
stream is frozen; `numpy.random.RandomState` gives the same orders without touching global state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpt.errors import DataError
from mpt.gym.catalogue import ALL_SHOTS
from mpt.gym.crossfit.lines import DRAW_SEED, Line
from mpt.gym.crossfit.tasks import TaskRow


@dataclass(frozen=True)
class Pools:
    """Lines to sample train and dev from, and the test lines, both in their final order."""

    train: Sequence[Line]
    test: Sequence[Line]


@dataclass(frozen=True)
class Sample:
    """Train and dev lines of one data seed."""

    train: list[Line]
    dev: list[Line]


def pools(task: TaskRow, lines: dict[str, list[Line]]) -> Pools:
    """Cut the mapped lines of the task's splits into a train pool and a test.

    Raises:
        DataError: the train pool or the test comes out empty.
    """
    splits = task.splits
    if splits.pool is None:
        train, test = (lines[name] for name in splits.names)
        if splits.keep_test < 1.0:
            test = shuffled(test, DRAW_SEED)[: int(splits.keep_test * len(test))]
    else:
        pool = shuffled(lines[splits.pool], DRAW_SEED)
        if splits.train_rows and splits.test_rows:
            train, test = (pool[slice(*rows)] for rows in (splits.train_rows, splits.test_rows))
        else:
            train = pool[: int(splits.train_until * len(pool))]
            test = pool[int(splits.test_from * len(pool)) :]
    for name, part in (("train pool", train), ("test", test)):
        if not part:
            sizes = ", ".join(f"{split}: {len(rows)}" for split, rows in lines.items())
            raise DataError(f"task {task.name}: the {name} comes out empty (lines: {sizes})")
    return Pools(train, test)


def sample(task: TaskRow, pool: Sequence[Line], shots: int, seed: int) -> Sample:
    """Draw train and dev of one data seed.

    Each class (or, in a task that is not sampled per class, the whole pool) gives its first
    `shots` lines in shuffled order to train and the next ones to dev; with `ALL_SHOTS`, or where
    it has fewer than twice `shots` lines in a sample larger than the published one, each half.

    Args:
        task: the task's row.
        pool: `Pools.train`, not shuffled.
        shots: k of the file names.
        seed: data seed.
    """
    buckets: dict[str, list[Line]] = {}
    for line in shuffled(pool, seed):
        buckets.setdefault(line[1] if task.per_label else "", []).append(line)
    train: list[Line] = []
    dev: list[Line] = []
    for bucket in buckets.values():
        each = shots
        if shots == ALL_SHOTS or (shots > task.shots and len(bucket) < 2 * shots):
            each = len(bucket) // 2
        train += bucket[:each]
        dev += bucket[each : 2 * each]
    return Sample(train, dev)


def short_classes(task: TaskRow, pool: Sequence[Line], shots: int) -> dict[str, int]:
    """Return the classes with fewer than twice `shots` lines, and their lines.

    A task that is not sampled per class is one class, "". Classes of the row without any line
    count 0.

    Raises:
        DataError: at the published number of shots, a class that has lines but too few, and that
            the row does not list in ``short``.
    """
    counts = Counter(line[1] if task.per_label else "" for line in pool)
    if task.label is not None:
        counts.update(dict.fromkeys(task.label.words, 0))
    need = 2 * (shots or 1)
    short = {label: count for label, count in counts.items() if count < need}
    if shots == task.shots:
        for label, count in short.items():
            if count and label not in task.short:
                whose = f"class {label!r} has" if task.per_label else "the split has"
                raise DataError(
                    f"task {task.name}, split {task.splits.names[0]}: {whose} {count} rows to "
                    f"sample from, but {shots} for train and {shots} for dev need {need}"
                )
    return short


def shuffled(lines: Sequence[Line], seed: int) -> list[Line]:
    """Return the lines in the order that ``np.random.seed(seed); np.random.shuffle`` gives."""
    order = np.random.RandomState(seed).permutation(len(lines))
    return [lines[at] for at in order]
