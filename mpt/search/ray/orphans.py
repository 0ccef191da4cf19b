"""A worker whose node has lost Ray's daemon ends, so that others can go on with its work."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

PROCESSES = Path("/proc")
"""What the system tells of processes; macOS has nothing there."""


def end_with_raylet(check_s: float = 1.0) -> None:
    """Watch the raylet of this worker from a thread; end the process when the raylet is gone.

    Ray 2.60 leaves a worker alive that is idle at that moment: it notices only when it next has
    something to say. Until then it would work on beside its successor. Outside of Ray's workers
    nothing is watched.
    """
    raylet = os.environ.get("RAY_RAYLET_PID", "")
    if raylet.isdigit():
        threading.Thread(target=_watch, args=(int(raylet), check_s), daemon=True).start()


def _watch(raylet: int, check_s: float) -> None:
    parent = os.getppid()
    while os.getppid() == parent and lives(raylet):
        time.sleep(check_s)
    os._exit(1)


def lives(process: int) -> bool:
    """Return whether a process of this machine lives; a dead one may still have an entry.

    Without ``/proc`` (macOS) a dead one lives until its parent has taken note.
    """
    if not PROCESSES.exists():
        return _has_entry(process)
    try:
        state = (PROCESSES / f"{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def _has_entry(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's, and there
    return True
