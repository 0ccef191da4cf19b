"""Floating-point operations of passes through a backbone, counted on shapes: no weight is loaded.

Matrix products count 2·m·k·n each (`torch.utils.flop_counter`), elementwise work does not. A
frozen model's backward pass makes gradients of activations alone; where weights are trained,
theirs are as many again as the forward pass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mpt.backbones.memory import config_of, run_shapes, shaped
from mpt.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations of one row."""

    forward: int
    """Of the forward pass, the head over the target tokens among it."""
    backward: int
    """Of the gradient of the prompt."""

    @property
    def tuning(self) -> int:
        """Of a training step of a prompt."""
        return self.forward + self.backward

    @property
    def fine_tuning(self) -> int:
        """Of a training step of all weights."""
        return 2 * self.forward + self.backward


@functools.lru_cache(maxsize=64)
def row_flops(name: str, prompt: int, inputs: int, targets: int) -> Flops:
    """Return the operations of one row of a backbone.

    Args:
        name: as `mpt.backbones.memory.estimate` takes it.
        prompt: prompt tokens P.
        inputs: input tokens.
        targets: target tokens.

    Raises:
        UsageError: the architecture cannot be run on shapes alone.
    """
    return _row(name, prompt + inputs, targets)


@functools.lru_cache(maxsize=64)
def shared_row_flops(name: str, prompt: int, inputs: int, targets: int, rows: int) -> Flops:
    """Return the operations of one of `rows` rows that share a prompt and stand in one pass.

    A causal model reads a prompt that stands first once for all of them (`DecoderOnly`), so a row
    pays for its share of it; any other model reads it with every row. Other arguments and errors
    are those of `row_flops`.
    """
    whole = row_flops(name, prompt, inputs, targets)
    if rows == 1 or prompt == 0 or config_of(name).is_encoder_decoder:
        return whole
    alone, saved = _row(name, prompt, 0), 1 - 1 / rows
    return Flops(
        forward=whole.forward - round(saved * alone.forward),
        backward=whole.backward - round(saved * alone.backward),
    )


def _row(name: str, s: int, t: int) -> Flops:
    """Return the operations of a row of `s` tokens of prompt and input and `t` of the target."""
    model = shaped(name, config_of(name), torch.bfloat16)
    reason = ""
    for flat in (False, True):
        try:
            return _counted(name, model, s, t, flat)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
    raise UsageError(f"backbone {name}: its operations cannot be counted on shapes: {reason}")


def _counted(name: str, model: Any, s: int, t: int, flat: bool) -> Flops:
    with FlopCounterMode(display=False) as forward:
        states = run_shapes(name, model, 1, s, t, flat)
    with FlopCounterMode(display=False) as backward:
        states.sum().backward()
    d, vocabulary = model.get_output_embeddings().weight.shape[::-1]
    head = 2 * t * d * vocabulary
    return Flops(
        forward=forward.get_total_flops() + head, backward=backward.get_total_flops() + head
    )
