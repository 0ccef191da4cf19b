"""What fits into memory, and from where on larger passes are no faster: short measurements.

Every pass here is a training pass (forward and backward) of copies of one row, the longest: what a
token costs in memory and time is linear in their number then. Where rows of a run share the
reading of their prompt, each copy is a run by itself: a limit for whole rows holds for all.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from mpt.backbones.base import Backbone, Row
from mpt.backbones.input_cache import free_ram
from mpt.downstream.out_of_memory import attempt

MEMORY_SHARE = 0.7
"""Share of the free memory that a pass may take; the rest is for what is not linear."""
WORTH = 1.05
"""Twice the tokens must go through at least this much faster, or a pass is large enough."""
MOST_ROWS = 4096
"""Rows of the largest pass that is tried."""


class Probe:
    """Training passes of n copies of one row."""

    def __init__(self, backbone: Backbone, row: Row, prompt_length: int):
        self._backbone = backbone
        self._table = backbone.table([row])
        self.width = prompt_length + len(row[0]) + len(row[1])
        wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
        shape = (1, prompt_length, backbone.d_model)
        self._prompts = torch.ones(shape, dtype=wide, device=backbone.device)

    def run(self, rows: int) -> bool:
        """Pass `rows` rows forward and backward; return True."""
        apart = self._backbone.shares_prompts
        runs = list(range(rows)) if apart else [0] * rows
        prompts = self._prompts.repeat(rows if apart else 1, 1, 1).requires_grad_()
        batch = self._table.batch([0] * rows, runs)
        self._backbone.row_losses(prompts, batch)[0].sum().backward()
        if self._backbone.device.type == "cuda":
            torch.cuda.synchronize(self._backbone.device)
        return True

    def rows_that_fit(self) -> int:
        """Return how many rows take `MEMORY_SHARE` of the free memory, 0 if not even one fits."""
        if attempt(self.run, 1) is None:  # also fills caches that stay
            return 0
        free = _free_bytes(self._backbone) * MEMORY_SHARE
        one, two = (attempt(self.bytes_of, rows) for rows in (1, 2))
        if one is None or two is None:
            return int(one is not None)
        per_row = max(two - one, 1)
        return min(MOST_ROWS, int((free - (one - per_row)) // per_row))

    def bytes_of(self, rows: int) -> int:
        """Return what a pass holds at its peak (CUDA) or keeps for its backward pass (CPU)."""
        device = self._backbone.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            self.run(rows)
            return torch.cuda.max_memory_allocated(device) - before
        known = {weight.untyped_storage()._cdata for weight in self._backbone.model.parameters()}
        kept: dict[int, Tensor] = {}  # the tensors too, or a storage's address is used again

        def keep(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage()._cdata not in known:
                kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.run(rows)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    def seconds(self, most: int) -> dict[int, float]:
        """Return seconds of passes of 1, 2, 4, … rows until more are not worth it."""
        by_rows: dict[int, float] = {}
        rows = 1
        while rows <= most and attempt(self.run, rows) is not None:
            by_rows[rows] = min(self._timed(rows) for _ in range(3))
            if rows > 1 and not _worth(by_rows, rows):
                break
            rows *= 2
        return by_rows

    def _timed(self, rows: int) -> float:
        started = time.perf_counter()
        self.run(rows)
        return time.perf_counter() - started


def _worth(seconds: dict[int, float], rows: int) -> bool:
    """Return whether `rows` rows go through clearly faster, each, than half as many."""
    return 2 * seconds[rows // 2] >= WORTH * seconds[rows]


def enough(seconds: dict[int, float]) -> int:
    """Return the rows of a pass beyond which throughput does not rise."""
    last = max(seconds)
    return last if last == 1 or _worth(seconds, last) else last // 2


def pass_cost(seconds: dict[int, float], width: int) -> int:
    """Return the fixed time of a pass in tokens: t = fixed + rows · each."""
    last = max(seconds)
    if last == 1:
        return 0
    each = (seconds[last] - seconds[1]) / (last - 1)
    fixed = seconds[1] - each
    return power_of_two(fixed / each * width) if fixed > 0 and each > 0 else 0


def power_of_two(value: float) -> int:
    """Return the largest power of two that is not above the value, at least 1."""
    return 2 ** max(0, math.floor(math.log2(max(value, 1))))


def _free_bytes(backbone: Backbone) -> int:
    """Return the memory that passes may use on the backbone's device."""
    device = backbone.device
    cache = getattr(backbone, "input_cache", None)  # it is yet to fill
    promised = 0 if cache is None else cache.max_bytes - cache.bytes
    if device.type != "cuda":
        return max(0, free_ram() - promised)
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + idle - promised
