from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from meta_step import Size
from sides import shared_passes
from torch import Tensor

from mpt.backbones import Backbone, load_backbone
from mpt.config import UpstreamConfig

SIZE = Size(batch=2, length=8, inner_steps=2)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("embedded")


def test_the_sides_read_the_same_rows_in_other_passes(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    run_losses = Backbone.run_losses

    def watched(self: Backbone, prompts: Tensor, batch: Any) -> Tensor:
        seen.append((len(prompts), len(batch)))
        return run_losses(self, prompts, batch)

    monkeypatch.setattr(Backbone, "run_losses", watched)
    config = UpstreamConfig(method="fomaml", inner_lr=1.0, inner_steps=2)
    apart, shared = shared_passes.sides(backbone, config, SIZE, items=3, prompt=4)
    gradients = apart(), shared()
    assert seen == [(1, 2)] * 9 + [(3, 6)] * 3
    assert gradients[0].shape == (3, 4, backbone.d_model)
    assert (gradients[0] - gradients[1]).norm() < 1e-3 * gradients[0].norm()
    assert (gradients[0][0] - gradients[0][1]).norm() > 0.1 * gradients[0][0].norm()


def test_a_cell_has_the_medians_of_both_sides_and_the_ratio_of_each_round(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    # apart takes 4, then 2, and shared 2 in each round; the order turns
    ticks = iter([0.0, 4.0, 4.0, 6.0, 6.0, 8.0, 8.0, 10.0])
    monkeypatch.setattr(shared_passes, "now", lambda _: next(ticks))
    found = shared_passes.cell(backbone, "maml", SIZE, 2, 4, 2)
    assert (found.method, found.items, found.bytes) == ("maml, unrolled", 2, None)
    assert (found.apart_s, found.shared_s) == (3.0, 2.0)
    assert (found.ratio.low, found.ratio.high) == (0.5, 1.0)
    assert str(dataclasses.replace(found, bytes=(2**20, 3 * 2**20))).endswith("1 MB       3 MB")


def test_sides_that_differ_by_more_than_rounding_are_refused(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = shared_passes.sides

    def broken(*given: Any) -> Any:
        apart, shared = sides(*given)
        return apart, lambda: 1.1 * shared()

    monkeypatch.setattr(shared_passes, "sides", broken)
    with pytest.raises(SystemExit, match=r"fomaml, 2 items: gradients are 1.0e-01 apart"):
        shared_passes.cell(backbone, "fomaml", SIZE, 2, 4, 1)
