"""Engines for MAML's second-order term; all give the same gradient, at different cost.

With φ_i the prompts of the inner loop and H_i = ∇²L(φ_i, S_{i+1}), the meta-gradient is unrolled
backwards (for k = 1 it is paper Eq. 4, g_Q(φ′) − α H_S g_Q(φ′))::

    v_k = ∇L(φ_k, Q),   v_i = v_{i+1} − α H_i v_{i+1},   g = v_0

"finite_difference" and "exact" redo one inner step at a time from the stored φ_i, so their memory
does not grow with k:

- **finite_difference**: H_i v from two more plain gradients, at first-order memory and with fused
  attention (`mpt.upstream.finite_difference`). Weights have to be float32 or wider: in bfloat16
  the difference is lost in rounding (measured 9 % to 99 % off), and it is refused there.
- **exact**: H_i v by reverse over reverse, one example at a time; attention that can be
  differentiated twice, so slower.
- **unrolled**: one graph through all inner steps. Fastest for a small model and few steps; its
  memory grows with k. The only one that goes through inner steps of Adafactor.
- **higher**: the same graph built by the library that the paper names; the reference. (The library
  copies what it patches; here that is the prompt alone, and not the whole model as is usual.)

Shapes: P prompt tokens, d model width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import higher
import torch
from torch import Tensor, nn

from mpt.errors import UsageError
from mpt.optim import Adafactor
from mpt.upstream.finite_difference import finite_difference_product
from mpt.upstream.inner import InnerStep, adapt, query_gradient

if TYPE_CHECKING:
    from mpt.backbones.base import Backbone
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import EpisodeLoss

SMALL = 50_000_000
"""Weights up to which "auto" takes the fastest engine instead of the leanest."""

Engine = Callable[
    ["EpisodeLoss", Tensor, "Episode", "UpstreamConfig"],
    tuple[Tensor, float],
]
"""(loss, prompt [P, d], episode, config) → (meta-gradient [P, d], query loss)."""


def finite_difference(
    loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> tuple[Tensor, float]:
    """Return the meta-gradient [P, d] by central differences, and the query loss."""
    path = adapt(loss, prompt, episode, config)
    v, query = query_gradient(loss, path.prompt, episode)
    for step in reversed(path.steps):
        v = v - config.inner_lr * finite_difference_product(loss, step, v, config.inner_lr)
    return v, query


def exact(
    loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> tuple[Tensor, float]:
    """Return the meta-gradient [P, d] by reverse over reverse, and the query loss."""
    path = adapt(loss, prompt, episode, config, by_row=True)
    v, query = query_gradient(loss, path.prompt, episode)
    for step in reversed(path.steps):
        v = v - config.inner_lr * exact_product(loss, step, v)
    return v, query


def exact_product(loss: EpisodeLoss, step: InnerStep, v: Tensor) -> Tensor:
    """Return H_i v [P, d] of an inner step, pass by pass: ∇(∇L · v)."""
    product = torch.zeros_like(v)
    for one in step.passes:
        leaf = step.prompt.detach().requires_grad_()
        with one.random.again():
            value = loss.support(leaf, one.rows, second_order=True)
        (slope,) = torch.autograd.grad(value, leaf, create_graph=True)
        product += one.share * torch.autograd.grad(slope, leaf, v)[0]
    return product


def unrolled(
    loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> tuple[Tensor, float]:
    """Return the meta-gradient [P, d] through the graph of all inner steps, and the query loss."""
    start = prompt.detach().requires_grad_()
    adapted = start
    adafactor = Adafactor(start.detach()[None], [config.inner_lr])
    for rows in episode.support:
        inner = loss.support(adapted, rows, second_order=True)
        (slope,) = torch.autograd.grad(inner, adapted, create_graph=True)
        if config.inner_optimiser == "adafactor":
            adapted = adafactor.stepped(adapted[None], slope[None])[0]
        else:
            adapted = adapted - config.inner_lr * slope
    query = loss.query(adapted, episode.query)
    (gradient,) = torch.autograd.grad(query, start)
    return gradient, float(query.detach())


class _Holder(nn.Module):
    """A module whose only parameter is the prompt, for `higher` to patch."""

    def __init__(self, prompt: Tensor):
        super().__init__()
        self.prompt = nn.Parameter(prompt.detach().clone())

    def forward(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        return loss(self.prompt)


def by_higher(
    loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> tuple[Tensor, float]:
    """Return the meta-gradient [P, d] as `higher` computes it, and the query loss."""
    holder = _Holder(prompt)
    sgd = torch.optim.SGD(holder.parameters(), lr=config.inner_lr)
    with higher.innerloop_ctx(holder, sgd, copy_initial_weights=False) as (patched, inner_sgd):
        for rows in episode.support:
            value = patched(lambda phi, rows=rows: loss.support(phi, rows, second_order=True))
            inner_sgd.step(value)
        query = patched(lambda phi: loss.query(phi, episode.query, second_order=True))
        (gradient,) = torch.autograd.grad(query, holder.prompt)
    return gradient, float(query.detach())


ENGINES: Mapping[str, Engine] = {
    "finite_difference": finite_difference,
    "exact": exact,
    "unrolled": unrolled,
    "higher": by_higher,
}
"""Value of `UpstreamConfig.second_order` → engine."""


def resolve(config: UpstreamConfig, backbone: Backbone) -> UpstreamConfig:
    """Return the settings with "auto" replaced by the engine that suits the backbone.

    The choice depends on dtype and size alone, both of which are in the backbone's digest: a
    trajectory is the same on every device.

    - below float32: "exact", because differences of gradients are lost in rounding;
    - float64: "exact", because it is there for checks that need all digits;
    - inner steps of Adafactor: "unrolled";
    - float32: "unrolled" up to `SMALL` weights (fastest), "finite_difference" above (leanest).

    Raises:
        UsageError: finite differences are asked for on weights that are too coarse for them, or
            the engine reads row by row what depends on the padding of a batch, or it cannot
            differentiate the inner optimiser.
    """
    resolved = _engine(config, backbone)
    if resolved.second_order == "exact" and config.method == "maml" and backbone.padding_matters:
        raise UsageError(
            f"second_order is {config.second_order!r}, but must be 'unrolled' or 'higher' with "
            "position 'append_padded': \"exact\" reads row by row, and rows depend on the padding "
            "of their batch"
        )
    return resolved


def _engine(config: UpstreamConfig, backbone: Backbone) -> UpstreamConfig:
    """Return the settings with "auto" replaced, see `resolve`."""
    if config.inner_optimiser == "adafactor" and config.method == "maml":
        if config.second_order not in ("auto", "unrolled"):
            raise UsageError(
                f"second_order is {config.second_order!r}, but must be 'unrolled' or 'auto' with "
                "inner_optimiser 'adafactor': the other engines know the steps of SGD only"
            )
        return dataclasses.replace(config, second_order="unrolled")
    coarse = torch.finfo(backbone.dtype).eps > torch.finfo(torch.float32).eps
    if config.second_order == "finite_difference" and coarse and config.method == "maml":
        raise UsageError(
            f"second_order is 'finite_difference', but must be 'exact' or 'auto' on a backbone in "
            f"{str(backbone.dtype).removeprefix('torch.')}: differences of its gradients are lost "
            "in rounding"
        )
    if config.second_order != "auto":
        return config
    if backbone.dtype != torch.float32:
        return dataclasses.replace(config, second_order="exact")
    weights = sum(weight.numel() for weight in backbone.model.parameters())
    choice = "unrolled" if weights <= SMALL else "finite_difference"
    return dataclasses.replace(config, second_order=choice)
