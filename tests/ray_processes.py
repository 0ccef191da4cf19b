"""Ends the Ray that a test has started, and no other, without `ray stop`."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def processes_with(name: str, value: str) -> list[int]:
    """Return the processes that have this variable in their environment."""
    mark, found = f"{name}={value}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = mark in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine:
            found.append(int(folder.name))
    return found


def end_processes(name: str, value: str, patience_s: float = 30.0) -> None:
    """Kill them, each by its id, until none is left."""
    deadline = time.monotonic() + patience_s
    while pids := [pid for pid in processes_with(name, value) if pid != os.getpid()]:
        assert time.monotonic() < deadline, f"{pids} will not end"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
