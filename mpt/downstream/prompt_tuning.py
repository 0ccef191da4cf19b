"""Prompt tuning of many runs at once: R prompts ride through one frozen model.

A run is (task, data seed, learning rate, starting prompt). The loss of a batch is the sum over
runs of each run's own token mean, so the gradient of a prompt is that of its run alone; Adafactor
keeps its state per run. Hence a run's result does not depend on what it is packed with, up to
rounding.

Shapes: R runs in the pack (fewer once one diverged), P prompt tokens, d model width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpt.backbones.base import Backbone, Row
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


@dataclass(frozen=True)
class TuningRun:
    """One downstream run to be done."""

    task: FewShotTask
    lr: float
    """Adafactor learning rate."""
    prompt: Tensor
    """Starting prompt [P, d]; it is copied."""


@dataclass(frozen=True)
class TuningResult:
    """What one downstream run gave."""

    dev: float
    """Dev score of the selected prompt; NaN if the run diverged."""
    test: float
    """Test score of the selected prompt; NaN if the run diverged."""
    best_step: int
    """Step after which the selected prompt stood; 0 if the run diverged."""
    curve: tuple[tuple[int, float, float], ...]
    """(step, dev score, mean training loss since the evaluation before) of every evaluation."""
    prompt: Tensor
    """The selected prompt [P, d], on the CPU; the last finite one if the run diverged."""
    status: str
    """"ok" or "diverged"."""
    cost: dict[str, float]
    """steps, examples and tokens trained on, and the run's share of the pack's seconds."""


def tune(
    backbone: Backbone,
    runs: Sequence[TuningRun],
    config: DownstreamConfig,
    text: TextConfig,
    root_seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[TuningResult]:
    """Tune all runs as one pack and test each run's selected prompt once.

    The data order of a run depends on root seed, task and data seed only: it is the same for every
    learning rate and starting prompt, so that these are compared on common random numbers. With
    dropout, each run has forward passes of its own, so that its masks do not depend on the pack.

    Args:
        backbone: the frozen model.
        runs: any mixture of tasks; runs of one task side by side waste the least padding.
        config: the recipe; its `lrs` are not read (each run has its own).
        text: lengths of inputs and targets.
        root_seed: root of data order and dropout.
        on_progress: called with (steps done, steps in all) after every step; what it raises ends
            the pack.

    Returns:
        One result per run, in the same order. A run whose loss or prompt stops being finite ends
        alone, with status "diverged".
    """
    if not runs:
        return []
    started = time.perf_counter()
    pack = _Pack(backbone, runs, config, text, root_seed)
    for step in range(1, config.steps + 1):
        if not pack.active:
            break
        pack.step(step)
        if step % config.eval_every == 0 or step == config.steps:
            pack.evaluate(step)
        if on_progress is not None:
            on_progress(step, config.steps)
    tested = pack.test()
    seconds = (time.perf_counter() - started) / len(runs)
    return [
        _result(record, test, seconds) for record, test in zip(pack.records, tested, strict=True)
    ]


@dataclass
class _Record:
    """What is known of a run so far."""

    prompt: Tensor
    diverged: bool = False
    dev: float = math.nan
    best_step: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    steps: int = 0
    examples: int = 0
    tokens: int = 0


def _result(record: _Record, test: float, seconds: float) -> TuningResult:
    return TuningResult(
        dev=math.nan if record.diverged else record.dev,
        test=test,
        best_step=0 if record.diverged else record.best_step,
        curve=tuple(record.curve),
        prompt=record.prompt.detach().cpu().clone(),
        status="diverged" if record.diverged else "ok",
        cost={
            "steps": record.steps,
            "examples": record.examples,
            "tokens": record.tokens,
            "seconds": seconds,
        },
    )


class _Pack:
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
        wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
        stack = torch.stack([run.prompt.detach().to(backbone.device, wide) for run in runs])
        self._optimiser = Adafactor(stack, [run.lr for run in runs])
        self.active = list(range(len(runs)))
        self.records = [_Record(prompt=prompt.clone()) for prompt in stack]
        self._first_row: list[int] = []
        rows: list[Row] = []
        for task in self._tasks:
            self._first_row.append(len(rows))
            rows += backbone.encode_rows(task.name, task.train, text)
        self._table = backbone.table(rows)
        self._orders: dict[int, tuple[int, list[int]]] = {}
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
                record.losses.append(loss)
                record.steps += 1
                record.examples += len(rows)
                record.tokens += sum(self._table.input_lengths[row] for row in rows)
                record.tokens += sum(self._table.target_lengths[row] for row in rows)
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
            record.curve.append((step, score, math.fsum(record.losses) / len(record.losses)))
            record.losses.clear()
            # The first of equal scores stays; NaN (a metric without a value) beats nothing.
            better = score > record.dev or (math.isnan(record.dev) and not math.isnan(score))
            if better or record.best_step == 0 or self._config.select == "last":
                record.dev, record.best_step, record.prompt = score, step, prompt.clone()

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
        """Return the table rows of a task's batch at `step`: epochs of shuffled rows, cut up.

        The last batch of an epoch holds what is left of it.
        """
        known = self._tasks[task]
        size, n = self._config.batch_size, len(known.train)
        epoch, batch = divmod(step - 1, math.ceil(n / size))
        if self._orders.get(task, (-1, []))[0] != epoch:
            generator = numpy_generator(self._root, "order", known.name, known.seed, epoch)
            self._orders[task] = (epoch, generator.permutation(n).tolist())
        order = self._orders[task][1]
        return [self._first_row[task] + row for row in order[batch * size : (batch + 1) * size]]

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
