"""What a command takes with all the processes that it starts: the clock, and CPU seconds by role.

A search starts workers and services of Ray. They are not children of ours in the end, and their
CPU seconds are not among those that a parent is told of; so they are read from /proc, a few times
a second, while the command runs. What a process does after its last reading is lost.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.1
"""Between two readings of /proc."""
OTHER = "workers"
_SERVICES = ("raylet", "gcs_server", "dashboard", "runtime_env", "log_monitor", "monitor.py")


@dataclass(frozen=True)
class Taken:
    """What a command took."""

    clock: float
    cpu: dict[str, float]
    """Role ("command", "workers", "services of Ray") → CPU seconds."""
    code: int
    """Its exit code."""

    @property
    def cpu_s(self) -> float:
        """CPU seconds in all."""
        return sum(self.cpu.values())


def run_watched(command: Sequence[str], log: Path) -> Taken:
    """Run a command to its end, its output in a file.

    Args:
        command: words.
        log: where stdout and stderr go.
    """
    seen: dict[tuple[int, int], tuple[str, float]] = {}
    started = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            for one, (role, seconds) in _tree(process.pid).items():
                known = seen.get(one, (OTHER, 0.0))[0]
                seen[one] = (role or known, seconds)  # one that has ended has no command line
            time.sleep(EVERY_S)
    clock = time.perf_counter() - started
    cpu: dict[str, float] = {}
    for role, seconds in seen.values():
        cpu[role] = cpu.get(role, 0.0) + seconds
    return Taken(clock, cpu, process.returncode)


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of all threads of a process until now.

    Raises:
        ProcessLookupError: it is gone.
    """
    stat = _stat(pid)
    if stat is None:
        raise ProcessLookupError(f"process {pid} is gone; its CPU seconds cannot be read")
    return stat[2]


def _tree(root: int) -> dict[tuple[int, int], tuple[str | None, float]]:
    """Return (pid, start) → (role if it is known, CPU seconds) of a process and all below it."""
    processes = {pid: one for pid in _pids() if (one := _stat(pid)) is not None}
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    todo = [root]
    tree: dict[tuple[int, int], tuple[str | None, float]] = {}
    while todo:
        pid = todo.pop()
        if pid in processes:
            _, born, seconds = processes[pid]
            role = "command" if pid == root else _role(pid)
            tree[pid, born] = (role, seconds)
        todo += children.get(pid, [])
    return tree


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> tuple[int, int, float] | None:
    """Return parent, start and CPU seconds of a process; None where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[1]), int(fields[19]), (int(fields[11]) + int(fields[12])) / ticks


def _role(pid: int) -> str | None:
    """Return what a process does, None where nothing says so any more."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return None
    if not line:
        return None
    return "services of Ray" if any(word in line for word in _SERVICES) else OTHER
