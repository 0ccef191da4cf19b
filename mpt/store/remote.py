"""File systems that are reached by a URI, through pyarrow or fsspec, and the names on them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from mpt.errors import DataError, MptError, StorageError, UsageError
from mpt.store.errors import AGAIN, one_line

_OBJECT_STORES = ("s3", "gcs", "abfs")
"""Kinds of file systems where an object appears when it is whole."""


class Remote:
    """A file system that is reached by a URI, and a place on it."""

    def __init__(self, uri: str) -> None:
        self.shown = shown_uri(uri)
        self._query = urlsplit(uri).query
        self.fs, self._root = _open(uri)
        self._root = self._root.rstrip("/")

    def path(self, name: str) -> str:
        """Return a name below the place as the file system's path."""
        return f"{self._root}/{name}" if name else self._root

    def uri_of(self, name: str) -> str:
        """Return the URI of a name, without user and password."""
        return f"{self.shown}/{name}" + (f"?{self._query}" if self._query else "")

    def name_of(self, uri: str) -> str | None:
        """Return the name of a URI below this place; None if it is elsewhere."""
        shown = shown_uri(uri)
        return shown[len(self.shown) + 1 :] if shown.startswith(f"{self.shown}/") else None

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        path = self.path(name)
        if self.fs.type_name in _OBJECT_STORES:
            self._put(path, data)
            return
        self.fs.create_dir(path.rpartition("/")[0], recursive=True)
        temporary = f"{path}.{secrets.token_hex(8)}.tmp"
        try:
            self._put(temporary, data)
            self.fs.move(temporary, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self.fs.delete_file(temporary)
            raise

    def _put(self, path: str, data: bytes) -> None:
        with self.fs.open_output_stream(path) as stream:
            stream.write(data)

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        with self.fs.open_input_stream(self.path(name)) as stream:
            return bytes(stream.read())

    def kind(self, name: str) -> str:
        """Return "File", "Directory" or "NotFound"."""
        return str(self.fs.get_file_info(self.path(name)).type.name)

    def fetch(self, name: str, to: Path) -> bool:
        """Copy the files below `name` into a local folder; return whether there were any."""
        from pyarrow import fs

        base = self.path(name)
        entries = self.fs.get_file_info(
            fs.FileSelector(base, allow_not_found=True, recursive=True)
        )
        files = [entry.path for entry in entries if entry.is_file]
        for path in files:
            name = path.lstrip("/")[len(base.lstrip("/")) + 1 :]
            target = to.joinpath(*name_parts(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            with self.fs.open_input_stream(path) as stream:
                target.write_bytes(stream.read())
        return bool(files)


def _open(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI as pyarrow's, and the path on it."""
    import pyarrow
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except pyarrow.ArrowNotImplementedError:
        return _open_with_fsspec(uri)
    except pyarrow.ArrowInvalid as error:
        if "Unrecognized filesystem" in str(error):
            return _open_with_fsspec(uri)
        raise _unusable(uri, error) from None
    except OSError as error:
        raise _unusable(uri, error) from None
    return filesystem, path


def _open_with_fsspec(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs
    from pyarrow import fs

    try:
        filesystem, path = url_to_fs(uri)
    except Exception as error:  # every protocol is a package of its own, with errors of its own
        raise _unusable(uri, error) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def _unusable(uri: str, error: Exception) -> UsageError:
    return UsageError(
        f"--storage {shown_uri(uri)}: cannot be opened ({one_line(error)}); give a directory, or "
        "a URI that pyarrow or an installed fsspec package opens"
    )


@contextlib.contextmanager
def reaching(shown: str) -> Iterator[None]:
    """Turn whatever a storage's package raises inside the block into our errors."""
    try:
        yield
    except MptError:
        raise
    except FileNotFoundError:
        raise DataError(f"{shown}: is not there") from None
    except Exception as error:
        raise StorageError(
            f"{shown}: {one_line(error)}; bring the storage back (is it reachable, and may this "
            f"user use it?) and {AGAIN}"
        ) from error


def local_path(uri: str) -> Path | None:
    """Return the local path that a path or URI means; None: it is not local."""
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri else Path(uri).absolute()


def is_absolute(uri: str) -> bool:
    """Return whether a local path or URI does not depend on a root."""
    return uri.startswith(("/", "file://"))


def shown_uri(uri: str) -> str:
    """Return a URI without user, password and options."""
    if "://" not in uri:
        return uri
    scheme, _, rest = uri.partition("://")
    address = rest.partition("?")[0]
    host, slash, path = address.partition("/")
    # the part before "@" names a container on Azure, and a user (and a secret) elsewhere
    host = host if scheme.startswith("abfs") else host.rpartition("@")[2]
    return f"{scheme}://" + f"{host}{slash}{path}".rstrip("/")


def name_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a name below a root.

    Raises:
        ValueError: it is empty or leaves the root.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(f"artifact name {name!r}: must be a relative path below the root")
    return parts
