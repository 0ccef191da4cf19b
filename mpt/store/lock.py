"""One driver per directory of results."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import stat
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mpt.errors import UsageError
from mpt.processes import is_alive
from mpt.provenance import now
from mpt.store.errors import storage_errors

FILE = "driver.lock"


@contextlib.contextmanager
def driver_lock(results: Path) -> Iterator[None]:
    """Hold a directory of results while a search runs; the directory is made.

    The kernel frees the lock when its holder ends, however it ends; so a lock of a dead process is
    taken over without asking. The file says who holds it, for the message of the second driver.

    Raises:
        UsageError: another driver holds the directory; the text names its process and host.
        StorageError: the lock file cannot be written, or the file system has no locks.
    """
    path = Path(results) / FILE
    # a soft lock, which a kill leaves behind, is worse than none
    lock = FileLock(path, timeout=0, fallback_to_soft=False, on_acquired=_sign)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "no file")
        try:
            lock.acquire()
        except Timeout:
            raise UsageError(
                f"results directory {results} is in use by {_holder(path)}; wait for it, stop it, "
                "or give another directory with --results"
            ) from None
    try:
        yield
    finally:
        lock.release()


def is_held(results: Path) -> bool | None:
    """Return whether a driver holds a directory of results; None where that cannot be told.

    The lock is looked at and not taken: a driver that starts meanwhile finds it free. Only the
    lock of a process that is not on this host, or has the number of one that is, is shared for a
    moment, which fails while a driver holds it.
    """
    path = Path(results) / FILE
    try:
        entry = json.loads(path.read_text())
        if entry["host"] == platform.node() and not is_alive(int(entry["pid"])):
            return False
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    entry = {"pid": os.getpid(), "host": platform.node(), "since": now()}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(entry).encode(), 0)
    os.fsync(descriptor)  # for the second driver on another node


def _holder(path: Path) -> str:
    try:
        entry = json.loads(path.read_text())
        return f"process {entry['pid']} on {entry['host']} since {entry['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it holds the lock but has not written its name yet
