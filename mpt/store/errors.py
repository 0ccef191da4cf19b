"""Errors of the storage that holds results, each as one line with its cure."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from mpt.errors import DataError, MptError, StorageError, UsageError

AGAIN = "run the same command again: what was finished is kept"
ELSEWHERE = "give another with --results or --store"

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
_BRING_BACK = "bring the storage back (is it mounted?)"


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the one line for an error that the operating system met at `path`."""
    number = error.errno or errno.EIO
    cure = next((text for text, numbers in _CURES.items() if number in numbers), _BRING_BACK)
    return StorageError(f"{path}: {os.strerror(number)}; {cure} and {AGAIN}")


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system inside the block into a `StorageError` about `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


@contextlib.contextmanager
def database_errors(name: str, *, opening: bool = False) -> Iterator[None]:
    """Turn errors of a database inside the block into ours.

    Args:
        name: what the messages call the database.
        opening: whether it has not answered yet: then a wrong address or password is likely.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _translated(name, error, opening) from error


def one_line(error: BaseException, most: int = 300) -> str:
    """Return the text of an error on one line, or its type where it has no text."""
    text = " ".join(str(error).split())
    return text[:most] or type(error).__name__


def _translated(name: str, error: Exception, opening: bool) -> MptError:
    if isinstance(error, NoSuchModuleError):
        return UsageError(
            f"database {name}: there is no such kind of database ({one_line(error)}); give a "
            "path that ends in .db, or a URL such as postgresql://user@host/name"
        )
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(name, cause, opening)
    return _of_server(name, cause, opening)


def _of_sqlite(name: str, error: sqlite3.Error, opening: bool) -> MptError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    text = one_line(error)
    if code == sqlite3.SQLITE_READONLY_DBMOVED:
        return moved(name)
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StorageError(f"{name}: No space left on device; free some there and {AGAIN}")
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return DataError(
                f"{name}: is no whole SQLite database ({text}); move it away, or {ELSEWHERE}"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN if opening:
            return UsageError(f"{name}: cannot be opened ({text}); {ELSEWHERE}")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StorageError(f"{name}: {text}; let this user write there and {AGAIN}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StorageError(f"{name}: another process holds it ({text}); end it and {AGAIN}")
    return StorageError(f"{name}: {text}; {_BRING_BACK} and {AGAIN}")


def moved(name: str) -> StorageError:
    """Return the error of a database whose file is no longer the one that was opened."""
    return StorageError(
        f"{name}: is another file than at the start, or none; bring it back (is the storage "
        f"mounted?) and {AGAIN}"
    )


def _of_server(name: str, error: Exception, opening: bool) -> MptError:
    state = getattr(error, "sqlstate", None) or ""
    text = one_line(error)
    if state == "53100":  # disk_full
        return StorageError(f"{name}: the server's disk is full; free some there and {AGAIN}")
    if state == "42501":  # insufficient_privilege
        return UsageError(f"{name}: {text}; let this user make and write tables there")
    if opening:
        return UsageError(f"{name}: cannot be opened ({text}); check the URL given with --store")
    return StorageError(f"{name}: {text}; bring the server back and {AGAIN}")
