"""Activation checkpointing of a frozen Hugging Face model, without its own switch.

`gradient_checkpointing_enable` works in training mode only and leaves hooks behind that make the
embeddings require a gradient; here the blocks are wrapped one by one, for the time of a pass.
Dropout keeps its mode, and its random numbers are replayed in the recomputation.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from mpt.backbones.base import Backbone


@contextlib.contextmanager
def activation_checkpointing(backbone: Backbone) -> Iterator[None]:
    """Let the forward passes in the block keep only what enters each transformer block.

    The rest is computed again when a gradient is taken, inside or outside of the `with`; a second
    derivative must not be taken. A cache of the input's keys and values is left aside: a block
    that runs twice would write into it twice.
    """
    modules: Any = backbone.model.modules()
    blocks = [module for module in modules if isinstance(module, GradientCheckpointingLayer)]
    cache = getattr(backbone, "input_cache", None)
    if cache is not None:
        setattr(backbone, "input_cache", None)  # noqa: B010  (not every backbone has one)
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
        if cache is not None:
            setattr(backbone, "input_cache", cache)  # noqa: B010
