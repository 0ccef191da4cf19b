"""Adafactor over a stack of prompts, each with its own learning rate and second moments.

Shapes: R runs, P prompt tokens, d model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Adafactor:
    """Hugging Face's Adafactor with a fixed learning rate, one independent copy per prompt.

    The settings are the study's (recipe row 2): no parameter scaling, no relative step, no
    momentum. With g [P, d] the gradient of one run at its step t, β_t = 1 − t^decay_rate::

        row ← β_t row + (1 − β_t) mean_d(g² + ε)        [P]
        col ← β_t col + (1 − β_t) mean_P(g² + ε)        [d]
        u = g / sqrt(row/mean(row) ⊗ col)
        u ← u / max(1, rms(u)/clip_threshold)
        φ ← φ − lr · weight_decay · φ − lr · u

    Hugging Face's own class on a stack [R, P, d] would clip by the RMS over all runs; here every
    run is by itself, so a run does not depend on what it is packed with.
    (Shazeer & Stern 2018, https://arxiv.org/abs/1804.04235; `torch.optim.Adafactor` differs.)

    Args:
        prompts: [R, P, d], detached; updated in place.
        lrs: learning rate of each run.
    """

    def __init__(
        self,
        prompts: Tensor,
        lrs: Sequence[float],
        *,
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        weight_decay: float = 1e-5,
        eps: float = 1e-30,
    ):
        if prompts.dim() != 3 or len(lrs) != prompts.shape[0] or prompts.requires_grad:
            raise ValueError(
                f"prompts are {tuple(prompts.shape)} with {len(lrs)} learning rates, but must be "
                "a detached [R, P, d] with R learning rates"
            )
        r, p, d = prompts.shape
        self.prompts = prompts
        self._clip, self._decay_rate = clip_threshold, decay_rate
        self._weight_decay, self._eps = weight_decay, eps
        self._lrs = torch.tensor(list(lrs), dtype=torch.float64, device=prompts.device)
        self._steps = torch.zeros(r, dtype=torch.int64, device=prompts.device)
        self._row = prompts.new_zeros(r, p)
        self._col = prompts.new_zeros(r, d)

    @torch.no_grad()
    def step(self, grads: Tensor) -> None:
        """Take one step of every run in place.

        Args:
            grads: gradient of every run's loss by its own prompt [R, P, d].
        """
        update = self.update(grads)
        self.prompts.sub_(self._decay(grads.dtype) * self.prompts).sub_(update)

    def stepped(self, prompts: Tensor, grads: Tensor) -> Tensor:
        """Return where one step leads from `prompts` [R, P, d]; `self.prompts` stay.

        It can be differentiated by both arguments, through the moments of earlier steps too.
        """
        update = self.update(grads)
        return prompts - self._decay(grads.dtype) * prompts - update

    def update(self, grads: Tensor) -> Tensor:
        """Return lr · u [R, P, d] of the next step, which the moments have then taken in."""
        self._steps = self._steps + 1
        # Coefficients are formed in float64, as Python floats are in the reference.
        old = 1.0 - self._steps.to(torch.float64).pow(self._decay_rate)
        keep, take = (c.to(grads.dtype)[:, None] for c in (old, 1.0 - old))
        lr = self._lrs.to(grads.dtype)[:, None, None]
        squared = grads.square() + self._eps
        self._row = self._row * keep + take * squared.mean(2)
        self._col = self._col * keep + take * squared.mean(1)
        by_row = (self._row / self._row.mean(1, keepdim=True)).rsqrt()
        update = by_row[:, :, None] * self._col.rsqrt()[:, None, :] * grads
        rms = torch.linalg.vector_norm(update, dim=(1, 2), keepdim=True) / update[0].numel() ** 0.5
        scale = lr / (rms / self._clip).clamp(min=1.0)
        return update * scale if torch.is_grad_enabled() else update.mul_(scale)

    def _decay(self, dtype: torch.dtype) -> Tensor:
        return (self._weight_decay * self._lrs).to(dtype)[:, None, None]

    def set_lrs(self, lrs: Sequence[float]) -> None:
        """Take other learning rates, one a run, from the next step on."""
        self._lrs = torch.tensor(list(lrs), dtype=torch.float64, device=self.prompts.device)

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with these runs only, in this order; `prompts` becomes a new, smaller stack."""
        index = torch.tensor(list(indices), dtype=torch.int64, device=self.prompts.device)
        self.prompts = self.prompts[index]
        self._lrs, self._steps = self._lrs[index], self._steps[index]
        self._row, self._col = self._row[index], self._col[index]

    def add(self, prompts: Tensor, lrs: Sequence[float]) -> None:
        """Take these runs in behind the others, before their first step; `prompts` is a new stack.

        Args:
            prompts: [N, P, d].
            lrs: learning rate of each.
        """
        new = Adafactor(prompts.to(self.prompts), lrs)
        self.prompts = torch.cat([self.prompts, new.prompts])
        self._lrs, self._steps = (
            torch.cat([self._lrs, new._lrs]),
            torch.cat([self._steps, new._steps]),
        )
        self._row, self._col = torch.cat([self._row, new._row]), torch.cat([self._col, new._col])

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the prompts: copies of the tensors of this optimiser."""
        return {
            "lrs": self._lrs.clone(),
            "steps": self._steps.clone(),
            "row": self._row.clone(),
            "col": self._col.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave for a stack of the same shape."""
        own = {"lrs": self._lrs, "steps": self._steps, "row": self._row, "col": self._col}
        for name, tensor in own.items():
            if name not in state or state[name].shape != tensor.shape:
                raise ValueError(f"optimiser state {name!r} must have the shape {tensor.shape}")
        for name, tensor in own.items():
            tensor.copy_(state[name])
