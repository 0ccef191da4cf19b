"""A driver whose local Ray has died ends, instead of waiting for it for ever.

Ray 2.60's raylet ends when one of its agents does; a driver in `Tuner.fit` then hangs. So a thread
looks at the raylet; when it is gone, it says so in one line and ends the process: a process whose
main thread waits inside of Ray cannot be ended otherwise.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from mpt.search.ray.orphans import lives

INTERRUPTED = 75
_LOOK_S = 2.0
_GRACE_S = 10.0
"""Seconds in which an orderly end of Ray may still come to its own end."""


@contextlib.contextmanager
def watched(say: Callable[[str], None], resume: str) -> Iterator[None]:
    """Watch the local Ray of this process inside the block.

    Args:
        say: where the one line goes.
        resume: the command that goes on.
    """
    processes = _processes()
    over = threading.Event()
    if "raylet" in processes:
        watch = threading.Thread(target=_watch, args=(processes, over, say, resume), daemon=True)
        watch.start()
    try:
        yield
    finally:
        over.set()


def _processes() -> dict[str, list[int]]:
    """Return the processes of this process's own Ray: kind → process ids."""
    import ray

    node = getattr(ray._private.worker, "_global_node", None)
    if node is None:
        return {}
    return {
        kind: [info.process.pid for info in infos] for kind, infos in node.all_processes.items()
    }


def _watch(
    processes: dict[str, list[int]],
    over: threading.Event,
    say: Callable[[str], None],
    resume: str,
) -> None:
    while not over.wait(_LOOK_S):
        if not all(lives(process) for process in processes["raylet"]):
            break
    if over.wait(_GRACE_S):
        return
    with contextlib.suppress(Exception):
        say(
            "Ray's own process on this machine has ended (killed, or out of memory); what was "
            f"finished is kept. Resume with: {resume}"
        )
    for ids in processes.values():  # what is left of this Ray, and nothing else
        for process in ids:
            with contextlib.suppress(OSError):
                os.kill(process, 9)
    os._exit(INTERRUPTED)
