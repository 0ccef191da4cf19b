"""How many processors this process may use, and which other processes live."""

from __future__ import annotations

import os


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
