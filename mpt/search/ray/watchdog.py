"""Processes end when their Ray has died, instead of waiting for it or working on beside others.

A driver in `Tuner.fit` hangs when its raylet is killed. So a thread looks at Ray's processes; when
one is gone, it says so in one line and ends the process: a process whose main thread waits inside
of Ray cannot be ended otherwise. Ray 2.60's raylet ends when one of its agents does, and then it
takes the driver with it, without a word, on a quiet machine less than 50 ms later: so the thread
waits on the agents themselves.

A worker whose node has lost Ray's daemon ends, so that others can go on with its work.

And a start of Ray that would never end does: `unhung`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

INTERRUPTED = 75
PROCESSES = Path("/proc")
"""What the system tells of processes; macOS has nothing there."""
_LOOK_S = 0.05
_GRACE_S = 2.0
"""Seconds in which an orderly end of Ray may still come to its own end."""
_AGENTS = 2
"""Agents of a raylet: of the dashboard and of runtime environments."""
_STARTING_S = 60.0
"""Seconds in which agents that are not there yet are looked for."""
_EXEC_S = 60.0
"""Seconds that a child may take between its start and becoming another program; that takes
milliseconds."""
_VITAL = ("raylet", "gcs_server")
"""Without one of these processes a driver hangs, or is ended by Ray after a minute."""


@contextlib.contextmanager
def watched(say: Callable[[str], None], resume: str) -> Iterator[None]:
    """Watch the local Ray of this process inside the block."""
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


def _agents(raylets: Collection[int]) -> list[int]:
    """Return the agents of some raylets, which are their children."""
    return [child for child, command in _children(raylets) if b"agent" in command.lower()]


def _children(parents: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """Yield the children of some processes, each with its command line."""
    for folder in PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in parents:
                yield int(folder.name), (folder / "cmdline").read_bytes()


def _wait(agents: Collection[int], over: threading.Event) -> None:
    """Wait for a look's time, or until an agent ends: Ray may end us milliseconds after it."""
    poll = select.poll()
    with contextlib.ExitStack() as stack:
        try:
            for agent in agents:
                ended = os.pidfd_open(agent)
                stack.callback(os.close, ended)
                poll.register(ended, select.POLLIN)
        except (AttributeError, OSError):  # not this system, or it has ended
            over.wait(_LOOK_S / 10)
            return
        poll.poll(1000 * _LOOK_S)


def _watch(
    processes: dict[str, list[int]],
    over: threading.Event,
    say: Callable[[str], None],
    resume: str,
) -> None:
    agents: set[int] = set()
    began = time.monotonic()
    vital = [process for kind in _VITAL for process in processes.get(kind, ())]
    while not over.is_set():
        starting = time.monotonic() - began < _STARTING_S
        if len(agents) < _AGENTS and starting:  # a raylet starts them in its own time
            agents.update(_agents(processes["raylet"]))
        if not all(map(lives, agents)):
            break
        if not all(map(lives, vital)):
            over.wait(_GRACE_S)
            break
        _wait(agents, over)
    if over.is_set():
        return
    # first of all: a raylet that has lost an agent ends, and Ray ends its driver without a word
    _send(processes["raylet"], signal.SIGSTOP)
    with contextlib.suppress(Exception):
        say(
            "Ray's own process on this machine has ended (killed, or out of memory); what was "
            f"finished is kept. Resume with: {resume}"
        )
    for ids in processes.values():  # what is left of this Ray, and nothing else
        _send(ids, signal.SIGKILL)
    os._exit(INTERRUPTED)


def _send(processes: Collection[int], number: int) -> None:
    for process in processes:
        with contextlib.suppress(OSError):
            os.kill(process, number)


@contextlib.contextmanager
def unhung(patience_s: float = _EXEC_S) -> Iterator[None]:
    """End children of this process that hang between their start and becoming another program.

    Who starts a child waits without a bound until it is one, and a child that is made while other
    threads work can hang before, in a lock that one of them held at this moment. Once it is ended,
    the start goes on: with an error, since what the child was to be is missing. Children that were
    there before the block are left alone, and so is everything where there is no ``/proc``.
    """
    over, before = threading.Event(), _unborn()
    watch = threading.Thread(target=_end_hung, args=(over, before, patience_s), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()


def _end_hung(over: threading.Event, before: set[int], patience_s: float) -> None:
    since: dict[int, float] = {}
    while not over.wait(patience_s / 10):
        now = time.monotonic()
        since = {child: since.get(child, now) for child in _unborn() - before}
        for child, first in since.items():
            if now - first >= patience_s:
                with contextlib.suppress(OSError):
                    os.kill(child, 9)


def _unborn() -> set[int]:
    """Return the children of this process that are still copies of it."""
    if not PROCESSES.exists():
        return set()
    own = os.getpid()
    command = (PROCESSES / f"{own}/cmdline").read_bytes()
    return {child for child, words in _children([own]) if words == command}


def end_with_raylet(check_s: float = 1.0) -> None:
    """Watch the raylet of this worker from a thread; end the process when the raylet is gone.

    Ray 2.60 leaves a worker alive that is idle at that moment: it notices only when it next has
    something to say. Until then it would work on beside its successor. Outside of Ray's workers
    nothing is watched.
    """
    raylet = os.environ.get("RAY_RAYLET_PID", "")
    if raylet.isdigit():
        threading.Thread(target=_end_after, args=(int(raylet), check_s), daemon=True).start()


def _end_after(raylet: int, check_s: float) -> None:
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
