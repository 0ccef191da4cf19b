"""Keys and values of what stands first in a line, which never depend on what comes after it.

Shapes: B rows, L input tokens of the longest row, n of one row, P prompt tokens, d model width,
H heads, h width of a head.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mpt.backbones.rows import Batch
from mpt.errors import UsageError

CPU_BYTES = 2**29
"""Least room of the cache on a CPU. The usual one is half of the free memory for the workers of
all cores together, and on a GPU a quarter of what is free at the start. Runs take turns with their
rows, so a room for some of them serves next to none: twelve runs of SmolLM2 on four real tasks
read 1152 rows, 518 different ones of 822 MB; from a room of 512 MB 197 came, from 1 GB 634."""
ROOM = "MPT_INPUT_CACHE_MB"
"""Variable that sets the room in MB (2²⁰ bytes) on any device; 0 keeps nothing between passes."""
_CGROUP = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", None))


class InputCache:
    """The inputs, or the prompts that stand before them, used last, as far as they fit.

    The keys and values of an input or a prompt are always made from it alone, so their bits depend
    neither on the batch it was first met in nor on what has been thrown out since: a resumed run
    goes on exactly as an undisturbed one.

    Args:
        max_bytes: room; the input used longest ago goes first. A batch is served whatever its
            size.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.bytes = 0
        self._known: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    @classmethod
    def for_device(cls, device: torch.device) -> InputCache:
        """Return an empty cache with the room of `ROOM`, else the usual one.

        Raises:
            UsageError: the variable is no whole number ≥ 0.
        """
        told = os.environ.get(ROOM)
        if told is not None:
            if not told.isdecimal():
                raise UsageError(f"{ROOM} is {told!r}, but must be a whole number of MB ≥ 0")
            return cls(int(told) * 2**20)
        if device.type != "cuda":
            return cls(max(CPU_BYTES, free_ram() // (2 * (os.cpu_count() or 1))))
        return cls(torch.cuda.mem_get_info(device)[0] // 4)

    def __len__(self) -> int:
        return len(self._known)

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self.bytes = 0

    def batch(
        self, batch: Batch, compute: Callable[[Tensor], Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the keys and values of a batch's inputs, padded on the right with zeros.

        Args:
            batch: B rows.
            compute: tokens [n] of one input → its keys and values [layers, 2, H, n, h].

        Returns:
            For every layer keys and values [B, H, L, h].
        """
        lengths = batch.input_mask.sum(1)
        inputs = [
            tuple(ids[:n])
            for ids, n in zip(batch.input_ids.tolist(), lengths.tolist(), strict=True)
        ]
        parts = [ids[: len(key)] for ids, key in zip(batch.input_ids, inputs, strict=True)]
        return self._rows(inputs, parts, batch.input_ids.shape[1], compute)

    def prompts(
        self, prompts: Tensor, runs: Sequence[int], compute: Callable[[Tensor], Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the keys and values of the prompts of a batch's rows.

        Args:
            prompts: [R, P, d]; others need an empty cache (see `clear`), but these may be changed
                in place.
            runs: the run of each of B rows.
            compute: one prompt [P, d] → its keys and values [layers, 2, H, P, h].

        Returns:
            For every layer keys and values [B, H, P, h].
        """
        keys = [(run, prompts._version) for run in runs]
        parts = [prompts[run] for run in runs]
        return self._rows(keys, parts, prompts.shape[1], compute)

    def _rows(
        self,
        keys: Sequence[tuple[int, ...]],
        parts: Sequence[Tensor],
        width: int,
        compute: Callable[[Tensor], Tensor],
    ) -> list[tuple[Tensor, Tensor]]:
        """Return what is known by the key of each row's part, padded to `width` places."""
        used: dict[tuple[int, ...], Tensor] = {}
        for key, part in zip(keys, parts, strict=True):
            if key not in used:
                used[key] = self._get(key, part, compute)
        rows = padded([used[key] for key in keys], width)
        self._shrink()
        return rows

    def _get(
        self, key: tuple[int, ...], part: Tensor, compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        states = self._known.pop(key, None)
        if states is None:
            states = compute(part)
            self.bytes += states.nbytes
        self._known[key] = states  # now the one used last
        return states

    def _shrink(self) -> None:
        while self.bytes > self.max_bytes and self._known:
            self.bytes -= self._known.popitem(last=False)[1].nbytes


def padded(rows: Sequence[Tensor], width: int) -> list[tuple[Tensor, Tensor]]:
    """Return the keys and values of B rows as one batch, padded on the right with zeros.

    Args:
        rows: of each row keys and values [layers, 2, H, n, h].
        width: places of the batch.

    Returns:
        For every layer keys and values [B, H, width, h].
    """
    layers, _, heads, _, head_width = rows[0].shape
    batch = rows[0].new_zeros((layers, 2, len(rows), heads, width, head_width))
    for number, row in enumerate(rows):
        batch[:, :, number, :, : row.shape[3]] = row
    return [(layer[0], layer[1]) for layer in batch]


def free_ram(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the main memory that this process may still take, its container's limit included."""
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, used in _CGROUP:
        path = cgroup / limit
        if path.exists() and path.read_text().strip().isdigit():
            taken = int((cgroup / used).read_text()) if used else 0
            free = min(free, int(path.read_text()) - taken)
    return max(0, free)
