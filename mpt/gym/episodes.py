"""Upstream episodes: which item and which rows an outer step sees, and what an example reads like.

One upstream *item* is a (task, data seed) pair. The stream is a pure function of (root seed,
index): its position is one integer, so a resumed run needs no generator state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpt.errors import UsageError
from mpt.gym.fewshot import AnswerDraw
from mpt.seeds import numpy_generator

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.fewshot import Example, FewShotTask


def render(task_name: str, example: Example) -> tuple[str, str]:
    """Return the texts (input, target) that the language model is given for an example.

    The input is ``" [task_name] input"`` and the target is ``" output"`` with the example's first
    output (recipe row 7). The leading blanks start a word for a byte-level tokenizer and vanish
    in a SentencePiece one. The target reads the same upstream and downstream, so that a prompt
    learned upstream meets the tokens it was learned on.
    """
    return f" [{task_name}] {example.input}", f" {example.outputs[0]}"


@dataclass(frozen=True)
class Episode:
    """One item with the rows drawn for it; rows are positions in the item's train and dev file.

    Where a random one of a row's answers is trained on, they are positions among all (row, answer)
    of the file (`mpt.gym.fewshot.one_answer_each`).
    """

    index: int
    """Position in the stream."""
    item: int
    """Position of the item in the stream's list of tasks."""
    task: str
    """The item's task."""
    data_seed: int
    """The item's data seed."""
    support: tuple[tuple[int, ...], ...]
    """For every inner step the rows of its batch, from train."""
    query: tuple[int, ...]
    """Rows of the query batch, from dev."""


def refuse_doubled_items(tasks: Sequence[FewShotTask]) -> list[tuple[str, int]]:
    """Return (task, data seed) of every item.

    Raises:
        UsageError: there is no item, or two items are the same.
    """
    names = [(task.name, task.seed) for task in tasks]
    if not names:
        raise UsageError("source tasks: 0 given, but upstream learning needs at least 1")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"source task {twice[0]} with data seed {twice[1]} is given twice")
    return names


class EpisodeStream:
    """An endless stream of episodes; every epoch visits every item once, in a shuffled order.

    Args:
        tasks: the items, one `FewShotTask` per (task, data seed); their order is a part of the
            stream's identity.
        config: batch size (of support and query), number of inner steps, and how items, rows and
            answers are drawn.
        root_seed: root of all draws (see `mpt.seeds`).

    Raises:
        UsageError: there is no item, or two items are the same (task, data seed).
    """

    def __init__(self, tasks: Sequence[FewShotTask], config: UpstreamConfig, root_seed: int):
        self._items = refuse_doubled_items(tasks)
        self._sizes = [(len(task.train), len(task.dev)) for task in tasks]
        self._batch_size = config.batch_size
        self._inner_steps = config.inner_steps
        self._jointly = config.support_draw == "jointly"
        self._repeated = config.epoch_order == "repeated"
        self._answers = (
            [(AnswerDraw(task.train), AnswerDraw(task.dev)) for task in tasks]
            if config.answers == "random"
            else None
        )
        self._root = root_seed
        self._epoch: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Items in one epoch."""
        return len(self._items)

    def episode(self, index: int) -> Episode:
        """Return the episode at position `index` ≥ 0, whatever was asked for before.

        A batch is drawn without replacement; where the file holds fewer rows than the batch
        size, the batch is the whole file. Each inner step has a support batch of its own, and
        the first k batches are the same for every number of inner steps ≥ k. (Drawn jointly, the
        support batches share no row, unless the file holds fewer than all of them need: then all
        rows are drawn with replacement.)
        """
        epoch, position = divmod(index, len(self._items))
        item = int(self._order(0 if self._repeated else epoch)[position])
        n_train, n_dev = self._sizes[item]
        name, seed = self._items[item]
        support = self._support(numpy_generator(self._root, "support", index), n_train)
        query = self._draw(numpy_generator(self._root, "query", index), n_dev)
        if self._answers is not None:
            train, dev = self._answers[item]
            answers = numpy_generator(self._root, "answers", "support", index)
            support = tuple(train.rows(answers, rows) for rows in support)
            query = dev.rows(numpy_generator(self._root, "answers", "query", index), query)
        return Episode(
            index=index, item=item, task=name, data_seed=seed, support=support, query=query
        )

    def _support(self, generator: np.random.Generator, rows: int) -> tuple[tuple[int, ...], ...]:
        """Return the support batches of all inner steps from a file of this many rows."""
        b, k = self._batch_size, self._inner_steps
        if not self._jointly:
            return tuple(self._draw(generator, rows) for _ in range(k))
        joint = generator.choice(rows, size=k * b, replace=k * b > rows)
        return tuple(tuple(int(row) for row in batch) for batch in joint.reshape(k, b))

    def _order(self, epoch: int) -> np.ndarray:
        """Order of the items in an epoch (the last one asked for is remembered)."""
        if self._epoch is None or self._epoch[0] != epoch:
            generator = numpy_generator(self._root, "items", epoch)
            self._epoch = (epoch, generator.permutation(len(self._items)))
        return self._epoch[1]

    def _draw(self, generator: np.random.Generator, rows: int) -> tuple[int, ...]:
        size = min(self._batch_size, rows)
        return tuple(int(row) for row in generator.choice(rows, size=size, replace=False))
