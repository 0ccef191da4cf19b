"""Files that a kill cannot tear: sealed JSON, whole-file writes, exclusive work.

Every writer here prepares a temporary file under ``<root>/tmp``, forces it to the disk, and then
puts it in its place in one system call. A reader therefore sees a whole file or none; a checksum
finds what the disk or another program changed later.

What stands in a file's place and is none (a pipe, a folder, a link to itself) is never waited for.
A disk that is full or gone ends the work with a `StorageError`; nothing is written elsewhere.
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
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mpt.errors import DataError, StorageError, UsageError
from mpt.storage_errors import storage_error, storage_errors

MAX_JSON_BYTES = 64 * 2**20
"""A larger record is not ours; it is refused instead of being read into memory."""

FOLDERS = ("leaves", "points", "pending", "trajectories", "packs", "prompts", "locks", "tmp")
"""What a results directory holds."""

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
    with open_file(path) as (file, size):
        if size > MAX_JSON_BYTES:
            raise DataError(f"{path}: {size} bytes, but a record has at most {MAX_JSON_BYTES}")
        data = file.read()
    try:
        record = json.loads(data)
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


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file for reading; give it and its size in bytes.

    Raises:
        FileNotFoundError: nothing is there.
        DataError: what is there is no file; opening it may even never end (a pipe).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            reason = os.strerror(error.errno)
            raise DataError(f"{path}: is not a file ({reason})") from None
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise DataError(f"{path}: is not a file")
    with open(descriptor, "rb", buffering=0) as file:
        yield file, found.st_size


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class Disk:
    """Whole-file writes below one results directory."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._tmp = self.root / "tmp"
        self._place: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Create the directory and prove that it can be written.

        Raises:
            UsageError: the path is a file, or cannot be created or written; or one of its folders
                is a file, a link to nothing, or on another file system.
            StorageError: there is no space left, or the storage does not answer.
        """
        try:
            self._tmp.mkdir(parents=True, exist_ok=True)
            probe = self._temporary()
            probe.write_bytes(b"")
            probe.unlink()
            self._place = self._found()
        except (FileExistsError, NotADirectoryError):
            raise UsageError(
                f"results path {self.root} must be a directory, but it (or a part of it) is a "
                "file or a link to nothing; give another with --results"
            ) from None
        except OSError as error:
            if error.errno in _PASSING:
                raise storage_error(self.root, error) from None
            reason = os.strerror(error.errno or errno.EIO)
            raise UsageError(
                f"results path {self.root} cannot be written ({reason}); "
                "give another with --results"
            ) from None
        for name in FOLDERS:
            self._check_folder(self.root / name)

    def _check_folder(self, folder: Path) -> None:
        """Refuse a folder that nothing could be put into in one system call."""
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise UsageError(
                f"{folder} must be a directory, but is a file or a link to nothing; move it away"
            )
        if folder.stat().st_dev != self._tmp.stat().st_dev:
            raise UsageError(
                f"{folder} must be on the file system of {self._tmp}, but is on another; "
                "link the whole results directory instead"
            )

    def check(self) -> None:
        """Prove that the results directory is still the one that was prepared.

        Under the name of a mount that went away there is nothing, or an empty folder: there, all
        records would seem to be missing, and what is written would vanish when the mount is back.

        Raises:
            StorageError: it is not.
        """
        if self._place is None:
            return
        with storage_errors(self.root):
            found = self._found()
        if found != self._place:
            raise StorageError(
                f"{self.root}: is another directory than at the start; bring the storage back "
                "(is it mounted?) and run the same command again: what was finished is kept"
            )

    def _found(self) -> tuple[int, int]:
        found = self.root.stat()
        return found.st_dev, found.st_ino

    def sweep(self, older_than_s: float = 3600.0) -> None:
        """Remove temporary files that killed writers left behind.

        Their age is taken by the file system's own clock: a node's may be wrong, or jump. A
        process of this machine that lives keeps its files.
        """
        with storage_errors(self._tmp):
            probe = self._temporary()
            probe.write_bytes(b"")
            limit = probe.stat().st_mtime - older_than_s
            probe.unlink()
        for path in self._tmp.glob("*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < limit and not _writer_lives(path.name):
                    path.unlink()

    def write(self, path: Path, data: bytes) -> None:
        """Put `data` at `path`, replacing what is there; whole or not at all.

        A folder in its place is set aside.

        Raises:
            StorageError: the storage is full, gone or closed; nothing has changed.
        """
        with storage_errors(path), self._written(data) as temporary:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                set_aside(path)
            os.replace(temporary, path)
            sync_folder(path.parent)

    def write_new(self, path: Path, data: bytes) -> bool:
        """Put `data` at `path` unless something is there; return whether this call did it.

        Raises:
            StorageError: as `write`.
        """
        with storage_errors(path), self._written(data) as temporary:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # a file system without hard links: the last of equal writers wins
                if path.exists():
                    return False
                os.replace(temporary, path)
            return True

    def _temporary(self) -> Path:
        name = f"{socket.gethostname()}-{os.getpid()}-{next(_counter)}-{time.time_ns()}"
        return self._tmp / name

    @contextlib.contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """Give a temporary file that holds `data`; it does not outlive the block."""
        self.check()
        temporary = self._temporary()
        # below a root that is gone nothing is made anew
        self._tmp.mkdir(parents=self._place is None, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)
"""What may be otherwise when the same command runs again."""


def _writer_lives(name: str) -> bool:
    """Return whether a temporary file's writer is a living process of this machine."""
    host, _, rest = name.rpartition(f"{socket.gethostname()}-")
    pid = rest.partition("-")[0]
    return not host and bool(rest) and pid.isdigit() and Path("/proc", pid).exists()


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (names made by rename or link) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(descriptor)


def set_aside(path: Path) -> Path:
    """Rename a file that is not ours to `<name>.bad` (or `.bad-2`, …) and return the new path."""
    for number in itertools.count(1):
        target = path.with_name(path.name + (".bad" if number == 1 else f".bad-{number}"))
        if not os.path.lexists(target):
            with storage_errors(path):
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
        StorageError: the lock file cannot be opened, or the file system has no locks.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    descriptor = open_lock(path)
    try:
        while not lock(descriptor, path):
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(
                    f"{path} has been held by {_holder(path)} for {timeout_s:.0f} s"
                )
            time.sleep(0.1)
        with contextlib.suppress(OSError):  # for people only: a full disk ends the work elsewhere
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace") or "another process"
    return "another process"


def open_lock(path: Path) -> int:
    """Open (or make) a lock file and return its descriptor, which the caller closes.

    Raises:
        StorageError: something else stands there, or the storage is gone.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileExistsError(errno.EEXIST, "no file")
    return descriptor


def lock(descriptor: int, path: Path) -> bool:
    """Try to take the lock of an open file; the kernel frees it when the process ends.

    Raises:
        StorageError: the file system has no locks.
    """
    with storage_errors(path):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
