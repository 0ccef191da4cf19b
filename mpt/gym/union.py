"""Batches for multitask learning: rows of train and dev of all items, mixed in one order.

Like `mpt.gym.episodes`, the stream is a pure function of (root seed, index).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpt.gym.episodes import Episode, refuse_doubled_items
from mpt.gym.fewshot import AnswerDraw
from mpt.seeds import numpy_generator

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.fewshot import FewShotTask


class Union:
    """All rows of all items under one number each: item after item, train before dev."""

    def __init__(self, tasks: Sequence[FewShotTask]):
        sizes = [len(part) for task in tasks for part in (task.train, task.dev)]
        self._ends = np.cumsum(sizes)

    def __len__(self) -> int:
        """Rows in all."""
        return int(self._ends[-1])

    def locate(self, position: int) -> tuple[int, str, int]:
        """Return (item, "train" or "dev", row) of a row of the union."""
        part = int(np.searchsorted(self._ends, position, side="right"))
        before = int(self._ends[part - 1]) if part else 0
        return part // 2, ("train", "dev")[part % 2], position - before


class UnionStream:
    """An endless stream of batches; every epoch visits every row once, in a shuffled order.

    A batch is an `Episode` with one support batch, whose rows are numbers in `Union` (of the tasks
    `with_answers_apart`, where a random one of a row's answers is trained on), and no query. The
    last batch of an epoch may be smaller.

    Args:
        tasks: the items, one `FewShotTask` per (task, data seed).
        config: batch size, and how rows and answers are drawn.
        root_seed: root of the order.

    Raises:
        UsageError: there is no item, or two items are the same (task, data seed).
    """

    def __init__(self, tasks: Sequence[FewShotTask], config: UpstreamConfig, root_seed: int):
        refuse_doubled_items(tasks)
        self._rows = len(Union(tasks))
        self._batch_size = config.batch_size
        self._repeated = config.epoch_order == "repeated"
        self._answers: AnswerDraw | None = None
        if config.answers == "random":
            parts = [part for task in tasks for part in (task.train, task.dev)]
            self._answers = AnswerDraw([example for part in parts for example in part])
        self._root = root_seed
        self._epoch: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Batches in one epoch."""
        return math.ceil(self._rows / self._batch_size)

    def episode(self, index: int) -> Episode:
        """Return the batch at position `index` ≥ 0, whatever was asked for before."""
        epoch, position = divmod(index, len(self))
        begin = position * self._batch_size
        order = self._order(0 if self._repeated else epoch)
        rows = tuple(int(row) for row in order[begin : begin + self._batch_size])
        if self._answers is not None:
            rows = self._answers.rows(numpy_generator(self._root, "answers", index), rows)
        return Episode(
            index=index,
            item=0,
            task="the union of all source tasks",
            data_seed=0,
            support=(rows,),
            query=(),
        )

    def _order(self, epoch: int) -> np.ndarray:
        """Order of the rows in an epoch (the last one asked for is remembered)."""
        if self._epoch is None or self._epoch[0] != epoch:
            generator = numpy_generator(self._root, "union", epoch)
            self._epoch = (epoch, generator.permutation(self._rows))
        return self._epoch[1]
