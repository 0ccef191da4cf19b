"""What a file system can do, and files on it that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from mpt.errors import DataError

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)

_NETWORK = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "gfs2", "glusterfs"),
    *("gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs"),
)


def is_passing(error: OSError) -> bool:
    """Return whether the same may succeed later: the storage is full or does not answer."""
    return error.errno in _PASSING


def over_network(folder: Path) -> bool:
    """Return whether a folder is on a file system that several machines see.

    SQLite's write-ahead log needs memory that all its processes share, so it must not be used
    there. Where the system does not say (no ``/proc``), the answer is no.
    """
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
        resolved = folder.resolve()
    except OSError:
        return False
    best, kind = -1, ""
    for line in lines:
        words = line.split(" ")
        mount = Path(words[4].replace("\\040", " "))
        # later mounts hide earlier ones
        if len(mount.parts) >= best and resolved.is_relative_to(mount):
            best, kind = len(mount.parts), words[words.index("-") + 1]
    return kind in _NETWORK


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all, in the place of what is there.

    Raises:
        OSError: the file system refused; what was there before is still there.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(descriptor)


def read_regular(path: Path, at_most: int | None = None) -> bytes:
    """Return what a file holds.

    Args:
        path: the file.
        at_most: bytes; a larger file is not ours, and not read into memory.

    Raises:
        DataError: it is absent, too large, or no file (opening a pipe may never end).
        OSError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DataError(f"{path}: is not there") from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise
        raise DataError(f"{path}: is not a file ({os.strerror(error.errno)})") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise DataError(f"{path}: is not a file")
    with open(descriptor, "rb", buffering=0) as file:
        if at_most is not None and status.st_size > at_most:
            raise DataError(f"{path}: has {status.st_size} bytes, but must have at most {at_most}")
        return file.read()
