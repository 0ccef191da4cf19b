"""The train rows of downstream runs and the order in which a run sees them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mpt.backbones.base import Backbone, Row
from mpt.errors import UsageError
from mpt.gym.fewshot import AnswerDraw, one_answer_each
from mpt.seeds import numpy_generator

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig, TextConfig
    from mpt.gym.fewshot import FewShotTask


class BatchOrder:
    """Which train rows a step of a task sees: a pure function of root seed, task and step.

    It is the same for every learning rate, starting prompt and way of tuning, so that these are
    compared on common random numbers.
    """

    def __init__(self, root_seed: int, batch_size: int, *, repeated: bool = False):
        self._root, self._size, self._repeated = root_seed, batch_size, repeated
        self._orders: dict[tuple[str, int], tuple[int, list[int]]] = {}

    def rows(self, task: FewShotTask, step: int) -> list[int]:
        """Return the positions in `task.train` at `step` (from 1): shuffled epochs, cut up.

        The last batch of an epoch holds what is left of it. `repeated` epochs have one order.
        """
        n, key = len(task.train), (task.name, task.seed)
        epoch, batch = divmod(step - 1, math.ceil(n / self._size))
        epoch = 0 if self._repeated else epoch
        if self._orders.get(key, (-1, []))[0] != epoch:
            generator = numpy_generator(self._root, "order", task.name, task.seed, epoch)
            self._orders[key] = (epoch, generator.permutation(n).tolist())
        return self._orders[key][1][batch * self._size : (batch + 1) * self._size]


class TrainRows:
    """The train rows of several tasks, tokenised once, and each task's batches.

    Args:
        backbone: gives the tokens.
        tasks: distinct tasks; they are referred to by position.
        text: lengths of inputs and targets.
        root_seed: root of data order and answers.
        config: examples per step, and how they are ordered and their answers chosen.
    """

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[FewShotTask],
        text: TextConfig,
        root_seed: int,
        config: DownstreamConfig,
    ):
        self.tasks, self._root, self._parts = tasks, root_seed, config.loss_parts
        repeated = config.epoch_order == "repeated"
        self._order = BatchOrder(root_seed, config.batch_size, repeated=repeated)
        self._answers: list[AnswerDraw] | None = None
        examples = [task.train for task in tasks]
        if config.answers == "random":
            self._answers = list(map(AnswerDraw, examples))
            examples = list(map(one_answer_each, examples))
        self._first: list[int] = []
        self._batches: dict[int, tuple[int, list[int]]] = {}
        rows: list[Row] = []
        for task, own in zip(tasks, examples, strict=True):
            self._first.append(len(rows))
            rows += backbone.encode_rows(task.name, own, text)
        self.table = backbone.table(rows)
        self._padded = backbone.padding_matters

    def batch(self, task: int, step: int) -> list[int]:
        """Return the table rows of a task's batch at `step` (from 1).

        The last one of each task is remembered: its runs side by side take their steps together.
        """
        at, batch = self._batches.get(task, (0, []))
        if at != step:
            batch = self._batch(task, step)
            self._batches[task] = (step, batch)
        return batch

    def _batch(self, task: int, step: int) -> list[int]:
        first, known = self._first[task], self.tasks[task]
        rows: Sequence[int] = self._order.rows(known, step)
        if self._answers is not None and self._answers[task].chooses:
            draw = numpy_generator(self._root, "answers", known.name, known.seed, step)
            rows = self._answers[task].rows(draw, rows)
        return [first + row for row in rows]

    def weights(self, batch: Sequence[int]) -> list[float]:
        """Return what the summed loss of each table row of a batch counts in the step's loss."""
        return token_weights([self.table.target_lengths[row] for row in batch], self._parts)

    def widths(self, batch: Sequence[int]) -> list[int] | None:
        """Return to how many tokens the input of each table row of a batch is padded.

        Every part of the batch (`DownstreamConfig.loss_parts`) is padded by itself. None: it does
        not matter.
        """
        if not self._padded:
            return None
        lengths = [self.table.input_lengths[row] for row in batch]
        return [max(lengths[row % self._parts :: self._parts]) for row in range(len(batch))]


def token_weights(tokens: Sequence[int], parts: int) -> list[float]:
    """Return what each row's summed loss counts in a step's loss.

    The loss is the mean over the parts of each one's token mean. Row i is of part i mod `parts`,
    as a distributed sampler deals rows to devices; a part without rows does not count.

    Args:
        tokens: target tokens of every row of the batch, in its order.
        parts: see `DownstreamConfig.loss_parts`.
    """
    parts = min(parts, len(tokens))
    totals = [sum(tokens[part::parts]) for part in range(parts)]
    return [1 / (parts * totals[row % parts]) for row in range(len(tokens))]


def distinct_tasks(tasks: Iterable[FewShotTask]) -> list[FewShotTask]:
    """Return the tasks without repetition, in order of first appearance.

    Raises:
        UsageError: two tasks share name and data seed but not their data.
    """
    samples: dict[tuple[str, int], FewShotTask] = {}
    for task in tasks:
        known = samples.setdefault((task.name, task.seed), task)
        if known.digest != task.digest:
            raise UsageError(
                f"task {task.name} with data seed {task.seed} is given twice with different data"
            )
    return list(samples.values())
