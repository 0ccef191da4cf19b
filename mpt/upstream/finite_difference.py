"""A Hessian-vector product from plain gradients, with a step that is chosen from their numbers.

Along v the support gradient is g(ε) = g_0 + ε a_1 + ε² a_2 + ε³ a_3 + …, and H v = a_1::

    H v ≈ (g(ε) − g(−ε)) / 2ε = a_1 + ε² a_3 + …

The step is a compromise: truncation grows with ε², rounding with 1/ε. Both can be read off the
gradients that are there anyway, g(ε), g(−ε) and g_0 of the inner step::

    r = |g(ε) + g(−ε) − 2 g_0| / |g(ε) − g(−ε)| = ε |a_2| / |a_1|,    truncation ≈ r²
    n = η |g_0| / |g(ε) − g(−ε)|,                                     rounding   ≈ n

with η the relative rounding of a gradient, a few units in the last place at best. If their sum
matters beside v, the step goes to where r² (ε′/ε)² + c n (ε/ε′) is least::

    ε′ = ε (c n / 2 r²)^{1/3},   c = 50

because a sharp model's gradient was measured to be that much rounder than η, and more: where the
product is many times v, float32 leaves 1e-3 to 1e-2 of error at any step. Everything is a function
of prompt, rows and v: a resumed trajectory takes the same steps.

Episodes that share passes choose their steps each for itself. One that is content takes no part in
the passes of those that try again, but with dropout it does: which units are dropped depends on
the whole pass.

Shapes: E episodes, P prompt tokens, d model width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpt.upstream.inner import InnerStep, pass_gradients

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.upstream.losses import StackLoss

TOLERANCE = 1e-4
"""Estimated error of v − α H v, relative to it, at which no better step is looked for."""
CAUTION = 50.0
"""c, by how much a gradient may be rounder than η where a step is chosen."""
ATTEMPTS = 3
"""Most steps tried; each costs two gradients."""


@dataclass(frozen=True)
class Attempt:
    """A difference at one step."""

    product: Tensor
    """H v [P, d]."""
    curving: float
    """r, see above."""
    noise: float
    """n, see above."""

    def error(self, caution: float = 1.0) -> float:
        """Return the estimated error of `product`, relative to it."""
        return self.curving**2 + caution * self.noise


def finite_difference_products(
    loss: StackLoss, step: InnerStep, v: Tensor, config: UpstreamConfig
) -> Tensor:
    """Return H v [E, P, d] for the support losses at φ_i, by central differences.

    Args:
        loss: the losses of prompts on rows of the episodes' items.
        step: the inner step: φ_i, its passes and its gradients.
        v: [E, P, d].
        config: its inner learning rate α tells how much the product matters, v − α H v being what
            is wanted; with dropout all rows of a pass are read again.
    """
    searches = [
        _Search(*own, config.inner_lr) for own in zip(step.prompts, step.gradients, v, strict=True)
    ]
    for _ in range(ATTEMPTS):
        if all(search.ended for search in searches):
            break
        out = [search.ended and config.dropout == 0 for search in searches]
        sides = _sides(loss, step, v, [search.epsilon for search in searches], out)
        for search, above, below in zip(searches, *sides, strict=True):
            if not search.ended:
                search.take(above, below)
    return torch.stack([search.product for search in searches])


def _sides(
    loss: StackLoss, step: InnerStep, v: Tensor, epsilons: list[float], out: list[bool]
) -> tuple[Tensor, Tensor]:
    """Return the support gradients [E, P, d] at φ_i ± ε v; 0 of episodes that are left out."""
    above, below = torch.zeros_like(v), torch.zeros_like(v)
    away = v.new_tensor(epsilons)[:, None, None] * v
    for one in step.passes:
        rows = [() if done else own for own, done in zip(one.rows, out, strict=True)]
        above += pass_gradients(loss, step.prompts + away, one, rows)
        below += pass_gradients(loss, step.prompts - away, one, rows)
    return above, below


class _Search:
    """Looks for the step ε of one episode.

    Args:
        prompt: φ_i [P, d].
        gradient: ∇L(φ_i) [P, d].
        v: [P, d].
        inner_lr: α.
    """

    def __init__(self, prompt: Tensor, gradient: Tensor, v: Tensor, inner_lr: float):
        self._gradient, self._v, self._inner_lr = gradient, v, inner_lr
        self._best: Attempt | None = None
        unit, length = torch.finfo(v.dtype).eps, float(v.norm())
        size = float(prompt.norm()) or 1.0
        # 1e-3 of the prompt's size in float32, in float64 less by the cube root of the precisions.
        scale = 1e-3 * (unit / torch.finfo(torch.float32).eps) ** (1 / 3)
        self._rounding = 4 * unit
        self.ended = length == 0
        self.epsilon = 0.0 if self.ended else scale * size / length

    @property
    def product(self) -> Tensor:
        """H v [P, d] at the best step so far; 0 where v is."""
        return torch.zeros_like(self._v) if self._best is None else self._best.product

    def take(self, above: Tensor, below: Tensor) -> None:
        """Take in the gradients [P, d] at φ_i ± ε v; go on to another step, or end."""
        attempt = self._attempt(above, below)
        if self._best is None or attempt.error(CAUTION) < self._best.error(CAUTION):
            self._best = attempt
        change = (CAUTION * attempt.noise / (2 * max(attempt.curving, 1e-6) ** 2)) ** (1 / 3)
        # Written so that a NaN ends the search: it is for the caller to report.
        again = self._best.error() * self._matters(self._best) > TOLERANCE
        if again and (change < 0.7 or change > 1.5):
            self.epsilon *= min(max(change, 1e-2), 1e2)
        else:
            self.ended = True

    def _matters(self, best: Attempt) -> float:
        """Return how large α H v is beside v − α H v."""
        rest = float((self._v - self._inner_lr * best.product).norm())
        return self._inner_lr * float(best.product.norm()) / max(rest, math.ulp(0.0))

    def _attempt(self, above: Tensor, below: Tensor) -> Attempt:
        """Return the central difference at the step ε."""
        odd = above - below
        change = max(float(odd.norm()), math.ulp(0.0))
        even = float((above + below - 2 * self._gradient).norm())
        noise = self._rounding * float(self._gradient.norm()) / change
        # What is rounding in the second difference says nothing about curving.
        return Attempt(odd / (2 * self.epsilon), max(even / change - noise, 0.0), noise)
