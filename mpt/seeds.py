"""One root seed → named generators, so that no result depends on the order in which work is done.

A generator is named by what it is for, e.g. ``numpy_generator(42, "order", task, data_seed)``. Two
different names give independent streams; the same name gives the same stream in any process, on
any worker, after any restart. Nothing here touches a global generator.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Name = str | int | float


def derive(root: int, *names: Name) -> int:
    """Derive a 63-bit seed from a root seed and a name.

    Args:
        root: the root seed (training seed of the study).
        names: what the stream is for; ``("a", 1)`` and ``("a1",)`` are different names.

    Returns:
        The first 8 bytes of SHA-256 of the unambiguous text form of root and names, without the
        sign bit (so that torch and numpy both accept it).
    """
    text = repr((int(root), *names)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def numpy_generator(root: int, *names: Name) -> np.random.Generator:
    """Return a fresh NumPy generator for this name (see `derive`)."""
    return np.random.default_rng(derive(root, *names))


def torch_generator(root: int, *names: Name, device: str = "cpu") -> torch.Generator:
    """Return a fresh torch generator on `device` for this name (see `derive`)."""
    import torch  # takes seconds; a command's --help imports this file

    generator = torch.Generator(device=device)
    generator.manual_seed(derive(root, *names))
    return generator
