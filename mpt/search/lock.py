"""One driver per results directory."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from mpt.errors import UsageError


@contextlib.contextmanager
def driver_lock(results: Path) -> Iterator[None]:
    """Hold the results directory while a search runs.

    The kernel frees the lock when its holder ends, however it ends; so a lock of a dead process is
    taken over without asking. The file says who holds it, for the message of the second driver.

    Raises:
        UsageError: another driver holds the directory; the text names its process and host.
    """
    path = results / "driver.lock"
    results.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"results directory {results} is in use by {_holder(path)}; wait for it, stop it, "
                "or give another directory with --results"
            ) from None
        _write(file.fileno(), _myself())
        try:
            yield
        finally:
            _write(file.fileno(), {})


def _myself() -> dict[str, object]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": platform.node(), "since": now}


def _holder(path: Path) -> str:
    try:
        entry = json.loads(path.read_text())
        return f"process {entry['pid']} on {entry['host']} since {entry['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it holds the lock but has not written its name yet


def _write(descriptor: int, entry: dict[str, object]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(entry).encode(), 0)
