"""A pack: R prompt-tuning runs that go through one frozen model side by side.

Rows are tagged with their run and read with its prompt. The loss of a step is the sum over runs
of each run's own token mean, so the gradient of a prompt is that of its run alone; Adafactor keeps
its state per run.

Shapes: R active runs, P prompt tokens, d model width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpt.backbones.base import Backbone, Row, RowTable
from mpt.backbones.rows import length_groups
from mpt.downstream.evaluation import Evaluator
from mpt.errors import UsageError
from mpt.optim import Adafactor
from mpt.seeds import derive, numpy_generator

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig, TextConfig
    from mpt.gym.fewshot import FewShotTask

TOKENS_PER_PASS = {"cpu": 4096, "cuda": 65536}
"""Padded tokens per forward pass; on a CPU larger passes leave the cache and are slower."""


@dataclass(frozen=True, eq=False)
class TuningRun:
    """One downstream run to be done."""

    task: FewShotTask
    lr: float
    """Adafactor learning rate."""
    prompt: Tensor
    """Starting prompt [P, d]; it is copied."""


@dataclass
class Record:
    """What is known of a run so far."""

    prompt: Tensor
    """The prompt to be selected as things stand; the starting prompt before any evaluation."""
    diverged: bool = False
    dev: float = math.nan
    best_step: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    steps: int = 0
    examples: int = 0
    tokens: int = 0

    def note(self, step: int, score: float, select: str) -> bool:
        """Note the dev score after `step`; return whether the state is now the selected one."""
        self.curve.append((step, score, math.fsum(self.losses) / len(self.losses)))
        self.losses.clear()
        # The first of equal scores stays; NaN (a metric without a value) beats nothing.
        better = score > self.dev or (math.isnan(self.dev) and not math.isnan(score))
        if not (better or self.best_step == 0 or select == "last"):
            return False
        self.dev, self.best_step = score, step
        return True

    def count(self, loss: float, rows: Sequence[int], table: RowTable) -> None:
        """Add a step on these rows of a table."""
        self.losses.append(loss)
        self.steps += 1
        self.examples += len(rows)
        self.tokens += sum(table.input_lengths[row] + table.target_lengths[row] for row in rows)


class BatchOrder:
    """Which train rows a step of a task sees: a pure function of root seed, task and step.

    It is the same for every learning rate, starting prompt and way of tuning, so that these are
    compared on common random numbers.
    """

    def __init__(self, root_seed: int, batch_size: int):
        self._root, self._size = root_seed, batch_size
        self._orders: dict[tuple[str, int], tuple[int, list[int]]] = {}

    def rows(self, task: FewShotTask, step: int) -> list[int]:
        """Return the positions in `task.train` at `step` (from 1): shuffled epochs, cut up.

        The last batch of an epoch holds what is left of it.
        """
        n, key = len(task.train), (task.name, task.seed)
        epoch, batch = divmod(step - 1, math.ceil(n / self._size))
        if self._orders.get(key, (-1, []))[0] != epoch:
            generator = numpy_generator(self._root, "order", task.name, task.seed, epoch)
            self._orders[key] = (epoch, generator.permutation(n).tolist())
        return self._orders[key][1][batch * self._size : (batch + 1) * self._size]


class Pack:
    """R runs: prompts, optimiser, data and records; `active` are those still going on."""

    def __init__(
        self,
        backbone: Backbone,
        runs: Sequence[TuningRun],
        config: DownstreamConfig,
        text: TextConfig,
        root_seed: int,
    ):
        self._backbone, self._config, self._text, self._root = backbone, config, text, root_seed
        self._tasks = _distinct(run.task for run in runs)
        place = {(task.name, task.seed): n for n, task in enumerate(self._tasks)}
        self._task_of = [place[run.task.name, run.task.seed] for run in runs]
        self._max_tokens = TOKENS_PER_PASS["cpu" if backbone.device.type == "cpu" else "cuda"]
        for run in runs:
            if run.prompt.shape != (len(runs[0].prompt), backbone.d_model):
                raise UsageError(
                    f"prompt of {run.task.name} is {tuple(run.prompt.shape)}, but must be "
                    f"[P, {backbone.d_model}], P the same for all runs"
                )
        wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
        stack = torch.stack([run.prompt.detach().to(backbone.device, wide) for run in runs])
        self._optimiser = Adafactor(stack, [run.lr for run in runs])
        self.active = list(range(len(runs)))
        self.records = [Record(prompt=prompt.clone()) for prompt in stack]
        self._first_row: list[int] = []
        rows: list[Row] = []
        for task in self._tasks:
            self._first_row.append(len(rows))
            rows += backbone.encode_rows(task.name, task.train, text)
        self._table = backbone.table(rows)
        self._order = BatchOrder(root_seed, config.batch_size)
        self._dev = self._evaluator("dev", self._tasks)

    def step(self, step: int) -> None:
        """Take step number `step` (from 1) of every active run."""
        rows_of = [self._batch_rows(self._task_of[run], step) for run in self.active]
        losses, grads = self._gradient(rows_of, step)
        finite = (losses.isfinite() & grads.isfinite().all(2).all(1)).tolist()
        for run, rows, loss, fine in zip(
            self.active, rows_of, losses.tolist(), finite, strict=True
        ):
            record = self.records[run]
            if fine:
                record.count(loss, rows, self._table)
        if not all(finite):
            grads = grads[self._drop_diverged(finite)]
        if self.active:
            self._optimiser.step(grads)

    def evaluate(self, step: int) -> None:
        """Score every active prompt on dev and note the ones to be selected."""
        finite = self._optimiser.prompts.isfinite().all(2).all(1).tolist()
        if not all(finite):
            self._drop_diverged(finite)
        if not self.active:
            return
        prompts = self._optimiser.prompts
        scores = self._dev.scores(prompts, [self._task_of[run] for run in self.active])
        for run, prompt, score in zip(self.active, prompts, scores, strict=True):
            record = self.records[run]
            if record.note(step, score, self._config.select):
                record.prompt = prompt.clone()

    def test(self) -> list[float]:
        """Return the test score of every run's selected prompt, NaN for a diverged run."""
        scores = [math.nan] * len(self.records)
        if self.active:
            evaluator = self._evaluator("test", self._tasks)
            prompts = torch.stack([self.records[run].prompt for run in self.active])
            found = evaluator.scores(prompts, [self._task_of[run] for run in self.active])
            for run, score in zip(self.active, found, strict=True):
                scores[run] = score
        return scores

    def _gradient(self, rows_of: Sequence[Sequence[int]], step: int) -> tuple[Tensor, Tensor]:
        """Return each active run's loss [R] and its gradient [R, P, d] on its rows."""
        prompts = self._optimiser.prompts.detach().requires_grad_()
        rows = [row for own in rows_of for row in own]
        slots = [slot for slot, own in enumerate(rows_of) for _ in own]
        tokens = [sum(self._table.target_lengths[row] for row in own) for own in rows_of]
        weights = prompts.new_tensor([1 / tokens[slot] for slot in slots])
        losses = prompts.new_zeros(len(rows_of)).detach()
        for group in self._groups(rows, slots, prompts.shape[1]):
            batch = self._table.batch([rows[n] for n in group], [slots[n] for n in group])
            with self._backbone.dropout(self._config.dropout, self._dropout_seed(batch.run, step)):
                nll, _ = self._backbone.row_losses(prompts, batch)
                shares = nll * weights[group]
                shares.sum().backward()
            losses.index_add_(0, batch.run, shares.detach().to(losses.dtype))
        assert prompts.grad is not None
        return losses, prompts.grad

    def _groups(self, rows: Sequence[int], slots: Sequence[int], p: int) -> list[list[int]]:
        """Return which rows share a forward pass: similar lengths, or one run with dropout."""
        if self._config.dropout > 0:
            return [[n for n, s in enumerate(slots) if s == slot] for slot in sorted(set(slots))]
        inputs, targets = self._table.input_lengths, self._table.target_lengths
        return length_groups([p + inputs[row] + targets[row] for row in rows], self._max_tokens)

    def _dropout_seed(self, slots: Tensor, step: int) -> int:
        """Return the seed of a pass with dropout, in which all rows are of one run."""
        if self._config.dropout == 0:
            return 0
        task = self._tasks[self._task_of[self.active[int(slots[0])]]]
        return derive(self._root, "dropout", "downstream", task.name, task.seed, step)

    def _batch_rows(self, task: int, step: int) -> list[int]:
        """Return the table rows of a task's batch at `step`."""
        first = self._first_row[task]
        return [first + row for row in self._order.rows(self._tasks[task], step)]

    def _drop_diverged(self, finite: Sequence[bool]) -> list[int]:
        """Let the runs that are not finite leave the pack; return the slots that stay."""
        stay = [slot for slot, fine in enumerate(finite) if fine]
        for run, fine in zip(self.active, finite, strict=True):
            self.records[run].diverged |= not fine
        self._optimiser.keep(stay)
        self.active = [self.active[slot] for slot in stay]
        return stay

    def _evaluator(self, split: str, tasks: Sequence[FewShotTask]) -> Evaluator:
        return Evaluator(self._backbone, tasks, split, self._config, self._text, self._max_tokens)


def _distinct(tasks: Iterable[FewShotTask]) -> list[FewShotTask]:
    """Return the tasks without repetition, in order of first appearance.

    Raises:
        UsageError: two tasks share name and data seed but not their data.
    """
    found: dict[tuple[str, int], FewShotTask] = {}
    for task in tasks:
        known = found.setdefault((task.name, task.seed), task)
        if known.digest != task.digest:
            raise UsageError(
                f"task {task.name} with data seed {task.seed} is given twice with different data"
            )
    return list(found.values())
