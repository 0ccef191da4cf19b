"""A trial's state as bytes and as a checkpoint folder."""

from __future__ import annotations

import json
import math
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from mpt.errors import DataError, StorageError
from mpt.store.state import pack_state, read_folder_state, unpack_state, write_folder_state

pytestmark = pytest.mark.timeout(300)

HUGE = 10 * 2**30


def _state(step: int) -> dict[str, Any]:
    return {
        "steps": step,
        "tensors": {"prompt": torch.full((2, 3), float(step)), "count": torch.tensor(step)},
        "meta": {"loss": 1 / 3, "note": None, "list": [1, [2.5, "é"]]},
    }


def _same(left: object, right: object) -> bool:
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.equal(right) and left.dtype == right.dtype
    if isinstance(left, dict):
        assert isinstance(right, dict)
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return isinstance(right, list) and all(map(_same, left, right))
    return left == right


STATES: list[dict[str, Any]] = [
    _state(3),
    {},
    {"a": {"b": [torch.arange(4, dtype=torch.int64)]}},
    {"scalar": torch.tensor(-0.0, dtype=torch.float64), "bf": torch.ones(2).bfloat16()},
    {"view": torch.arange(6.0).reshape(2, 3).T},
]


@pytest.mark.parametrize("state", STATES)
def test_a_state_comes_back_bit_for_bit(state: dict[str, Any], tmp_path: Path) -> None:
    assert _same(unpack_state(pack_state(state)), state)
    write_folder_state(tmp_path / "checkpoint", state)
    assert _same(read_folder_state(tmp_path / "checkpoint"), state)


def test_floats_survive_exactly_and_nan_too() -> None:
    back = unpack_state(pack_state({"x": 0.1 + 0.2, "nan": math.nan}))
    assert back["x"] == 0.1 + 0.2
    assert math.isnan(back["nan"])


@pytest.mark.parametrize("state", [{"a": object()}, {1: "text keys only"}, {"a": {1, 2}}])
def test_what_a_file_cannot_hold_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="checkpoint"):
        pack_state(state)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder_state(tmp_path / "checkpoint", _state(3))
    return tmp_path / "checkpoint"


def test_a_folder_holds_two_files_and_a_note_for_people(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["state.json", "state.safetensors"]
    note = json.loads((folder / "state.json").read_text())
    assert note["meta"] == {"steps": 3}
    assert note["schema"] == 1


def test_a_later_state_replaces_an_earlier_one(folder: Path) -> None:
    write_folder_state(folder, _state(4))
    assert _same(read_folder_state(folder), _state(4))


@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.99])
@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_file_that_is_cut_short_is_named(folder: Path, name: str, part: float) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(DataError, match=rf"{name}: (its checksum does not fit|is no note)"):
        read_folder_state(folder)


def test_one_changed_byte_is_found(folder: Path) -> None:
    path = folder / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"state\.safetensors: its checksum does not fit"):
        read_folder_state(folder)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_an_absent_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: is not there"):
        read_folder_state(folder)


def _note(folder: Path, **changes: Any) -> None:
    path = folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_of_another_version_is_refused(folder: Path) -> None:
    _note(folder, schema=2)
    with pytest.raises(DataError, match="has schema 2, but this program reads 1"):
        read_folder_state(folder)


@pytest.mark.parametrize(
    "text", ["[1]", "{}", "[" * 100_000, '{"schema":1,"bytes":"1","sha256":1}']
)
def test_a_foreign_note_is_refused(folder: Path, text: str) -> None:
    (folder / "state.json").write_text(text)
    with pytest.raises(DataError, match=r"state\.json: is no note of a checkpoint"):
        read_folder_state(folder)


def test_a_whole_file_with_a_foreign_content_is_no_state(folder: Path) -> None:
    import hashlib

    for foreign in (b"\x05\x00\x00\x00\x00\x00\x00\x00hello", b"", b"\x02" + bytes(7) + b"{}"):
        (folder / "state.safetensors").write_bytes(foreign)
        _note(folder, sha256=hashlib.sha256(foreign).hexdigest(), bytes=len(foreign))
        with pytest.raises(DataError, match=r"state\.safetensors: holds no state"):
            read_folder_state(folder)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link to itself"])
def test_what_is_no_file_is_not_waited_for(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    with pytest.raises(DataError, match=f"{name}: is not a file"):
        read_folder_state(folder)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_huge_file_is_not_read_into_memory(folder: Path, name: str) -> None:
    with (folder / name).open("r+b") as file:
        file.truncate(HUGE)  # sparse: it takes no room
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=f"{name}: has {HUGE} bytes, but must have at most"):
        read_folder_state(folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * 1024, f"{grown} KiB were taken"  # of 10 GiB


def test_a_failed_write_is_a_storage_error_and_leaves_the_older_state(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match="No space left on device; free some there and"):
            write_folder_state(folder, _state(4))
    assert _same(read_folder_state(folder), _state(3))
