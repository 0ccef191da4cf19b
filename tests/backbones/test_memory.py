from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor
from toy_backbones import FAMILIES

from mpt.backbones import Backbone, Row, load_backbone, memory
from mpt.backbones.memory import GIB, PUBLISHED, estimate


# Published sizes: 250 M, 783 M and 2.85 G (T5 v1.1), 406 M (BART), 774 M (GPT-2), 494 M and
# 1.54 G (Qwen 2.5), 1.24 G (Llama 3.2).
@pytest.mark.parametrize(
    ("name", "millions"),
    list(zip(PUBLISHED, (248, 783, 2850, 406, 774, 494, 1544, 1236), strict=True)),
)
def test_the_weights_of_published_backbones_are_counted_right(name: str, millions: int) -> None:
    counted = estimate(name, rows=1, inputs=8, targets=4).weights / 2  # two bytes each
    assert counted / 1e6 == pytest.approx(millions, abs=1)


def test_t5_xl_fits_an_80_gb_gpu_with_a_batch_of_full_length() -> None:
    """Eight rows of 512 + 100 tokens, even with every attention matrix kept."""
    found = estimate("google/t5-xl-lm-adapt", rows=8)
    assert 5 < found.weights / GIB < 6
    assert found.fused < found.total < 0.9 * 80e9


@pytest.mark.parametrize("family", [*FAMILIES, *tiny_models.ARCHITECTURES])
def test_the_estimate_is_what_a_real_pass_keeps(family: str, tmp_path: Path) -> None:
    """Tensors saved for the backward pass of a real model, counted in the pass itself.

    Every row is a run by itself, so that it is read whole; rows that share a prompt keep less.
    """
    if family in tiny_models.ARCHITECTURES:
        tiny_models.save(family, tmp_path)
    else:
        FAMILIES[family](tmp_path)
    backbone = load_backbone(str(tmp_path), check=False)
    rows, p, n, t = 3, 6, 27, 11
    apart = _kept(backbone, p, [([5] * n, [6] * t)] * rows, list(range(rows)))
    together = _kept(backbone, p, [([5] * n, [6] * t)] * rows, [0] * rows)
    found = estimate(str(tmp_path), rows=rows, prompt=p, inputs=n, targets=t, dtype=torch.float32)
    # The estimate has the logits three times, as they are at the head's peak; the loss keeps one.
    found_kept = found.total - found.weights - 2 * 4 * rows * t * backbone.vocabulary_size
    # Meta tensors and the CPU take scaled dot products apart a little differently.
    assert found_kept == pytest.approx(apart, rel=0.2)
    assert together < 1.02 * apart
    assert found.attention > 0


def _kept(backbone: Backbone, p: int, rows: list[Row], runs: list[int]) -> int:
    """Return the bytes that a training pass keeps, weights aside."""
    batch = backbone.collate(rows, runs)
    known = {weight.untyped_storage().data_ptr() for weight in backbone.model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.untyped_storage().data_ptr() not in known:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    prompts = torch.randn(max(runs) + 1, p, backbone.d_model, requires_grad=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with backbone.second_order(), hooks:
        backbone.run_losses(prompts, batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_activations_grow_with_the_rows_and_weights_do_not() -> None:
    one, four = (estimate("facebook/bart-large", rows=rows, targets=4) for rows in (1, 4))
    assert one.weights == four.weights
    assert four.attention == pytest.approx(4 * one.attention, rel=0.01)
    assert four.activations == pytest.approx(4 * one.activations, rel=0.01)


def test_a_length_that_equals_a_width_does_not_change_the_split() -> None:
    """64 target tokens and heads of width 64: queries are not attention matrices."""
    at, beside = (estimate("facebook/bart-large", rows=2, targets=t) for t in (64, 66))
    assert at.activations == pytest.approx(beside.activations, rel=0.02)


def test_the_command_prints_the_parts_and_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    assert memory.main(["google/t5-xl-lm-adapt", "--rows", "2", "--input", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "weights",
        "activations",
        "fused",
        "attention",
        "unfused",
    ]
    sizes = [float(line.split()[-2]) for line in lines]
    assert sizes[4] == pytest.approx(sizes[0] + sizes[1] + sizes[3], abs=0.03)


@pytest.mark.parametrize("wrong", [["./nowhere"], ["embedded", "--rows", "0"]])
def test_wrong_arguments_end_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code: Any
    try:
        code = memory.main(wrong)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert capsys.readouterr().err.strip()
