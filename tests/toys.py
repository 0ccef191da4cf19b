"""Toy models and tasks that tests share: small enough for milliseconds, whole enough to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mpt.backbones import Row, load_backbone
from mpt.config import TextConfig
from mpt.testing import byte_tokenizer, save_checkpoint, save_toy_t5, toy_task

__all__ = ["OperationClock", "byte_tokenizer", "save_toy_t5", "save_trained_toy_t5", "toy_task"]


class OperationClock(TorchDispatchMode):
    """A clock that stands still but for torch's operations: the same every time, on any machine.

    Inside its block every operation, forward or back, takes ten microseconds, which is what one of
    a toy model takes. What passes between two calls is then work, and no pause of the machine.
    """

    def __init__(self) -> None:
        super().__init__()
        self._operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._operations += 1
        return func(*args, **(kwargs or {}))

    def __call__(self) -> float:
        """Return the seconds since it was made."""
        return 1e-5 * self._operations


def save_trained_toy_t5(path: Path, *, steps: int = 200) -> Path:
    """Save a toy T5 that answers toy tasks, but cannot know which first letter means which label.

    It has seen every input with both labels, so it guesses; a prompt can tell it. (Measured:
    training loss 0.23 without a prompt, 0.11 after 200 steps of prompt tuning.)
    """
    backbone = load_backbone(str(save_toy_t5(path, width=32)))
    model: Any = backbone.model.requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(steps):
        rows: list[Row] = []
        for task in range(16):
            labels = ("x", "y") if task % 2 else ("y", "x")
            toy = toy_task("toy", 100 * step + task, labels=labels, shots=1, test=1)
            rows += backbone.encode_rows("toy", toy.train, TextConfig())
        batch = backbone.collate(rows, [0] * len(rows))
        loss = model(
            input_ids=batch.input_ids, attention_mask=batch.input_mask, labels=batch.target_ids
        ).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return save_checkpoint(model, byte_tokenizer(), path)
