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

Shapes: P prompt tokens, d model width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpt.upstream.inner import InnerStep, pass_gradient

if TYPE_CHECKING:
    from mpt.upstream.losses import EpisodeLoss

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


def finite_difference_product(
    loss: EpisodeLoss, step: InnerStep, v: Tensor, inner_lr: float
) -> Tensor:
    """Return H v [P, d] for the support loss at φ_i, by central differences.

    Args:
        loss: the loss of a prompt on rows of the episode's item.
        step: the inner step: φ_i, its passes and its gradient.
        v: [P, d].
        inner_lr: α; it tells how much the product matters, v − α H v being what is wanted.
    """
    length = float(v.norm())
    if length == 0:
        return torch.zeros_like(v)
    unit = torch.finfo(v.dtype).eps
    size = float(step.prompt.norm()) or 1.0
    # 1e-3 of the prompt's size in float32, in float64 less by the cube root of the precisions.
    epsilon = 1e-3 * (unit / torch.finfo(torch.float32).eps) ** (1 / 3) * size / length
    best: Attempt | None = None
    for _ in range(ATTEMPTS):
        attempt = _difference(loss, step, v, epsilon, 4 * unit)
        if best is None or attempt.error(CAUTION) < best.error(CAUTION):
            best = attempt
        matters = (
            inner_lr
            * float(best.product.norm())
            / max(float((v - inner_lr * best.product).norm()), math.ulp(0.0))
        )
        # Written so that a NaN ends the search: it is for the caller to report.
        if not best.error() * matters > TOLERANCE:
            break
        change = (CAUTION * attempt.noise / (2 * max(attempt.curving, 1e-6) ** 2)) ** (1 / 3)
        if not (change < 0.7 or change > 1.5):
            break
        epsilon *= min(max(change, 1e-2), 1e2)
    assert best is not None
    return best.product


def _difference(
    loss: EpisodeLoss, step: InnerStep, v: Tensor, epsilon: float, rounding: float
) -> Attempt:
    """Take the central difference at the step ε."""
    above = torch.zeros_like(v)
    below = torch.zeros_like(v)
    for one in step.passes:
        above += pass_gradient(loss, step.prompt + epsilon * v, one)
        below += pass_gradient(loss, step.prompt - epsilon * v, one)
    odd = above - below
    change = max(float(odd.norm()), math.ulp(0.0))
    even = float((above + below - 2 * step.gradient).norm())
    noise = rounding * float(step.gradient.norm()) / change
    # What is rounding in the second difference says nothing about curving.
    return Attempt(odd / (2 * epsilon), max(even / change - noise, 0.0), noise)
