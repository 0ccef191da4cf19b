"""Files that a kill cannot tear: sealed JSON, whole-file writes, exclusive work.

Every writer here prepares a temporary file under ``<root>/tmp``, forces it to the disk, and then
puts it in its place in one system call. A reader therefore sees a whole file or none; a checksum
finds what the disk or another program changed later.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpt.errors import DataError, UsageError

MAX_JSON_BYTES = 64 * 2**20
"""A larger record is not ours; it is refused instead of being read into memory."""

_counter = itertools.count()


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no blanks, NaN refused (`ValueError`)."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def seal(body: dict[str, Any]) -> bytes:
    """Return a record as bytes, with the checksum of its body inside."""
    return (canonical({**body, "checksum": digest(body)}) + "\n").encode()


def unseal(path: Path) -> dict[str, Any]:
    """Read a sealed record and return its body without the checksum.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is not a whole sealed record; the text says what is wrong with it.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise DataError(f"{path}: is not a file")
    if size > MAX_JSON_BYTES:
        raise DataError(f"{path}: {size} bytes, but a record has at most {MAX_JSON_BYTES}")
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON record ({_first_line(error)})") from None
    if not isinstance(record, dict) or "checksum" not in record:
        raise DataError(f"{path}: not a record of this program (no checksum)")
    stated = record.pop("checksum")
    try:
        found = digest(record)
    except ValueError:  # NaN or infinity: `seal` never writes one
        found = None
    if found != stated:
        raise DataError(f"{path}: its checksum does not fit its content")
    return record


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class Disk:
    """Whole-file writes below one results directory."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._tmp = self.root / "tmp"

    def prepare(self) -> None:
        """Create the directory and prove that it can be written.

        Raises:
            UsageError: the path is a file, or cannot be created or written.
        """
        try:
            self._tmp.mkdir(parents=True, exist_ok=True)
            probe = self._temporary()
            probe.write_bytes(b"")
            probe.unlink()
        except (FileExistsError, NotADirectoryError):
            raise UsageError(
                f"results path {self.root} must be a directory, but it (or a part of it) is a "
                "file; give another with --results"
            ) from None
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            raise UsageError(
                f"results path {self.root} cannot be written ({reason}); "
                "give another with --results"
            ) from None

    def sweep(self, older_than_s: float = 3600.0) -> None:
        """Remove temporary files that killed writers left behind."""
        limit = time.time() - older_than_s
        for path in self._tmp.glob("*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < limit:
                    path.unlink()

    def write(self, path: Path, data: bytes) -> None:
        """Put `data` at `path`, replacing what is there; whole or not at all."""
        temporary = self._write_temporary(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)
        sync_folder(path.parent)

    def write_new(self, path: Path, data: bytes) -> bool:
        """Put `data` at `path` unless something is there; return whether this call did it."""
        temporary = self._write_temporary(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: the last of equal writers wins
            if path.exists():
                return False
            os.replace(temporary, path)
            return True
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _temporary(self) -> Path:
        name = f"{socket.gethostname()}-{os.getpid()}-{next(_counter)}-{time.time_ns()}"
        return self._tmp / name

    def _write_temporary(self, data: bytes) -> Path:
        temporary = self._temporary()
        self._tmp.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return temporary


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (names made by rename or link) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(path: Path) -> Path:
    """Rename a file that is not ours to `<name>.bad` (or `.bad-2`, …) and return the new path."""
    for number in itertools.count(1):
        target = path.with_name(path.name + (".bad" if number == 1 else f".bad-{number}"))
        if not target.exists():
            os.replace(path, target)
            return target
    raise AssertionError("unreachable")


@contextlib.contextmanager
def exclusive(path: Path, timeout_s: float | None = 60.0) -> Iterator[None]:
    """Hold a file lock while working; wait while a process that is about to die still has it.

    Workers of a killed driver live on for some seconds. Whoever takes over waits here for their
    end, so that no unit of work is done twice.

    Args:
        path: the lock file; it is made and stays (removing it would split the lock).
        timeout_s: seconds to wait for another process; None: as long as it lives.

    Raises:
        TimeoutError: another process holds the lock for longer than `timeout_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(
                        f"{path} has been held by another process for {timeout_s:.0f} s"
                    ) from None
                time.sleep(0.1)
        yield
