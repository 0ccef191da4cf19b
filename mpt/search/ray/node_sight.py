"""What one node of a cluster sees: storage, versions, GPUs.

`look` runs on the node, `signed` and `reply_seen` in the driver. Both sides write a file that the
other has to read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mpt.errors import MptError, UsageError
from mpt.provenance import provenance
from mpt.store.artifacts import Artifacts

SETTLE_S = 5.0
"""Seconds a new file may take to be seen elsewhere (NFS caches directories)."""

SHARE = (
    "let the node reach it (a mount at the same path, or credentials for the bucket), or give "
    "another with --storage, such as s3://bucket/folder"
)


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A file that the driver has written into the storage."""

    files: str
    """Root of the storage."""
    folder: str
    secret: str
    """What it says."""

    @property
    def name(self) -> str:
        """Its name below the root."""
        return f"{self.folder}/driver"

    def reply(self, node: str) -> str:
        """Return the name of the file in which a node repeats the secret."""
        return f"{self.folder}/{node[:16]}"


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a node has seen."""

    versions: Mapping[str, str]
    """Package → version; "source" → digest of mpt's source files."""
    storage: str | None
    """What is wrong with the storage; None: nothing."""
    gpus: int
    """GPUs that torch sees; 0 where none are used."""


def look(node: str, sign: Sign | None, gpus: bool) -> Sight:
    """Look around; this runs on the node.

    Args:
        node: Ray's id of it.
        sign: None: the search writes nothing.
        gpus: whether the trials use GPUs.
    """
    return Sight(
        versions=versions(),
        storage=None if sign is None else _storage(sign, node),
        gpus=_gpu_count() if gpus else 0,
    )


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that have to be equal on all nodes.

    torch's build ("+cpu", "+cu128") may differ: a head without GPUs needs no CUDA.
    """
    packages = provenance()["versions"]
    assert isinstance(packages, dict)
    plain = {name: version.partition("+")[0] for name, version in packages.items()}
    return {**plain, "mpt's source": _source_digest()}


def _source_digest() -> str:
    """Return the digest of names and contents of this package's source files."""
    package = Path(__file__).resolve().parents[2]
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".toml"):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{path.relative_to(package)} {content}\n".encode())
    return whole.hexdigest()[:12]


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def _storage(sign: Sign, node: str) -> str | None:
    """Return what is wrong with the storage as this node sees it; leave a reply there."""
    try:
        files = Artifacts(sign.files)
        if _read_soon(files, sign.name) != sign.secret:
            return f"does not see what the driver writes to {sign.files}; {SHARE}"
        files.write(sign.reply(node), sign.secret.encode())
    except MptError as error:
        return f"cannot use {sign.files} ({error}); {SHARE}"
    return None


@contextlib.contextmanager
def signed(files: str) -> Iterator[Sign]:
    """Put a file into the storage for the time of the block.

    Raises:
        UsageError: the storage cannot be written.
    """
    secret = secrets.token_hex(16)
    sign = Sign(files=files, folder=f"preflight-{secret[:8]}", secret=secret)
    try:
        where = Artifacts(files)
        where.write(sign.name, secret.encode())
    except MptError as error:
        raise UsageError(
            f"{files} is no place for the files of a search on a cluster ({error}); give another "
            "with --storage"
        ) from None
    try:
        yield sign
    finally:
        with contextlib.suppress(MptError):
            where.remove_folder(sign.folder)


def reply_seen(sign: Sign, node: str) -> bool:
    """Return whether what a node has written arrives in the driver."""
    return _read_soon(Artifacts(sign.files), sign.reply(node)) == sign.secret


def _read_soon(files: Artifacts, name: str) -> str | None:
    """Return what a file says, as soon as it is there; None: it is not, or cannot be read."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        with contextlib.suppress(MptError):
            return files.read(name).decode(errors="replace")
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
