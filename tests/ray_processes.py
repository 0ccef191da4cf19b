"""Runs scripts that start a Ray of their own; ends that Ray, and no other, without `ray stop`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path


def processes_with(name: str, value: str) -> list[int]:
    """Return the processes that have this variable in their environment.

    Args:
        name: of the variable.
        value: of the variable.
    """
    mark, found = f"{name}={value}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = mark in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine:
            found.append(int(folder.name))
    return found


def end_processes(name: str, value: str, patience_s: float = 300.0) -> None:
    """Kill them, each by its id, until none is left."""
    deadline = time.monotonic() + patience_s
    while pids := [pid for pid in processes_with(name, value) if pid != os.getpid()]:
        assert time.monotonic() < deadline, f"{pids} will not end"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_ray_script(
    script: str, *options: str, source: Callable[[Path], Path], timeout_s: float
) -> str:
    """Run ``python SCRIPT FOLDER PORT OPTIONS`` and return what it printed.

    FOLDER is empty, PORT is free, Ray's files lie in FOLDER, and `mpt` is imported from where
    `source` says, given FOLDER.
    """
    mark = uuid.uuid4().hex
    folder = Path(tempfile.mkdtemp(prefix="mpt-"))  # short: paths of sockets have ≤ 107 bytes
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "MPT_TEST_MARK": mark,
        "PYTHONPATH": str(source(folder)),
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # as in conftest.py
    }
    try:
        done = subprocess.run(
            [sys.executable, script, str(folder), str(free_port()), *options],
            env=environment,
            cwd=folder,  # Ray lets workers import from the driver's directory
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    finally:
        end_processes("MPT_TEST_MARK", mark)
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    return done.stdout
