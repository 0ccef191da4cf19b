"""Fine-tuning (FT): all weights are trained on one target task, without any prompt.

The path is that of prompt tuning with a prompt of 0 tokens: same rows and batches, same loss, same
evaluation, selection and result. Every run trains a copy of the backbone, float32 at least; the
backbone itself is never touched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mpt.backbones.base import Backbone
from mpt.backbones.rows import length_groups
from mpt.downstream.data import TrainRows
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.limits import default_limits
from mpt.downstream.record import Record, TuningResult, TuningRun
from mpt.downstream.stopping import stop_reasons
from mpt.errors import UsageError
from mpt.optim import Adafactor
from mpt.seeds import derive

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig, TextConfig


def no_prompt(backbone: Backbone) -> Tensor:
    """Return the prompt [0, d] that a fine-tuning run starts from."""
    return torch.zeros(0, backbone.d_model)


def fine_tune(
    backbone: Backbone,
    runs: Sequence[TuningRun],
    config: DownstreamConfig,
    text: TextConfig,
    root_seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[TuningResult]:
    """Fine-tune one copy of the backbone per run, one after the other.

    Args:
        backbone: where every run starts; bfloat16 weights are widened, so load float32 ones.
        runs: task and learning rate; each has the prompt of `no_prompt`.
        config: the recipe; its `lrs` are not read (each run has its own).
        text: lengths of inputs and targets.
        root_seed: root of data order and dropout, both as in prompt tuning.
        on_progress: called with (steps done, steps in all) over all runs after every step.

    Returns:
        One result per run, in the same order; it depends on that run alone.

    Raises:
        UsageError: a run has a prompt, or `catch_up` is set: its runs do not go on side by side.
    """
    if config.catch_up is not None:
        raise UsageError(
            f"catch_up is {config.catch_up}, but must be None in fine-tuning, whose runs come one "
            "after the other; use patience"
        )
    for run in runs:
        if len(run.prompt) > 0:
            raise UsageError(
                f"prompt of {run.task.name} has {len(run.prompt)} tokens, but fine-tuning has none"
            )
    steps = [config.steps_on(len(run.task.train)) for run in runs]
    results = []
    for index, run in enumerate(runs):
        tuned = _FineTuning(backbone.trainable_copy(), run, config, text, root_seed)
        for step in range(1, steps[index] + 1):
            if tuned.going:
                tuned.advance(step, last=steps[index])
            if on_progress is not None:
                on_progress(sum(steps[:index]) + step, sum(steps))
        results.append(tuned.result())
    return results


class _FineTuning:
    """One run: a copy of the model, its optimisers, data and record."""

    def __init__(
        self,
        backbone: Backbone,
        run: TuningRun,
        config: DownstreamConfig,
        text: TextConfig,
        root_seed: int,
    ):
        self._backbone, self._task, self._config = backbone, run.task, config
        self._text, self._root = text, root_seed
        self._started = time.perf_counter()
        self._max_tokens = default_limits(backbone.device).tokens
        self._prompts = no_prompt(backbone).to(backbone.device)[None]  # [1, 0, d]
        named = list(backbone.model.named_parameters())
        self._weights = [weight for _, weight in named]
        self._optimisers = [
            _adafactor(weight, run.lr, decays=config.bias_decay or "bias" not in name)
            for name, weight in named
        ]
        self._rows = TrainRows(backbone, [run.task], text, root_seed, config)
        self._dev = self._evaluator("dev")
        self._selected: dict[str, Tensor] | None = None
        self.record = Record(prompt=run.prompt)

    @property
    def going(self) -> bool:
        """Whether the run has neither diverged nor been stopped."""
        return not self.record.diverged and self.record.stopped is None

    def advance(self, step: int, last: int) -> None:
        """Take step number `step` of `last` and evaluate where it is due."""
        self.step(step)
        if step % self._config.eval_every == 0 or step == last:
            self.evaluate(step)
            going = step < last and not self.record.diverged
            (self.record.stopped,) = stop_reasons([self.record], [going], self._config)

    def result(self) -> TuningResult:
        """Test the selected weights; return what the run gave."""
        test = self.test()
        self.record.seconds = time.perf_counter() - self._started
        return self.record.result(test)

    def step(self, step: int) -> None:
        """Take step number `step` (from 1), or note that the run has diverged."""
        rows = self._rows.batch(0, step)
        loss = self._backward(rows, step)
        grads = [weight.grad for weight in self._weights if weight.grad is not None]
        finite = math.isfinite(loss) and bool(
            torch.stack([grad.isfinite().all() for grad in grads]).all()
        )
        self.record.diverged = not finite
        if finite:
            self.record.count(loss, rows, self._rows.table)
            for weight, optimiser in zip(self._weights, self._optimisers, strict=True):
                if weight.grad is not None:
                    optimiser.step(weight.grad.reshape(optimiser.prompts.shape))
        for weight in self._weights:  # a model would look for all of its weights first
            weight.grad = None

    def _backward(self, rows: Sequence[int], step: int) -> float:
        """Leave the gradient of the rows' loss in the weights; return that loss."""
        table = self._rows.table
        inputs, targets = table.input_lengths, table.target_lengths
        tokens = sum(targets[row] for row in rows)
        weights = self._rows.weights(rows)
        seed = derive(self._root, "dropout", "downstream", self._task.name, self._task.seed, step)
        total = 0.0
        with self._backbone.dropout(self._config.dropout, seed):
            for group in length_groups([inputs[n] + targets[n] for n in rows], self._max_tokens):
                batch = table.batch([rows[n] for n in group], [0] * len(group))
                nll, _ = self._backbone.row_losses(self._prompts, batch)
                if self._config.loss_parts == 1:
                    loss = nll.sum() / tokens
                else:
                    loss = (nll * nll.new_tensor([weights[n] for n in group])).sum()
                loss.backward()
                total += float(loss.detach())
        return total

    def evaluate(self, step: int) -> None:
        """Score the weights on dev and copy them if they are to be selected."""
        if self.record.diverged:
            return
        (score,) = self._dev.scores(self._prompts, [0])
        if self.record.note(step, score, self._config.select):
            # A copy: the weights themselves go on changing (recipe row 13).
            state = self._backbone.model.state_dict()
            self._selected = {name: value.to("cpu", copy=True) for name, value in state.items()}

    def test(self) -> float:
        """Return the test score of the selected weights, NaN for a diverged run."""
        if self.record.diverged or self._selected is None:
            return math.nan
        self._backbone.model.load_state_dict(self._selected)
        (score,) = self._evaluator("test").scores(self._prompts, [0])
        return score

    def _evaluator(self, split: str) -> Evaluator:
        return Evaluator(
            self._backbone, [self._task], split, self._config, self._text, self._max_tokens
        )


def _adafactor(weight: nn.Parameter, lr: float, *, decays: bool) -> Adafactor:
    """Return the optimiser of one weight, which changes it in place, with weight decay or without.

    A matrix is a stack of one [P, d]. A vector is one [1, d]: its factored second moment is then
    the plain one, as Hugging Face's Adafactor has it for vectors.
    """
    data = weight.detach()
    stack = data.view(1, -1, data.shape[-1])
    return Adafactor(stack, [lr]) if decays else Adafactor(stack, [lr], weight_decay=0.0)
