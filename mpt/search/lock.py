"""One driver per results directory."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from mpt.errors import DataError, UsageError
from mpt.storage import lock, open_lock
from mpt.storage_errors import storage_errors


@contextlib.contextmanager
def driver_lock(results: Path) -> Iterator[None]:
    """Hold the results directory while a search runs.

    The kernel frees the lock when its holder ends, however it ends; so a lock of a dead process is
    taken over without asking. The file says who holds it, for the message of the second driver.

    Raises:
        UsageError: another driver holds the directory; the text names its process and host.
        StorageError: the lock file cannot be written, or the file system has no locks.
    """
    path = results / "driver.lock"
    descriptor = open_lock(path)
    try:
        if not lock(descriptor, path):
            raise UsageError(
                f"results directory {results} is in use by {_holder(path)}; wait for it, stop it, "
                "or give another directory with --results"
            )
        with storage_errors(path):
            _write(descriptor, _myself())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the name of a process that is gone harms nobody
                _write(descriptor, {})
    finally:
        os.close(descriptor)


def driver_mark(results: Path) -> str:
    """Return what tells this driver's results directory from one of the same name elsewhere."""
    with contextlib.suppress(OSError):
        return (results / "driver.lock").read_text(errors="replace")
    return ""


def check_shared(results: Path, mark: str) -> None:
    """Prove that a worker sees the results directory of its driver.

    A node that joins late may lack the mount: what a trial wrote there would be lost.

    Raises:
        DataError: it does not; the text names the node.
    """
    if driver_mark(results) != mark:
        raise DataError(
            f"node {platform.node()} does not see the driver's results directory {results}; mount "
            "the shared storage at this path on every node"
        )


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
    os.fsync(descriptor)  # for the second driver on another node
