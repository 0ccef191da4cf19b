"""Spaces with ``decay = true``: every number of steps is a horizon and a trajectory of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import mpt
from mpt.config import UpstreamConfig
from mpt.errors import DataError, UsageError
from mpt.study.presets import load_smoke_size
from mpt.study.spaces import SPACES, Space, load_space
from mpt.study.specs import UpstreamSpec

TEXT = """
[toy]
title = "t"
source = "s"
[toy.search]
outer_lr = { values = [0.1, 0.2] }
steps = { values = [4, 8, 16], decay = true }
[toy.fixed]
batch_size = 3
[toy.first]
outer_lr = 0.2
"""


def _load(folder: Path, text: str, method: str = "maml") -> Space:
    (folder / f"{method}.toml").write_text(text)
    return load_space(method, "toy", folder)


def _shape(spec: UpstreamSpec) -> tuple[float, int | None, tuple[int, ...]]:
    assert isinstance(spec.config, UpstreamConfig)
    return spec.config.outer_lr, spec.config.decay_horizon, spec.rungs


def test_every_step_is_a_horizon_and_a_trajectory_of_its_own(tmp_path: Path) -> None:
    space = _load(tmp_path, TEXT)
    shapes = [_shape(spec) for spec in space.grid()]
    assert shapes[0] == (0.2, 4, (4,))  # the first point, at the fewest steps
    assert sorted(shapes) == sorted((rate, n, (n,)) for rate in (0.1, 0.2) for n in (4, 8, 16))
    assert space.size == 6
    assert len({spec.name for spec in space.grid()}) == 6


def test_random_draws_and_stored_settings_hold_the_horizon(tmp_path: Path) -> None:
    space = _load(tmp_path, TEXT)
    drawn = space.sample(6, seed=1)
    assert sorted(map(_shape, drawn)) == sorted(map(_shape, space.grid()))
    assert [space.trajectory(space.settings(spec)) for spec in drawn] == drawn


def test_without_decay_the_same_steps_are_rungs_of_one_trajectory(tmp_path: Path) -> None:
    for text in (
        TEXT.replace(", decay = true", ""),
        TEXT.replace("decay = true", "decay = false"),
    ):
        shapes = [_shape(spec) for spec in _load(tmp_path, text).grid()]
        assert shapes == [(0.2, None, (4, 8, 16)), (0.1, None, (4, 8, 16))]


def test_a_smoke_run_decays_within_its_own_steps(tmp_path: Path) -> None:
    size = load_smoke_size()
    space = _load(tmp_path, TEXT).at_steps(size.steps)
    assert {_shape(spec)[1:] for spec in space.grid()} == {(n, (n,)) for n in size.steps}
    assert space.first == {"outer_lr": 0.2, "decay_horizon": size.steps[0]}


def test_python_says_it_alike(tmp_path: Path) -> None:
    own = mpt.Space(
        "maml",
        outer_lr=[0.1, 0.2],
        batch_size=3,
        steps=[4, 8, 16],
        decay=True,
        first={"outer_lr": 0.2},
    )
    assert own.grid() == _load(tmp_path, TEXT).grid()
    with pytest.raises(UsageError, match="decay is True, and decay_horizon is given too"):
        mpt.Space("maml", steps=4, decay=True, decay_horizon=4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("decay = true", "decay = 1", r"steps\] decay is 1, but must be true or false"),
        ("batch_size = 3", "decay_horizon = 9", r"decay is true, and decay_horizon is given too"),
        ("outer_lr = {", "decay_horizon = {values = [9]}\nouter_lr = {", r"is given too"),
        ("[4, 8, 16]", "[8, 4]", r"steps\] must hold values, whole numbers ≥ 1, ascending"),
    ],
)
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    with pytest.raises(DataError, match=message):
        _load(tmp_path, TEXT.replace(old, new, 1))


def test_epochs_have_no_horizon(tmp_path: Path) -> None:
    text = TEXT.replace("steps = { values = [4, 8, 16]", "epochs = { values = [4, 8, 16]")
    with pytest.raises(DataError, match="decay is true, but needs steps"):
        _load(tmp_path, text, "multitask")


def test_the_shipped_one_is_used() -> None:
    shipped = load_space("maml", "embedded_decay", SPACES)
    assert {(_shape(spec)[1],) == _shape(spec)[2] for spec in shipped.grid()} == {True}
