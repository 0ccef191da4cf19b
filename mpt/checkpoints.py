"""A trajectory's state on disk: two files written in turn, each with a checksum.

A state is a tree of dictionaries (text keys), lists, numbers, texts, None and tensors, as
`UpstreamRun.state_dict()` gives it. Tensors go to safetensors, the rest to JSON: reading a
checkpoint executes nothing.

File: one line ``mpt-checkpoint 1 <steps> <SHA-256 of the rest>``, then the safetensors bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from mpt.errors import DataError
from mpt.storage import MAX_JSON_BYTES, Disk, open_file
from mpt.storage_errors import storage_errors

_MAGIC = "mpt-checkpoint 1"
_TENSOR = "__tensor__"
_HEAD_BYTES = 128
"""The first line of a checkpoint is shorter."""


def pack_state(state: dict[str, Any]) -> bytes:
    """Return a state tree as bytes."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _without_tensors(state, "state", tensors)
    # safetensors cannot hold an empty table of tensors together with metadata on every version
    tensors.setdefault("_", torch.zeros(1))
    return save_tensors(tensors, metadata={"tree": json.dumps(tree)})


def unpack_state(data: bytes) -> dict[str, Any]:
    """Return the state tree that `pack_state` was given; tensors are fresh copies."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return _with_tensors(json.loads(header["__metadata__"]["tree"]), load_tensors(data))


def _without_tensors(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: path}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{path}: the keys of a checkpoint's tables must be texts")
        return {
            key: _without_tensors(item, f"{path}.{key}", tensors) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_tensors(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path}: a checkpoint cannot hold a {type(value).__name__}")


def _with_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    return value


def _read(path: Path) -> tuple[int, dict[str, Any]]:
    with storage_errors(path), _present(path), open_file(path) as (file, size):
        head, line_end, _ = file.read(_HEAD_BYTES).partition(b"\n")
        words = head.decode("ascii", "replace").split(" ")
        if " ".join(words[:2]) != _MAGIC or len(words) != 4 or not words[2].isdigit():
            raise DataError(f"{path}: not a checkpoint of this program (or of another version)")
        file.seek(len(head) + len(line_end))
        # a foreign file may be larger than memory: a large one is read if its length is right
        fits = size <= MAX_JSON_BYTES or _state_bytes(file) == size - file.tell()
        payload = file.read() if fits else b""
    if hashlib.sha256(payload).hexdigest() != words[3]:
        raise DataError(f"{path}: its checksum does not fit (cut short or changed)")
    try:
        return int(words[2]), unpack_state(payload)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise DataError(f"{path}: holds no state ({error})") from None


class _Absent(Exception):
    """There is no checkpoint."""


@contextlib.contextmanager
def _present(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise _Absent from None


def _state_bytes(file: IO[bytes]) -> int | None:
    """Return the length of the safetensors that begin here by their own header; None: no header.

    The file's position stays.
    """
    begin = file.tell()
    try:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_JSON_BYTES:
            return None
        header = json.loads(file.read(length))
        ends = [row["data_offsets"][1] for name, row in header.items() if name != "__metadata__"]
        return 8 + length + max(ends, default=0)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    finally:
        file.seek(begin)


@dataclass
class TrajectoryCheckpoints:
    """The two checkpoints ``checkpoint-a`` and ``checkpoint-b`` of one trajectory."""

    folder: Path
    """``results/trajectories/<key>``."""
    disk: Disk
    """Writer of the results directory."""
    problems: list[str] = field(default_factory=list)
    """One line for every checkpoint that could not be used, and what was done instead."""
    _next: str = "a"

    def save(self, steps: int, state: dict[str, Any]) -> None:
        """Write the state after `steps` steps over the older of the two checkpoints."""
        payload = pack_state(state)
        head = f"{_MAGIC} {steps} {hashlib.sha256(payload).hexdigest()}\n".encode()
        self.disk.write(self._path(self._next), head + payload)
        self._next = "b" if self._next == "a" else "a"

    def load(self, at_most: int) -> tuple[int, dict[str, Any]] | None:
        """Return (steps, state) of the newest whole checkpoint, or None if there is none.

        Args:
            at_most: a checkpoint after more steps than these is of no use and passed over.

        Raises:
            StorageError: a file cannot be read; it may be a good one.
        """
        found: dict[str, tuple[int, dict[str, Any]]] = {}
        broken = []
        for letter in "ab":
            try:
                steps, state = _read(self._path(letter))
                if steps <= at_most:
                    found[letter] = steps, state
            except _Absent:
                continue
            except DataError as error:
                broken.append((letter, str(error)))
        best = max(found, key=lambda letter: found[letter][0], default=None)
        for _, text in broken:
            course = f"going on from step {found[best][0]}" if best else "starting from step 0"
            self.problems.append(f"{text}; {course}")
        if best is None:
            return None
        self._next = "b" if best == "a" else "a"
        return found[best]

    def _path(self, letter: str) -> Path:
        return self.folder / f"checkpoint-{letter}.bin"
