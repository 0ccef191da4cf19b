"""Prompt tuning of many runs at once: R prompts ride through one frozen model.

A run is (task, data seed, learning rate, starting prompt). A run's result does not depend on what
it is packed with, up to rounding: in float64 the update differs by less than 1e-10 after 50 steps.
In float32 that is 1e-7 to 1e-5, but far more where gradients nearly vanish, because Adafactor
divides them by their size and so amplifies rounding. The same runs in the same order and with the
same limits give the same bits again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mpt.backbones.base import Backbone
from mpt.downstream.limits import PackLimits
from mpt.downstream.queue import TuningQueue
from mpt.downstream.record import TuningResult, TuningRun

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig, TextConfig

__all__ = ["TuningResult", "TuningRun", "tune"]


def tune(
    backbone: Backbone,
    runs: Sequence[TuningRun],
    config: DownstreamConfig,
    text: TextConfig,
    root_seed: int,
    on_progress: Callable[[int, int], None] | None = None,
    limits: PackLimits | None = None,
) -> list[TuningResult]:
    """Tune all runs, as many side by side as the limits allow, and test each selected prompt once.

    The data order of a run depends on root seed, task and data seed only: it is the same for every
    learning rate and starting prompt, so that these are compared on common random numbers. With
    dropout, each run has forward passes of its own, so that its masks do not depend on the pack.

    Args:
        backbone: the frozen model.
        runs: any mixture of tasks; runs of one task side by side waste the least padding.
        config: the recipe; its `lrs` are not read (each run has its own).
        text: lengths of inputs and targets.
        root_seed: root of data order and dropout.
        on_progress: called with (steps done, steps in all), summed over runs, after every step; a
            run that ends early counts as done. What it raises ends the tuning.
        limits: what is packed; None: `default_limits` of the backbone's device.

    Returns:
        One result per run, in the same order. A run whose loss or prompt stops being finite ends
        alone, with status "diverged".
    """
    queue = TuningQueue(backbone, runs, config, text, root_seed, limits)
    total = queue.progress.steps_left

    def tell() -> None:
        if on_progress is not None:
            on_progress(total - queue.progress.steps_left, total)

    return [result for _, result in queue.advance(on_step=tell)]
