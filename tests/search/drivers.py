"""Toy searches in processes of their own, which tests watch, signal and kill."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import search_toys
from children import environment

import mpt

ROOT = Path(mpt.__file__).resolve().parents[1]
PATIENCE_S = 1500.0
"""For a machine that is busy and slow; it only catches hangs."""

WORKER, WRITER = "ray::SearchTrial", "ray::ResultWriter"
RAYLET, GCS = "raylet/raylet", "gcs/gcs_server"
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


class Driven:
    """A command that searches, in another process; its output goes to a file.

    Args:
        command: what is run.
        results: its results directory.
        patience_s: seconds to wait for anything; it only catches hangs.
    """

    def __init__(self, command: Sequence[str], results: Path, patience_s: float = PATIENCE_S):
        self.log = results.with_suffix(f".{uuid.uuid4().hex[:8]}.log")
        self._patience_s = patience_s
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(ROOT),
                start_new_session=True,  # a "terminal" whose Ctrl-C reaches the whole group
            )

    def output(self) -> str:
        return self.log.read_text()

    def runs(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> int:
        try:
            return self.process.wait(self._patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"the driver hangs:\n{self.output()}")

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the driver or its workers do."""
        deadline = time.monotonic() + self._patience_s
        while not condition():
            if self.process.poll() is not None:
                pytest.fail(f"the driver ended too early:\n{self.output()}")
            if time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(f"waited in vain:\n{self.output()}")
            time.sleep(0.05)  # a look at results takes a few milliseconds of computing

    def processes(self, *names: str) -> list[int]:
        """Return the descendants of this driver whose command line holds one of these names."""
        parents, commands = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                commands[int(folder.name)] = (folder / "cmdline").read_text(errors="replace")
            except OSError:
                continue
            parents[int(folder.name)] = int(stat[1])
        family = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        return [pid for pid in family if any(name in commands.get(pid, "") for name in names)]


class Driver(Driven):
    """The toy search, in another process."""

    def __init__(self, checkpoint: Path, gym: Path, results: Path, *words: str) -> None:
        script = [sys.executable, str(Path(search_toys.__file__)), str(checkpoint), str(gym)]
        super().__init__([*script, str(results), *words], results)


def run_rows(results: Path) -> dict[str, tuple[Any, ...]]:
    """Return the stored runs as the database has them, by their keys; nothing is written."""
    return _rows(results, "run")


def run_count(results: Path) -> int:
    """Return how many runs are stored, without a look into them."""
    return len(_rows(results, "run", "id", rest="id"))


def checkpoints(results: Path) -> int:
    """Return how many trials have a checkpoint."""
    rows = _rows(results, "artifact", "owner || steps || kind")
    return sum(key.endswith("checkpoint") for key in rows)


def progress(results: Path) -> object:
    """Return something that changes when a worker stores runs, a prompt or a checkpoint."""
    artifacts = _rows(results, "artifact", "id")
    return run_count(results), frozenset(artifacts)


def _rows(
    results: Path, table: str, key: str = "key", rest: str = "*"
) -> dict[str, tuple[Any, ...]]:
    path = results / "mpt.db"
    if not path.exists():
        return {}
    # a connection that may write leaves no log behind
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=60)) as connection:
        connection.execute("PRAGMA query_only = ON")
        master = "SELECT name FROM sqlite_master WHERE name = ?"
        if connection.execute(master, (table,)).fetchone() is None:
            return {}
        query = f"SELECT {key}, {rest} FROM {table}"
        return {row[0]: tuple(row[1:]) for row in connection.execute(query)}
