"""This process, how many processors it may use and how often it looks for garbage, and others.

Importing what a search needs makes half a million objects that stay, and Python looks for garbage
after every 700: a second of the six that a process takes to start.
"""

from __future__ import annotations

import gc
import os

SELDOM = 200_000
"""New objects between two looks."""


def usable_processors() -> int:
    """Return how many processors this process may use, at least 1.

    Where the system does not say (macOS), they are all that the machine has.
    """
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def is_alive(pid: int) -> bool:
    """Return whether a process of this host lives, of whatever user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


def collect_seldom() -> None:
    """Look for garbage less often from now on.

    For the start of a program only: a notebook that imports this package keeps its own settings.
    """
    gc.set_threshold(SELDOM)
