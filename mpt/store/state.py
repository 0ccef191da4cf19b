"""A trial's state as bytes, and as a checkpoint folder.

A state is a tree of dictionaries (text keys), lists, numbers, texts, None and tensors. Tensors go
to safetensors, the rest to JSON: reading a state executes nothing.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from mpt.errors import DataError
from mpt.store.errors import storage_errors
from mpt.store.filesystems import read_regular, write_whole

if TYPE_CHECKING:
    import torch

SCHEMA = 1
"""Version of the format of a checkpoint folder."""

TENSORS, NOTE = "state.safetensors", "state.json"

_TENSOR = "__tensor__"
_MAX_NOTE = 2**20
"""Bytes; a larger note is not ours."""


def pack_state(state: dict[str, Any]) -> bytes:
    """Return a state as bytes.

    Raises:
        TypeError: it holds what a file cannot hold.
    """
    import torch  # only who computes has states; who looks at results waits for no torch
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    tree = _without_tensors(state, "state", tensors)
    # safetensors cannot hold an empty table of tensors together with metadata on every version
    tensors.setdefault("_", torch.zeros(1))
    return save(tensors, metadata={"tree": json.dumps(tree)})


def unpack_state(data: bytes) -> dict[str, Any]:
    """Return the state that `pack_state` was given; tensors are fresh copies."""
    from safetensors.torch import load

    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return _with_tensors(json.loads(header["__metadata__"]["tree"]), load(data))


def _without_tensors(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    import torch

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


def write_folder_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a state as the checkpoint folder `folder`, which is made.

    ``state.safetensors`` holds everything; ``state.json`` its size and SHA-256, and, for people,
    the numbers and texts that stand at the top of the state.

    Raises:
        StorageError: the disk is full or gone.
        TypeError: the state holds what a file cannot hold.
    """
    data = pack_state(state)
    meta = {name: part for name, part in state.items() if isinstance(part, (bool, int, str))}
    note = {
        "schema": SCHEMA,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "meta": meta,
    }
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / TENSORS, data)
        write_whole(folder / NOTE, json.dumps(note, indent=1, sort_keys=True).encode())


def read_folder_state(folder: Path) -> dict[str, Any]:
    """Return the state in a checkpoint folder.

    Raises:
        DataError: the folder is absent, torn, foreign, or of another version.
        StorageError: it cannot be read.
    """
    note = _read_note(folder / NOTE)
    path = folder / TENSORS
    with storage_errors(path):
        data = read_regular(path, note["bytes"])
    if len(data) != note["bytes"] or hashlib.sha256(data).hexdigest() != note["sha256"]:
        raise DataError(f"{path}: its checksum does not fit (cut short or changed)")
    try:
        return unpack_state(data)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise DataError(f"{path}: holds no state ({error})") from None


def _read_note(path: Path) -> dict[str, Any]:
    with storage_errors(path):
        data = read_regular(path, _MAX_NOTE)
    try:
        note = json.loads(data)
        schema, size, sha = note["schema"], note["bytes"], note["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError(f"{path}: is no note of a checkpoint of this program") from None
    if schema != SCHEMA:
        raise DataError(f"{path}: has schema {schema!r}, but this program reads {SCHEMA}")
    if not isinstance(size, int) or not isinstance(sha, str):
        raise DataError(f"{path}: is no note of a checkpoint of this program")
    return {"bytes": size, "sha256": sha}


__all__ = ["pack_state", "read_folder_state", "unpack_state", "write_folder_state"]
