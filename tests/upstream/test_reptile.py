from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from mpt.config import UpstreamConfig
from mpt.gym.episodes import Episode
from mpt.upstream.reptile import outer_gradient

CONFIG = UpstreamConfig(method="reptile", inner_lr=3e-5, inner_steps=10)
EPISODE = Episode(0, 0, "toy", 13, ((0,),) * 10, ())


class Slope:
    """L(φ) = φ · s, whose gradient is s wherever φ is; entries near 1e-2, as those of real T5s."""

    def __init__(self, dtype: torch.dtype):
        generator = torch.Generator().manual_seed(1)
        self.slope = (1e-2 * torch.randn(4, 64, generator=generator, dtype=torch.float64)).to(
            dtype
        )

    def support(self, prompt: Tensor, rows: object, *, second_order: bool = False) -> Tensor:
        return (prompt * self.slope).sum()

    query = support

    def shares(self, rows: object) -> list[float]:
        return [1.0]


def _prompt(std: float, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (std * torch.randn(4, 64, generator=generator, dtype=torch.float64)).to(dtype)


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("std", [12.0, 29.0])
def test_the_displacement_survives_float32_where_subtracting_loses_it(std: float) -> None:
    """PROTOCOL row 15: α = 3e-5, prompt entries of the published size, ten inner steps."""
    loss = Slope(torch.float32)
    prompt = _prompt(std, torch.float32)
    accumulated, _ = outer_gradient(loss, prompt, EPISODE, CONFIG)
    # Ten float32 additions of equal numbers: a few units in the last place, 1.2e-7 each.
    assert _apart(accumulated, 10 * loss.slope) < 1e-6
    subtracted = dataclasses.replace(CONFIG, reptile_difference="subtracted")
    assert _apart(outer_gradient(loss, prompt, EPISODE, subtracted)[0], 10 * loss.slope) > 0.05
    # The same formula step by step, as the released code has it, is no better.
    walked = prompt.clone()
    for _ in range(10):
        walked -= 3e-5 * loss.slope
    assert _apart((prompt - walked) / 3e-5, 10 * loss.slope) > 0.5


def test_both_formulas_agree_where_there_are_digits_enough() -> None:
    loss, prompt = Slope(torch.float64), _prompt(12.0, torch.float64)
    both = [
        outer_gradient(loss, prompt, EPISODE, dataclasses.replace(CONFIG, reptile_difference=how))
        for how in ("accumulated", "subtracted")
    ]
    assert _apart(both[0][0], both[1][0]) < 1e-8
    assert both[0][1] == both[1][1]
