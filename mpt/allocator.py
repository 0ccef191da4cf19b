"""Freed memory is kept for the next pass: a CPU pass allocates the same megabytes again and again.

By default the C library gives large blocks back to the system at once, and every pass pays for
fresh pages: 7 to 9 % of the time of a packed step of the embedded model, and 8 % of a MAML step,
measured.
"""

from __future__ import annotations

import ctypes
import functools

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # <malloc.h>
KEPT = 2**28
"""Bytes of free memory at the end of the heap that the process keeps."""
LARGEST = 2**25
"""Blocks up to this size are taken from the heap (the largest value that glibc accepts)."""


@functools.cache
def keep_freed_memory(device: torch.device) -> bool:
    """Let this process keep freed memory if it computes on a CPU; return whether it does now.

    Nothing but time depends on it. Other C libraries than glibc are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if device.type != "cpu" or set_option is None:
        return False
    return bool(set_option(_MMAP_THRESHOLD, LARGEST) and set_option(_TRIM_THRESHOLD, KEPT))
