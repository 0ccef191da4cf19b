from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mpt.checkpoints import TrajectoryCheckpoints, pack_state, unpack_state
from mpt.storage import Disk


def _state(step: int) -> dict[str, object]:
    return {
        "tensors": {"prompt": torch.full((2, 3), float(step)), "count": torch.tensor(step)},
        "meta": {"step_count": step, "loss": 1 / 3, "note": None, "list": [1, [2.5, "é"]]},
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


@pytest.fixture
def checkpoints(tmp_path: Path) -> TrajectoryCheckpoints:
    return TrajectoryCheckpoints(tmp_path / "trajectories" / "key", Disk(tmp_path))


def _fresh(checkpoints: TrajectoryCheckpoints) -> TrajectoryCheckpoints:
    return TrajectoryCheckpoints(checkpoints.folder, checkpoints.disk)


@pytest.mark.parametrize(
    "state",
    [
        _state(3),
        {},
        {"a": {"b": [torch.arange(4, dtype=torch.int64)]}},
        {"scalar": torch.tensor(-0.0, dtype=torch.float64), "bf": torch.ones(2).bfloat16()},
        {"view": torch.arange(6.0).reshape(2, 3).T},
    ],
)
def test_a_state_comes_back_bit_for_bit(state: dict[str, object]) -> None:
    assert _same(unpack_state(pack_state(state)), state)


def test_floats_survive_exactly_and_nan_too() -> None:
    back = unpack_state(pack_state({"x": 0.1 + 0.2, "nan": math.nan}))
    assert back["x"] == 0.1 + 0.2
    assert math.isnan(back["nan"])


@pytest.mark.parametrize("state", [{"a": object()}, {1: "text keys only"}, {"a": {1, 2}}])
def test_what_a_file_cannot_hold_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="checkpoint"):
        pack_state(state)


def test_the_newest_of_two_states_is_loaded(checkpoints: TrajectoryCheckpoints) -> None:
    assert checkpoints.load(at_most=99) is None
    for step in (1, 2, 3):
        checkpoints.save(step, _state(step))
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "checkpoint-a.bin",
        "checkpoint-b.bin",
    ]
    loaded = _fresh(checkpoints).load(at_most=99)
    assert loaded is not None
    assert loaded[0] == 3
    assert _same(loaded[1], _state(3))
    assert checkpoints.problems == []


def test_a_state_beyond_the_asked_step_is_passed_over(checkpoints: TrajectoryCheckpoints) -> None:
    checkpoints.save(2, _state(2))
    checkpoints.save(5, _state(5))
    loaded = checkpoints.load(at_most=4)
    assert loaded is not None
    assert loaded[0] == 2
    assert checkpoints.load(at_most=1) is None


@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.99])
def test_a_checkpoint_cut_short_falls_back_to_the_one_before_and_says_so(
    checkpoints: TrajectoryCheckpoints, part: float
) -> None:
    checkpoints.save(2, _state(2))
    checkpoints.save(4, _state(4))
    newest = checkpoints.folder / "checkpoint-b.bin"
    newest.write_bytes(newest.read_bytes()[: int(part * newest.stat().st_size)])
    again = _fresh(checkpoints)
    loaded = again.load(at_most=99)
    assert loaded is not None
    assert loaded[0] == 2
    assert len(again.problems) == 1
    assert str(newest) in again.problems[0]
    assert "going on from step 2" in again.problems[0]
    # the next save replaces the broken one, not the good one
    again.save(4, _state(4))
    assert _fresh(checkpoints).load(at_most=99)[0] == 4  # type: ignore[index]
    assert _fresh(checkpoints).load(at_most=3)[0] == 2  # type: ignore[index]


def test_one_changed_byte_is_found(checkpoints: TrajectoryCheckpoints) -> None:
    checkpoints.save(2, _state(2))
    path = checkpoints.folder / "checkpoint-a.bin"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert checkpoints.load(at_most=99) is None
    assert "starting from step 0" in checkpoints.problems[0]


def test_a_whole_file_with_a_foreign_content_is_no_state(
    checkpoints: TrajectoryCheckpoints,
) -> None:
    import hashlib

    payload = b"\x05\x00\x00\x00\x00\x00\x00\x00hello"
    head = f"mpt-checkpoint 1 7 {hashlib.sha256(payload).hexdigest()}\n".encode()
    checkpoints.folder.mkdir(parents=True)
    (checkpoints.folder / "checkpoint-a.bin").write_bytes(head + payload)
    assert checkpoints.load(at_most=99) is None
    assert "holds no state" in checkpoints.problems[0]
