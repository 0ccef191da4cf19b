from __future__ import annotations

from pathlib import Path

import pytest
import torch
from flops import batch_flops, step_flops
from random_models import SHAPES, open_backbone
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toy_backbones import FAMILIES

from mpt.backbones import Backbone, load_backbone


def _counted(backbone: Backbone) -> tuple[float, float]:
    """Return the FLOPs of a training pass (by torch's counter, by the formula)."""
    ids = backbone.frequent_ids(60)
    rows = [(ids[:12], ids[5:10])] * 3 + [(ids[:7], ids[5:8])] * 2
    batch = backbone.collate(rows, [0, 1, 1, 0, 0])
    prompts = torch.randn(2, 4, backbone.d_model, requires_grad=True)
    # The counter knows the products of the math backend; of fused kernels it would count what
    # they compute again as well.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        nll, _ = backbone.row_losses(prompts, batch)
        nll.sum().backward()
    return counter.get_total_flops(), batch_flops(backbone, prompts, batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_formula_counts_what_torch_counts(family: str, tmp_path: Path) -> None:
    by_torch, by_formula = _counted(load_backbone(str(FAMILIES[family](tmp_path))))
    assert by_torch == by_formula  # both are whole numbers of the same products


def test_the_formula_counts_several_layers_and_a_head_width_that_is_not_the_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = {"d_model": 16, "d_ff": 24, "layers": 3, "heads": 2, "vocabulary": 70}
    monkeypatch.setitem(SHAPES, "toy-random", shape)
    by_torch, by_formula = _counted(open_backbone("toy-random", "cpu"))
    assert by_torch == by_formula


def test_flops_grow_with_the_rows_and_faster_than_the_length(toy_backbone: Backbone) -> None:
    from flops import shape_of

    shape = shape_of(toy_backbone)
    one = step_flops(shape, rows=1, s=32, t=8, tokens=8)
    assert step_flops(shape, rows=3, s=32, t=8, tokens=24) == 3 * one
    assert step_flops(shape, rows=1, s=64, t=16, tokens=16) > 2 * one
