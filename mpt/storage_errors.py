"""Errors of the storage that holds results, each as one line with its cure."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mpt.errors import StorageError

_CURES = {
    "free some there": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "move away what stands there": (
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.ENXIO,
    ),
    "let this user read and write there": (errno.EACCES, errno.EPERM, errno.EROFS),
    "give a directory on a file system with file locks (--results)": (
        errno.ENOLCK,
        errno.ENOSYS,
        errno.ENOTSUP,
    ),
}
_ELSE = "bring the storage back (is it mounted?)"


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the one line for an error that the operating system met at `path`."""
    number = error.errno or errno.EIO
    cure = next((text for text, numbers in _CURES.items() if number in numbers), _ELSE)
    return StorageError(
        f"{path}: {os.strerror(number)}; {cure} and run the same command again: what was "
        "finished is kept"
    )


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system inside the block into a `StorageError` about `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error
