from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
import torch

from mpt.backbones.describe import (
    AGREE,
    WORTH,
    bfloat16_speed_up,
    describe,
    lines,
    step_speed_up,
)
from mpt.backbones.load import load_backbone


@pytest.mark.parametrize(
    ("name", "kind", "position", "positions"),
    [
        ("qwen3", "causal", "append", 64),
        ("mpt", "causal", "prepend", 64),
        ("t5", "sequence to sequence", "prepend", None),
        ("pegasus", "sequence to sequence", "prepend", 64),
    ],
)
def test_a_description_says_what_a_model_is_and_what_suits_it(
    name: str, kind: str, position: str, positions: int | None, tmp_path: Path
) -> None:
    about = describe(str(tiny_models.save(name, tmp_path)), prompt=8, inputs=40, targets=4)
    assert (about.kind, about.position, about.positions) == (kind, position, positions)
    assert about.passes
    assert about.weights == sum(weight.numel() for weight in tiny_models.build(name).parameters())
    assert about.tokens == (8, 40, 4)
    assert about.memory["float32"].weights == 4 * about.weights
    assert about.memory["bfloat16"].fused < about.memory["float32"].fused
    text = "\n".join(lines(about))
    for said in (kind, f"suggested position   {position}", "check  passed", "GiB of it weights"):
        assert said in text


def test_inputs_are_as_long_as_the_positions_allow(tmp_path: Path) -> None:
    about = describe(str(tiny_models.save("qwen3", tmp_path)), prompt=8, inputs=500, targets=4)
    assert about.tokens == (8, 52, 4)


def test_bfloat16_is_suggested_only_where_it_was_measured_to_be_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that is faster is not enough: a whole step is, with the same gradients."""
    path = str(tiny_models.save("gpt2", tmp_path))
    cases = (
        (WORTH, WORTH, AGREE, "bfloat16"),
        (2.0, WORTH - 0.01, 1.0, "float32"),
        (2.0, 2.0, AGREE - 0.01, "float32"),
    )
    for block, step, cosine, precision in cases:
        monkeypatch.setattr("mpt.backbones.describe.bfloat16_speed_up", lambda *_, s=block: s)
        monkeypatch.setattr(
            "mpt.backbones.describe.step_speed_up", lambda *_, s=(step, cosine), **__: s
        )
        about = describe(path, prompt=4)
        assert about.precision == precision
        said = f"width is {block:.2f} × as fast on this cpu, a whole step {step:.2f} ×"
        assert said in lines(about)[-1]


def test_a_step_is_not_timed_where_matrices_alone_gain_too_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpt.backbones.describe.bfloat16_speed_up", lambda *_: WORTH - 0.01)
    monkeypatch.delattr("mpt.backbones.describe.step_speed_up")
    about = describe(str(tiny_models.save("gpt2", tmp_path)), prompt=4)
    assert about.precision == "float32"
    assert about.narrow.step is None
    assert "whole step" not in lines(about)[-1]


@pytest.mark.parametrize("name", ["qwen3", "mpt", "t5"])
def test_a_step_in_bfloat16_has_nearly_the_gradients_of_float32(name: str, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_models.save(name, tmp_path)), position="append")
    ratio, cosine = step_speed_up(backbone, rows=3, prompt=4, inputs=9, targets=3)
    assert 0.01 < ratio < 100
    assert 0.98 < cosine < 1 - 1e-9
    assert backbone.dtype == torch.float32


def test_the_measurement_is_a_ratio_of_two_times() -> None:
    assert 0.01 < bfloat16_speed_up(64, torch.device("cpu")) < 100


def test_a_model_that_fails_is_described_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpt.backbones.check._generation", lambda _: 0.79)
    about = describe(str(tiny_models.save("gpt2", tmp_path)), prompt=4)
    assert not about.passes
    assert any("0.79 (must be ≤ 0.0001)  FAILED" in line for line in lines(about))
    assert "check  FAILED: it cannot be used" in lines(about)
