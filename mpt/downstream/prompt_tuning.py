"""Prompt tuning of many runs at once: R prompts ride through one frozen model.

A run is (task, data seed, learning rate, starting prompt). A run's result does not depend on what
it is packed with, up to rounding: in float64 the update differs by less than 1e-10 after 50 steps.
In float32 that is 1e-7 to 1e-5, but far more where gradients nearly vanish, because Adafactor
divides them by their size and so amplifies rounding. The same pack gives the same bits again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from mpt.backbones.base import Backbone
from mpt.downstream.pack import Pack, Record, TuningRun

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig, TextConfig

__all__ = ["TuningResult", "TuningRun", "tune"]


@dataclass(frozen=True, eq=False)
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
    """The selected prompt [P, d], on the CPU; if the run diverged, the one selected until then.
    [0, d] from fine-tuning."""
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
    pack = Pack(backbone, runs, config, text, root_seed)
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
        result_of(record, test, seconds) for record, test in zip(pack.records, tested, strict=True)
    ]


def result_of(record: Record, test: float, seconds: float) -> TuningResult:
    """Return what a finished run gave, from its record, its test score and its time."""
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
