from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from mpt.config import UpstreamConfig
from mpt.gym.episodes import Episode
from mpt.upstream.methods.reptile import outer_gradient

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
    """recipe row 15: α = 3e-5, prompt entries of the published size, ten inner steps."""
    loss = Slope(torch.float32)
    prompt = _prompt(std, torch.float32)
    accumulated, _ = outer_gradient(loss, prompt, EPISODE, CONFIG)
    # Ten float32 additions of equal numbers: a few units in the last place, 1.2e-7 each.
    assert _apart(accumulated, 10 * loss.slope) < 1e-6
    subtracted = dataclasses.replace(CONFIG, reptile_difference="subtracted")
    assert _apart(outer_gradient(loss, prompt, EPISODE, subtracted)[0], 10 * loss.slope) > 0.5


@pytest.mark.parametrize("std", [0.95, 12.0, 17.0, 29.0])
def test_subtracting_is_the_released_walk_bit_by_bit(std: float) -> None:
    """φ ← φ − α g in float32, ten times, written with NumPy; then (φ_0 − φ_10) / α."""
    loss, prompt = Slope(torch.float32), _prompt(std, torch.float32)
    slope, start = loss.slope.numpy(), prompt.numpy()
    alpha, walked = np.float32(3e-5), start.copy()
    for _ in range(10):
        walked = walked - alpha * slope
    subtracted = dataclasses.replace(CONFIG, reptile_difference="subtracted")
    found = outer_gradient(loss, prompt, EPISODE, subtracted)[0].numpy()
    assert np.array_equal(found, (start - walked) / alpha)


def test_one_entry_of_the_walk_by_hand() -> None:
    """One ulp of 16 is 2^-19 = 1.907e-6. A step of 3e-5 · 0.04 = 1.2e-6 rounds to a whole ulp.

    Ten steps walk 10 · 2^-19 = 1.9073486e-5, and not 1.2e-5: (φ − φ_k)/α = 0.6357829, not 0.4.
    A step of 3e-5 · 0.03 = 0.9e-6 is less than half an ulp and never moves the entry.
    """
    loss = Slope(torch.float32)
    loss.slope = torch.tensor([[0.04, 0.03]])
    prompt = torch.tensor([[17.0, 17.0]])
    subtracted = dataclasses.replace(CONFIG, reptile_difference="subtracted")
    found, _ = outer_gradient(loss, prompt, EPISODE, subtracted)
    assert found.tolist() == [[pytest.approx(0.6357829, rel=1e-6), 0.0]]
    exact, _ = outer_gradient(loss, prompt, EPISODE, CONFIG)
    assert exact.tolist() == [[pytest.approx(0.4, rel=1e-6), pytest.approx(0.3, rel=1e-6)]]


def test_both_formulas_agree_where_there_are_digits_enough() -> None:
    loss, prompt = Slope(torch.float64), _prompt(12.0, torch.float64)
    both = [
        outer_gradient(loss, prompt, EPISODE, dataclasses.replace(CONFIG, reptile_difference=how))
        for how in ("accumulated", "subtracted")
    ]
    # Ten roundings of 2^-53 · 12 beside steps of 3e-7: about 1e-8 of them.
    assert _apart(both[0][0], both[1][0]) < 1e-7
    assert both[0][1] == pytest.approx(both[1][1], rel=1e-12)
