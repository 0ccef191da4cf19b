"""What one node of a cluster sees: results directory, versions, GPUs.

`look` runs on the node, `signed` and `reply_seen` in the driver. Both sides write a file that the
other has to read, and the driver holds a lock that the node must run into.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mpt.errors import UsageError
from mpt.provenance import provenance

SETTLE_S = 5.0
"""Seconds a new file may take to be seen elsewhere (NFS caches directories)."""

MOUNT = "mount the shared file system there at this path, or give a shared one with --results"


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A file that the driver has written into the results directory, and holds locked."""

    path: Path
    secret: str
    """What it says."""

    @property
    def results(self) -> Path:
        """The results directory."""
        return self.path.parent.parent

    def reply(self, node: str) -> Path:
        """Return the file in which a node repeats the secret."""
        return self.path.with_name(f"{self.path.name}-{node[:16]}")


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What a node is asked."""

    node: str
    """Ray's id of the node."""
    sign: Sign | None
    """None: the search writes nothing."""
    gpus: bool
    """Whether the trials use GPUs."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a node has seen."""

    versions: Mapping[str, str]
    """Package → version; "source" → digest of mpt's source files."""
    storage: str | None
    """What is wrong with the results directory; None: nothing."""
    gpus: tuple[int, ...]
    """Free bytes of every GPU; empty where no GPUs are used."""


def look(errand: Errand) -> Sight:
    """Look around; this runs on the node."""
    return Sight(
        versions=versions(),
        storage=None if errand.sign is None else _storage(errand.sign, errand.node),
        gpus=_free_gpu_bytes() if errand.gpus else (),
    )


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that have to be equal on all nodes.

    torch's build ("+cpu", "+cu128") may differ: a head without GPUs needs no CUDA.
    """
    found = provenance()["versions"]
    assert isinstance(found, dict)
    plain = {name: version.partition("+")[0] for name, version in found.items()}
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


def _free_gpu_bytes() -> tuple[int, ...]:
    """Return the free memory of every GPU this process sees (not run on a GPU so far)."""
    import torch

    return tuple(torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count()))


def _storage(sign: Sign, node: str) -> str | None:
    """Return what is wrong with the results directory as this node sees it; leave a reply."""
    results = sign.results
    if _read_soon(sign.path) != sign.secret:
        return f"does not see what the driver writes to {results}; {MOUNT}"
    try:
        with sign.path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return (
                    f"does not see the driver's file lock in {results}; mount it with locks that "
                    "hold between machines (NFS ≥ 4, not nolock or local_lock)"
                )
        with sign.reply(node).open("w") as file:
            _put(file, sign.secret)
    except OSError as error:
        return f"cannot write and lock files in {results} ({error.strerror}); {MOUNT}"
    return None


@contextlib.contextmanager
def signed(results: Path) -> Iterator[Sign]:
    """Put a locked file into the results directory for the time of the block.

    Raises:
        UsageError: the directory cannot be written, or holds no locks.
    """
    secret = secrets.token_hex(16)
    sign = Sign(path=results / "tmp" / f"preflight-{secret[:8]}", secret=secret)
    with contextlib.ExitStack() as stack:
        try:
            sign.path.parent.mkdir(parents=True, exist_ok=True)
            stack.callback(_remove, sign)
            file = stack.enter_context(sign.path.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
            _put(file, secret)
        except OSError as error:
            raise UsageError(
                f"results path {results} is no place for a search on a cluster "
                f"({error.strerror}); it needs a shared file system with file locks; give another "
                "with --results"
            ) from None
        yield sign


def _remove(sign: Sign) -> None:
    for path in sign.path.parent.glob(f"{sign.path.name}*"):
        path.unlink(missing_ok=True)


def reply_seen(sign: Sign, node: str) -> bool:
    """Return whether what a node has written arrives in the driver."""
    return _read_soon(sign.reply(node)) == sign.secret


def _put(file: TextIO, text: str) -> None:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def _read_soon(path: Path) -> str | None:
    """Return what a file says, as soon as it is there; None: it is not, or cannot be read."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        try:
            if text := path.read_text():
                return text
        except FileNotFoundError:
            pass
        except OSError:
            return None
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
