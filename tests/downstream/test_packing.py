"""Any packing gives what separate runs give, on every family of backbones."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_backbones import FAMILIES
from tuning_toys import TEXT, families, limits, mixed_tasks

from mpt.backbones import Backbone, load_backbone
from mpt.config import DownstreamConfig
from mpt.downstream.prompt_tuning import tune

# Tasks of 8 and 10 rows: 16 steps and 20, so that runs leave at different times. The last prompts
# are compared.
CONFIG = DownstreamConfig(
    steps=20,
    max_epochs=8,
    eval_every=8,
    batch_size=4,
    select="last",
    max_test=2,
    max_dev=2,
    max_generated=2,
)
ALONE = limits(runs=1, tokens=10**6, pass_cost=10**6)
"""One run, every step one padded batch."""

Loader = Callable[[str, str, torch.dtype], Backbone]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    """Random weights: where a trained model's gradients vanish, Adafactor blows up rounding.

    On the trained toy the float32 comparison gives up to 5e-2; in float64 it holds there too.
    """
    saved: dict[str, Path] = {}

    def loaded(family: str, position: str, dtype: torch.dtype) -> Backbone:
        if family not in saved:
            saved[family] = FAMILIES[family](tmp_path_factory.mktemp(family))
        return load_backbone(str(saved[family]), position=position, dtype=dtype)

    return loaded


def _cases() -> list[Any]:
    """Every family at every position; one in float32 is enough for `make test`."""
    places = [(family, position) for family in FAMILIES for position in ("prepend", "append")]
    # 20 steps of float32 rounding; float64 leaves nothing but its own
    single = [
        pytest.param(*place, torch.float32, 1e-5, marks=pytest.mark.slow) for place in places
    ]
    single[0] = pytest.param(*places[0], torch.float32, 1e-5)
    return [*single, *(pytest.param(*place, torch.float64, 1e-10) for place in places)]


@pytest.mark.parametrize(("family", "position", "dtype", "tolerance"), _cases())
def test_any_packing_gives_what_separate_runs_give(
    family: str, position: str, dtype: torch.dtype, tolerance: float, load: Loader
) -> None:
    """Random members, order, number side by side and pass size; the update is compared."""
    backbone = load(family, position, dtype)
    rng = np.random.default_rng(zlib.crc32(f"{family} {position} {dtype}".encode()))
    everything = families(backbone, mixed_tasks())
    runs = [everything[place] for place in rng.permutation(len(everything))[:4]]
    packed = limits(
        runs=int(rng.integers(2, 4)),  # fewer than there are runs: some enter later
        tokens=int(rng.integers(50, 1000)),
        pass_cost=int(rng.integers(0, 200)),
    )
    results = tune(backbone, runs, CONFIG, TEXT, 42, limits=packed)
    for run, result in zip(runs, results, strict=True):
        (alone,) = tune(backbone, [run], CONFIG, TEXT, 42, limits=ALONE)
        update = alone.prompt - run.prompt
        error = ((result.prompt - alone.prompt).norm() / update.norm()).item()
        assert error <= tolerance, f"relative difference of the update {error:.1e}"
        assert result.curve[-1][0] == alone.curve[-1][0] in (16, 20)
        assert (result.dev, result.test) == (alone.dev, alone.test)
