"""Losses of one episode that are independent of the engine: a quadratic, and a toy model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mpt.backbones import Backbone
from mpt.config import TextConfig
from mpt.gym.fewshot import FewShotTask


class Quadratic:
    """L(φ, row) = ½ (φ − c_row)ᵀ A_row (φ − c_row) on the flattened prompt, summed over rows."""

    def __init__(self, size: int):
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(8, size, size, generator=generator, dtype=torch.float64)
        self.curvature = root @ root.mT / size
        self.centre = torch.randn(8, size, generator=generator, dtype=torch.float64)

    def gradient(self, prompt: Tensor, rows: Sequence[int]) -> Tensor:
        return sum(
            (self.curvature[row] @ (prompt.flatten() - self.centre[row]) for row in rows),
            torch.zeros_like(prompt).flatten(),
        )

    def support(
        self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False
    ) -> Tensor:
        away = [prompt.flatten() - self.centre[row] for row in rows]
        terms = [
            0.5 * offset @ self.curvature[row] @ offset
            for offset, row in zip(away, rows, strict=True)
        ]
        return torch.stack(terms).sum()

    query = support

    def shares(self, rows: Sequence[int]) -> list[float]:
        return [1.0] * len(rows)  # a sum over rows, not a mean


class ModelLoss:
    """An independent loss of one item: it tokenises, collates and calls the backbone by itself.

    Args:
        double: use attention that can be differentiated twice for every pass.
    """

    def __init__(self, backbone: Backbone, task: FewShotTask, *, double: bool = False):
        self.backbone, self.double = backbone, double
        self.rows = {
            split: backbone.encode_rows(task.name, getattr(task, split), TextConfig())
            for split in ("train", "dev")
        }

    def support(
        self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False
    ) -> Tensor:
        return self._loss("train", prompt, rows, second_order)

    def query(self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False) -> Tensor:
        return self._loss("dev", prompt, rows, second_order)

    def shares(self, rows: Sequence[int]) -> list[float]:
        tokens = [len(self.rows["train"][row][1]) for row in rows]
        return [count / sum(tokens) for count in tokens]

    def _loss(self, split: str, prompt: Tensor, rows: Sequence[int], double: bool) -> Tensor:
        batch: Any = self.backbone.collate(
            [self.rows[split][row] for row in rows], [0] * len(rows)
        )
        if not (double or self.double):
            return self.backbone.run_losses(prompt[None], batch)[0]
        with self.backbone.second_order():
            return self.backbone.run_losses(prompt[None], batch)[0]
