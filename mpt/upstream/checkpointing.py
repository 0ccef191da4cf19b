"""Activation checkpointing of a frozen Hugging Face model, without its own switch.

`gradient_checkpointing_enable` works in training mode only and leaves hooks behind that make the
embeddings require a gradient; here the blocks are switched on and off one by one. Dropout keeps
its mode, and its random numbers are replayed in the recomputation.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

_ONCE = functools.partial(checkpoint, use_reentrant=False)


@contextlib.contextmanager
def activation_checkpointing(model: nn.Module) -> Iterator[None]:
    """Let the forward passes in the block keep only what enters each transformer block.

    The rest is computed again when a gradient is taken, inside or outside of the `with`; a second
    derivative must not be taken.
    """
    blocks: list[Any] = [
        module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    training = [block.training for block in blocks]
    for block in blocks:
        # The block's own flag, not its children's: dropout inside it stays as it is.
        block.training = True
        block.gradient_checkpointing = True
        block._gradient_checkpointing_func = _ONCE
    try:
        yield
    finally:
        for block, mode in zip(blocks, training, strict=True):
            block.training = mode
            block.gradient_checkpointing = False
            del block._gradient_checkpointing_func
