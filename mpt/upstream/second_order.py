"""Engines for MAML's second-order term; all give the same gradient, at different cost.

With φ_i the prompts of the inner loop and H_i = ∇²L(φ_i, S_{i+1}), the meta-gradient is unrolled
backwards (for k = 1 it is paper Eq. 4, g_Q(φ′) − α H_S g_Q(φ′))::

    v_k = ∇L(φ_k, Q),   v_i = v_{i+1} − α H_i v_{i+1},   g = v_0

"finite_difference" and "exact" redo one inner step at a time from the stored φ_i, so their memory
does not grow with k:

- **finite_difference**: H_i v from two more plain gradients, at first-order memory and with fused
  attention (`mpt.upstream.finite_difference`). Weights have to be float32 or wider: in bfloat16
  the difference is lost in rounding (measured 9 % to 99 % off), and it is refused there.
- **exact**: H_i v by reverse over reverse, one example of each episode at a time; attention that
  can be differentiated twice, so slower.
- **unrolled**: one graph through all inner steps. Fastest for a small model and few steps; its
  memory grows with k. The only one that goes through inner steps of Adafactor.
- **higher**: the same graph built by the library that the paper names; the reference. (The library
  copies what it patches; here that is the prompt alone, and not the whole model as is usual.)

Each takes E episodes in shared passes, and gives each its own gradient.

Shapes: E episodes, P prompt tokens, d model width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import higher
import torch
from torch import Tensor, nn

from mpt.errors import UsageError
from mpt.optim import Adafactor
from mpt.upstream.finite_difference import finite_difference_products
from mpt.upstream.inner import InnerStep, adapt_stack, query_gradients
from mpt.upstream.one_episode import StackGradient

if TYPE_CHECKING:
    from mpt.backbones.base import Backbone
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import StackLoss

SMALL = 50_000_000
"""Weights up to which "auto" takes the fastest engine instead of the leanest."""

Engine = StackGradient
"""(losses, prompts [E, P, d], episodes, config) → (meta-gradients [E, P, d], query losses)."""


def finite_difference(
    loss: StackLoss, prompts: Tensor, episodes: Sequence[Episode], config: UpstreamConfig
) -> tuple[Tensor, list[float]]:
    """Return the meta-gradients [E, P, d] by central differences, and the query losses."""
    path = adapt_stack(loss, prompts, episodes, config)
    v, query = query_gradients(loss, path.prompts, episodes)
    for step in reversed(path.steps):
        v = v - config.inner_lr * finite_difference_products(loss, step, v, config)
    return v, query


def exact(
    loss: StackLoss, prompts: Tensor, episodes: Sequence[Episode], config: UpstreamConfig
) -> tuple[Tensor, list[float]]:
    """Return the meta-gradients [E, P, d] by reverse over reverse, and the query losses."""
    path = adapt_stack(loss, prompts, episodes, config, by_row=True)
    v, query = query_gradients(loss, path.prompts, episodes)
    for step in reversed(path.steps):
        v = v - config.inner_lr * exact_products(loss, step, v)
    return v, query


def exact_products(loss: StackLoss, step: InnerStep, v: Tensor) -> Tensor:
    """Return H_i v [E, P, d] of an inner step, pass by pass: ∇(∇L · v)."""
    products = torch.zeros_like(v)
    for one in step.passes:
        leaf = step.prompts.detach().requires_grad_()
        with one.random.again():
            losses = loss.support(leaf, one.rows, second_order=True)
        (slopes,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
        products += one.weighed(torch.autograd.grad(slopes, leaf, v)[0])
    return products


def unrolled(
    loss: StackLoss, prompts: Tensor, episodes: Sequence[Episode], config: UpstreamConfig
) -> tuple[Tensor, list[float]]:
    """Return the meta-gradients [E, P, d] through the graph of all inner steps, and the losses."""
    start = prompts.detach().requires_grad_()
    adapted = start
    adafactor = Adafactor(start.detach(), [config.inner_lr] * len(start))
    for rows in _steps_of(episodes):
        inner = loss.support(adapted, rows, second_order=True)
        (slopes,) = torch.autograd.grad(inner.sum(), adapted, create_graph=True)
        if config.inner_optimiser == "adafactor":
            adapted = adafactor.stepped(adapted, slopes)
        else:
            adapted = adapted - config.inner_lr * slopes
    query = loss.query(adapted, [episode.query for episode in episodes])
    (gradients,) = torch.autograd.grad(query.sum(), start)
    return gradients, query.detach().tolist()


def _steps_of(episodes: Sequence[Episode]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield for every inner step the support rows of each episode."""
    return zip(*(episode.support for episode in episodes), strict=True)


class _Holder(nn.Module):
    """A module whose only parameter are the prompts, for `higher` to patch."""

    def __init__(self, prompts: Tensor):
        super().__init__()
        self.prompts = nn.Parameter(prompts.detach().clone())

    def forward(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        return loss(self.prompts)


def by_higher(
    loss: StackLoss, prompts: Tensor, episodes: Sequence[Episode], config: UpstreamConfig
) -> tuple[Tensor, list[float]]:
    """Return the meta-gradients [E, P, d] as `higher` computes them, and the query losses."""
    holder = _Holder(prompts)
    sgd = torch.optim.SGD(holder.parameters(), lr=config.inner_lr)
    with higher.innerloop_ctx(holder, sgd, copy_initial_weights=False) as (patched, inner_sgd):
        for rows in _steps_of(episodes):
            values = patched(lambda phi, rows=rows: loss.support(phi, rows, second_order=True))
            inner_sgd.step(values.sum())
        queries = [episode.query for episode in episodes]
        query = patched(lambda phi: loss.query(phi, queries, second_order=True))
        (gradients,) = torch.autograd.grad(query.sum(), holder.prompts)
    return gradients, query.detach().tolist()


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
