"""Token losses without the whole matrix of vocabulary logits.

For N target tokens and V vocabulary entries, logits [N, V], their log-softmax and their gradient
are three float32 matrices: 8 rows of 128 tokens and V = 32128 take 395 MB, more than the rest of a
small model's graph. Past `LOGITS_AT_ONCE` the tokens go through the head in chunks instead.

Shapes: N target tokens, V vocabulary, d model width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**22
"""Most logits held at a time: 16 MB in float32 (130 tokens of T5's vocabulary)."""

Head = Callable[[Tensor], Tensor]
"""Hidden states [N, d] → logits [N, V]."""


def token_losses(
    head: Head, states: Tensor, targets: Tensor, vocabulary: int, *, closed_form: bool
) -> Tensor:
    """Return −log softmax(head(states))[target] of every token [N].

    Args:
        head: the output head; it must treat every state by itself.
        states: [N, d].
        targets: [N] token ids.
        vocabulary: V.
        closed_form: whether the loss is differentiated at most once and by the states only. The
            head then runs once per chunk (see `_ChunkedLosses`); otherwise it runs again in
            the backward pass, which can itself be differentiated and reaches the head's weights.
    """
    chunk = max(1, LOGITS_AT_ONCE // vocabulary)
    if len(states) <= chunk:
        return _losses(head, states, targets)
    if not (torch.is_grad_enabled() and states.requires_grad):
        pairs = zip(states.split(chunk), targets.split(chunk), strict=True)
        return torch.cat([_losses(head, part, own) for part, own in pairs])
    if closed_form:
        return torch.as_tensor(_ChunkedLosses.apply(states, targets, head, chunk))
    pairs = zip(states.split(chunk), targets.split(chunk), strict=True)
    return torch.cat(
        [checkpoint(_losses, head, part, own, use_reentrant=False) for part, own in pairs]
    )


def greedy_choice(head: Head, states: Tensor, vocabulary: int) -> Tensor:
    """Return the arg-max token of every state [N]."""
    parts = states.split(max(1, LOGITS_AT_ONCE // vocabulary))
    return torch.cat([head(part).argmax(-1) for part in parts])


def _losses(head: Head, states: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(head(states), targets, reduction="none")


class _ChunkedLosses(torch.autograd.Function):
    """Losses [N] whose gradient by the states is made in the forward pass, chunk by chunk.

    ℓ_i depends on state i alone, so its gradient is one vector of width d; these [N, d] are all
    that is kept, and ∂L/∂s_i = (∂L/∂ℓ_i) · ∂ℓ_i/∂s_i.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, head: Head, chunk: int) -> Tensor:
        losses, slopes = [], []
        pairs = zip(states.split(chunk), targets.split(chunk), strict=True)
        for part, own in pairs:
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                loss = _losses(head, leaf, own)
                (slope,) = torch.autograd.grad(loss.sum(), leaf)
            losses.append(loss.detach())
            slopes.append(slope)
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():  # create_graph=True: the slopes' own slope is not known here
            raise RuntimeError(
                "chunked losses in closed form cannot be differentiated twice; compute them "
                "inside `Backbone.second_order()`"
            )
        (slopes,) = ctx.saved_tensors
        return (grad[:, None] * slopes).to(slopes.dtype), None, None, None
