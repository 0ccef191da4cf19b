"""How often Python looks for garbage in processes that are ours: programs and Ray's workers.

Importing what a search needs makes half a million objects that stay, and Python looks for garbage
after every 700: a second of the six that a process takes to start.
"""

from __future__ import annotations

import gc

SELDOM = 200_000
"""New objects between two looks."""


def collect_seldom() -> None:
    """Look for garbage less often from now on.

    For the start of a program only: a notebook that imports this package keeps its own settings.
    """
    gc.set_threshold(SELDOM)
