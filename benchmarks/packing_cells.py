"""What `packing.py` measures: the work, one cell of its table at a time.

A *run-step* is one training step of one run. R runs of a pack that take n steps each make R·n.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from flops import batch_flops
from measuring import now, peak, reset_peak
from random_models import open_backbone
from sides.peft_tuning import PeftTuner
from time_shares import Profile
from torch import Tensor

from mpt.backbones import Backbone, Batch
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.data import BatchOrder
from mpt.downstream.limits import default_limits
from mpt.downstream.prompt_tuning import TuningRun, tune
from mpt.gym.fewshot import Example, FewShotTask
from mpt.optim import Adafactor

RATES = (0.5, 0.4, 0.3, 0.2)
"""Learning rates of the paper: so many runs share a task's rows."""
ROOT = 42


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What all cells share."""

    backbone: str
    device: str
    dtype: str
    input_length: int
    """Most input tokens."""
    shortest: float
    """Fewest input tokens, as a share of the most; lengths are uniform between them."""
    target_length: int
    prompt: int
    batch: int
    run_steps: int
    """Timed run-steps of a cell, roughly: a pack takes at least 3 steps."""
    pass_tokens: int | None
    """Most padded tokens of a forward pass; None: the library's limit for the device."""

    def open(self) -> Backbone:
        """Return the backbone."""
        return open_backbone(self.backbone, self.device, getattr(torch, self.dtype))

    def steps(self, runs: int) -> int:
        """Return the timed steps of a pack."""
        return max(3, -(-self.run_steps // runs))


@dataclasses.dataclass
class Count:
    """What went through the model."""

    rows: int = 0
    useful: int = 0
    """Tokens of prompts, inputs and targets."""
    padded: int = 0
    """The same with the padding."""
    flops: int = 0

    def add(self, backbone: Backbone, prompts: Tensor, batch: Batch) -> None:
        """Count a training pass."""
        p, s, t = prompts.shape[1], batch.input_ids.shape[1], batch.target_ids.shape[1]
        self.rows += len(batch)
        tokens = int(batch.input_mask.sum() + batch.target_mask.sum())
        read = len(batch.run.unique()) if backbone.shares_prompts else len(batch)
        self.useful += read * p + tokens
        self.padded += read * p + len(batch) * (s + t)
        self.flops += batch_flops(backbone, prompts, batch)


def make_runs(backbone: Backbone, setting: Setting, runs: int) -> list[TuningRun]:
    """Return runs on tasks of random words: every task's rates stand side by side."""
    candidates = [backbone.decode([token]) for token in backbone.frequent_ids(1000)]
    words = [word for word in candidates if len(backbone.word_ids(f" {word}")) == 1]
    words = words or [word for word in candidates if word]
    prompt = backbone.embeddings()[backbone.frequent_ids(setting.prompt)].cpu()
    tasks = [_task(setting, words, number) for number in range(-(-runs // len(RATES)))]
    pairs = [(task, lr) for task in tasks for lr in RATES]
    return [TuningRun(task, lr, prompt) for task, lr in pairs[:runs]]


def _task(setting: Setting, words: list[str], number: int) -> FewShotTask:
    rng = np.random.default_rng([ROOT, number])
    longest = max(1, setting.input_length - 2)  # the task's name and the end mark

    def example() -> Example:
        count = int(rng.integers(max(1, int(setting.shortest * longest)), longest + 1))
        text = " ".join(rng.choice(words, count))
        return Example(text, (" ".join(rng.choice(words, max(1, setting.target_length - 1))),))

    train = tuple(example() for _ in range(4 * setting.batch))
    one = (example(),)
    return FewShotTask("random", 0, number, "ACC", train, one, one, f"random {number}")


def recipe(setting: Setting, steps: int) -> tuple[DownstreamConfig, TextConfig]:
    """Return settings under which next to nothing is evaluated, and only after the last step."""
    config = DownstreamConfig(
        batch_size=setting.batch,
        steps=steps,
        eval_every=steps,
        max_dev=1,
        max_test=1,
        max_generated=1,
    )
    text = TextConfig(max_input=setting.input_length, max_target=max(2, setting.target_length))
    return config, text


def train(backbone: Backbone, setting: Setting, runs: int, steps: int) -> None:
    """Tune a pack of runs."""
    usual = default_limits(setting.device)
    limits = dataclasses.replace(
        usual, runs=runs, tokens=setting.pass_tokens or usual.tokens, source="benchmark"
    )
    config, text = recipe(setting, steps)
    tune(backbone, make_runs(backbone, setting, runs), config, text, ROOT, limits=limits)


def packed_rate(backbone: Backbone, setting: Setting, runs: int) -> float:
    """Return run-steps a second, from the end of the first step to the end of the last."""
    ends: list[tuple[float, int]] = []
    step = Adafactor.step

    def timed(optimiser: Adafactor, grads: Tensor) -> None:
        step(optimiser, grads)
        ends.append((now(setting.device), len(optimiser.prompts)))

    with mock.patch.object(Adafactor, "step", timed):
        train(backbone, setting, runs, setting.steps(runs) + 1)
    return sum(active for _, active in ends[1:]) / (ends[-1][0] - ends[0][0])


def plain_rate(backbone: Backbone, setting: Setting) -> float:
    """Return steps a second of one run as PEFT and transformers do it, the first step left out."""
    run = make_runs(backbone, setting, 1)[0]
    config, text = recipe(setting, 1)
    model: Any = backbone.model
    pad = model.config.pad_token_id or 0
    rows = backbone.encode_rows(run.task.name, run.task.train, text)
    order, ends = BatchOrder(ROOT, config.batch_size), []
    plain = PeftTuner(model, setting.prompt, pad)
    plain.start(run.prompt, run.lr)
    for step in range(1, setting.run_steps + 2):
        plain.step([rows[n] for n in order.rows(run.task, step)])
        ends.append(now(setting.device))
    return setting.run_steps / (ends[-1] - ends[0])


def counted(backbone: Backbone, setting: Setting, runs: int) -> Count:
    """Return what a whole cell puts through the model; it warms the cell up as well."""
    count = Count()
    passes = backbone.row_losses

    def watched(prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        count.add(backbone, prompts, batch)
        return passes(prompts, batch)

    with _instead(backbone, "row_losses", watched):
        train(backbone, setting, runs, setting.steps(runs) + 1)
    return count


def shares(backbone: Backbone, setting: Setting, runs: int) -> dict[str, float]:
    """Return where the time of a pack's steps goes, see `time_shares`."""
    profile = Profile(backbone, setting.device, 3)
    with profile.watching():
        train(backbone, setting, runs, 4)
    return profile.shares()


def memory(setting: Setting, runs: int, backbone: Backbone | None = None) -> int:
    """Return the bytes that two steps of a pack need beyond the loaded model."""
    backbone = backbone or setting.open()
    # A small step first, so that libraries and their buffers are in place.
    small = dataclasses.replace(setting, input_length=8, target_length=2, batch=1)
    train(backbone, small, 1, 1)
    before = reset_peak(setting.device)
    train(backbone, setting, runs, 2)
    return peak(setting.device) - before


@contextlib.contextmanager
def compiled(backbone: Backbone, mode: str) -> Iterator[Callable[[bool], None]]:
    """Compile encoder and decoder (or the transformer); yield a switch for it, off at first.

    Only training passes are compiled: evaluation, without gradients, would be compiled anew.
    """
    model: Any = backbone.model
    decoder_only = not model.config.is_encoder_decoder
    parts = [model.transformer] if decoder_only else [model.get_encoder(), model.get_decoder()]
    for part in parts:
        part.compile(mode=mode, dynamic=True)
    calls = [part._compiled_call_impl for part in parts]
    passes, use = backbone.row_losses, False

    def turn(on: bool) -> None:
        nonlocal use
        use = on

    def switched(prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        try:
            for part, call in zip(parts, calls, strict=True):
                part._compiled_call_impl = call if use else None
            return passes(prompts, batch)
        finally:
            for part in parts:
                part._compiled_call_impl = None

    for part in parts:
        part._compiled_call_impl = None
    with _instead(backbone, "row_losses", switched):
        yield turn


@contextlib.contextmanager
def _instead(backbone: Backbone, name: str, method: Any) -> Iterator[None]:
    """Let a backbone have another method for a while."""
    setattr(backbone, name, method)
    try:
        yield
    finally:
        delattr(backbone, name)
