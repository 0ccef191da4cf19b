"""The loss of a start on a target's own rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mpt.gym.fewshot import some_rows

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.gym.fewshot import Example, FewShotTask
    from mpt.study.study import OpenStudy


def lowest(losses: Mapping[str, float]) -> str:
    """Return the name of the lowest loss, the first of equal ones; one that is NaN never wins."""
    return min(losses, key=lambda name: math.inf if math.isnan(losses[name]) else losses[name])


def start_loss(study: OpenStudy, task: FewShotTask, prompt: Tensor) -> tuple[float, int, int]:
    """Return the loss of a start on a target's own rows, the rows, and their target tokens.

    The loss is the mean over the target tokens of all train rows and of the dev rows that the
    recipe uses (`max_dev`). They pass in batches as large as those of tuning, which fit wherever
    tuning does, so that the number depends on nothing else. A prompt that stands first is read
    once for all of them.

    Args:
        study: backbone and recipe.
        task: the target's few-shot sample; its test rows are not read.
        prompt: the start [P, d].
    """
    import torch

    backbone, down = study.backbone, study.config.downstream
    rows = backbone.encode_rows(task.name, own_rows(study, task), study.config.text)
    prompts = prompt[None].to(backbone.device)
    total, tokens = 0.0, 0
    with torch.no_grad(), backbone.fixed(prompts):
        for first in range(0, len(rows), down.batch_size):
            part = rows[first : first + down.batch_size]
            batch = backbone.collate(part, [0] * len(part))
            losses, counts = backbone.row_losses(prompts, batch)
            total += float(losses.double().sum())
            tokens += int(counts.sum())
    return total / tokens, len(rows), tokens


def own_rows(study: OpenStudy, task: FewShotTask) -> list[Example]:
    """Return the rows by which a target chooses: those it is tuned and selected with."""
    down = study.config.downstream
    name, stratified = f"{task.name} dev", down.sample == "stratified"
    return [*task.train, *some_rows(task.dev, down.max_dev, stratified=stratified, name=name)]
