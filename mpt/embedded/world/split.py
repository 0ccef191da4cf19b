"""Which inputs of the small world belong to the gym and which may be trained on.

The split is a property of the text itself, so neither side needs a list of the other: an input
belongs to the gym if the first byte of its digest is below `GYM_BYTES`. The embedded gym keeps
only such inputs (train, dev and test files alike), the backbone's training text only the others.
"""

from __future__ import annotations

import hashlib

GYM_BYTES = 64
"""Of 256: a quarter of all inputs is the gym's."""


def in_gym(text: str) -> bool:
    """Return whether this input (without task name or instruction) belongs to the gym."""
    return hashlib.blake2b(text.encode(), digest_size=1).digest()[0] < GYM_BYTES
