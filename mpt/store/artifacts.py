"""Files that results refer to (prompts, checkpoints), in a directory or under any URI.

    artifacts = Artifacts("s3://bucket/folder")
    uri, digest = artifacts.write("rungs/maml/50.safetensors", data)
    data = artifacts.read(uri, digest)

A URI is opened by pyarrow (``s3://``, ``gs://``, ``abfs://``, ``hdfs://``, with its options in the
query: ``s3://bucket?endpoint_override=host:9000&scheme=http``) or, where pyarrow does not know it,
by fsspec (``sftp://``, ``memory://``, …). Nothing that is read is ever executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from functools import cached_property
from pathlib import Path

from mpt.errors import DataError, MptError, UsageError
from mpt.store.errors import one_line, storage_error, storage_errors
from mpt.store.filesystems import is_passing, read_regular, write_whole
from mpt.store.remote import Remote, is_absolute, local_path, name_parts, reaching, shown_uri


class Artifacts:
    """The files below one root.

    A file is named by its name below the root, or by the URI that `write` returned. Such a URI
    holds no user name and no password: a file below the root is opened as the root is. A local
    file that is no longer where its path says is looked for below the root, so that a directory
    of results can be moved.
    """

    def __init__(self, uri: str) -> None:
        self.uri = str(uri)
        self.local: Path | None = local_path(self.uri)
        """The root, if it is a local directory."""

    def write(self, name: str, data: bytes) -> tuple[str, str]:
        """Write a file below the root, in the place of an older one; whole or not at all.

        Returns:
            Its URI (of a local file: the absolute path) and the SHA-256 of its bytes.

        Raises:
            ValueError: `name` leaves the root.
            UsageError: the root is no place that can be opened.
            StorageError: the storage is full, gone, or does not let us write.
        """
        parts = name_parts(name)
        digest = hashlib.sha256(data).hexdigest()
        if self.local is not None:
            path = self.local.joinpath(*parts)
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, data)
            return str(path), digest
        remote = self._remote
        with reaching(f"{remote.shown}/{name}"):
            remote.write("/".join(parts), data)
        return remote.uri_of("/".join(parts)), digest

    def read(self, uri: str, digest: str = "") -> bytes:
        """Return what a file holds.

        Args:
            uri: what `write` returned, a name below the root, or any other path or URI.
            digest: SHA-256 that it must have; empty: any.

        Raises:
            DataError: it is absent, or its digest differs.
            StorageError: it cannot be reached.
        """
        location, shown = self._location(uri)
        if isinstance(location, Path):
            with storage_errors(location):
                data = read_regular(location)
        else:
            remote, path = location
            with reaching(shown):
                data = remote.read(path)
        if digest and hashlib.sha256(data).hexdigest() != digest:
            raise DataError(f"{shown}: its digest does not fit (cut short or changed)")
        return data

    def exists(self, uri: str) -> bool:
        """Return whether there is a file or folder.

        Raises:
            StorageError: the storage cannot be reached.
        """
        location, shown = self._location(uri)
        if isinstance(location, Path):
            with storage_errors(location):
                return location.exists()
        remote, path = location
        with reaching(shown):
            return remote.kind(path) != "NotFound"

    def fetch_folder(self, uri: str, to: Path) -> None:
        """Copy the files of a folder into a local one, which is made.

        Raises:
            DataError: there is no such folder.
            StorageError: it cannot be reached, or copied.
        """
        location, shown = self._location(uri)
        with storage_errors(to):
            to.mkdir(parents=True, exist_ok=True)
        if isinstance(location, Path):
            if not location.is_dir():
                raise DataError(f"{location}: there is no such folder")
            with reaching(shown):
                shutil.copytree(location, to, dirs_exist_ok=True)
            return
        remote, path = location
        with reaching(shown):
            if not remote.fetch(path, to):
                raise DataError(f"{shown}: there is no such folder")

    def remove_folder(self, name: str) -> None:
        """Remove a folder below the root and what is in it, if it is there.

        Raises:
            ValueError: `name` leaves the root.
            StorageError: the storage cannot be reached.
        """
        parts = name_parts(name)
        if self.local is not None:
            with storage_errors(self.local), contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.local.joinpath(*parts))
            return
        remote = self._remote
        with reaching(f"{remote.shown}/{name}"), contextlib.suppress(FileNotFoundError):
            remote.fs.delete_dir(remote.path("/".join(parts)))

    def check_writable(self) -> None:
        """Prove that a file can be written below the root, and read again.

        Raises:
            UsageError: it cannot; the text says why.
            StorageError: the storage is full or does not answer for now.
        """
        name, data = f".probe-{secrets.token_hex(8)}", b"probe"
        try:
            if self.local is not None:
                self._probe_folder(self.local / name, data)
                return
            uri, digest = self.write(name, data)
            self.read(uri, digest)
            self._remote.fs.delete_file(self._remote.path(name))
        except UsageError:
            raise
        except (MptError, OSError) as error:
            raise UsageError(
                f"--storage {shown_uri(self.uri)}: cannot be written ({one_line(error)}); give a "
                "directory, or the URI of a bucket that exists"
            ) from error

    def _probe_folder(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
            path.unlink()
        except OSError as error:
            if is_passing(error):
                raise storage_error(path.parent, error) from error
            raise UsageError(
                f"--storage {path.parent}: cannot be written ({os.strerror(error.errno or 0)}); "
                "give another directory or URI"
            ) from error

    @cached_property
    def _remote(self) -> Remote:
        return Remote(self.uri)

    def _location(self, uri: str) -> tuple[Path | tuple[Remote, str], str]:
        """Return where a file is, and what messages call it."""
        local = local_path(uri)
        if local is None:
            if self.local is None and (name := self._remote.name_of(uri)) is not None:
                return (self._remote, name), shown_uri(uri)
            return (Remote(uri), ""), shown_uri(uri)
        if not is_absolute(uri):
            if self.local is None:
                name = "/".join(name_parts(uri))
                return (self._remote, name), f"{self._remote.shown}/{name}"
            local = self.local.joinpath(*name_parts(uri))
        elif self.local is not None and not os.path.lexists(local):
            local = _moved(local, self.local)
        return local, str(local)

    def __reduce__(self) -> tuple[type[Artifacts], tuple[str]]:
        return Artifacts, (self.uri,)


def _moved(path: Path, root: Path) -> Path:
    """Return where a file of a root that was moved is now; `path` itself if it is nowhere."""
    parts = path.parts[1:]
    for begin in range(1, len(parts)):
        candidate = root.joinpath(*parts[begin:])
        if candidate.exists():
            return candidate
    return path
