from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np
import torch
from sides.learned_moments import PRETENDED, Moments, Scores, judged, moments_of, warm
from torch import Tensor

from mpt.optim import Adafactor

P, D = 3, 4


def _gradients() -> Tensor:
    return torch.randn(3, 2, P, D, generator=torch.Generator().manual_seed(0))


def _walked(kind: type[Adafactor]) -> Tensor:
    optimiser = kind(torch.ones(2, P, D), [0.1, 0.2])
    for gradient in _gradients():
        optimiser.step(gradient)
    return optimiser.prompts


def test_no_pretended_step_is_tuning_as_it_is() -> None:
    moments = Moments(torch.rand(P), torch.rand(D))
    assert torch.equal(_walked(warm(moments, 0)), _walked(Adafactor))
    assert not torch.equal(_walked(warm(moments, 1)), _walked(Adafactor))


def test_a_first_step_weighs_the_learned_moments_as_the_steps_that_they_count_as() -> None:
    row, col = torch.tensor([0.5, 1.0, 1.5]), torch.tensor([0.1, 0.9, 1.0, 2.0])
    optimiser = warm(Moments(row, col), 9)(torch.zeros(1, P, D), [0.1])
    gradient = _gradients()[0, :1]
    optimiser.step(gradient)
    g, old = gradient[0].double().numpy(), 1 - 10**-0.8
    size = (g**2).mean()
    rows = old * size * row.numpy() + (1 - old) * (g**2).mean(1)
    cols = old * size * col.numpy() + (1 - old) * (g**2).mean(0)
    update = g / np.sqrt(np.outer(rows / rows.mean(), cols))
    update /= max(1.0, np.sqrt((update**2).mean()))
    # float32 against float64
    np.testing.assert_allclose(optimiser.prompts[0].numpy(), -0.1 * update, rtol=1e-5)


def test_moments_are_the_mean_shape_of_squared_gradients_over_items() -> None:
    """The loss is Σ a² φ²/2 of each item's own a, so that the gradient at φ = 1 is a²."""
    sizes = {"one": torch.rand(P, D) + 0.5, "two": 10 * torch.rand(P, D) + 1}

    def encode_rows(name: str, rows: list[int], text: None) -> list[str]:
        return [name] * len(rows)

    backbone = SimpleNamespace(
        encode_rows=encode_rows,
        collate=lambda rows, runs: rows[0],
        run_losses=lambda prompts, name: (sizes[name] * prompts).square().sum((1, 2)) / 2,
    )
    items = [SimpleNamespace(name=name, seed=13, train=list(range(5))) for name in sizes]
    study = SimpleNamespace(
        backbone=backbone, items=items, config=SimpleNamespace(text=None, train_seed=0)
    )
    moments = moments_of(study, torch.ones(P, D))
    shapes = [(a**4) / (a**4).mean() for a in sizes.values()]
    torch.testing.assert_close(moments.row, sum(s.mean(1) for s in shapes) / 2)
    torch.testing.assert_close(moments.col, sum(s.mean(0) for s in shapes) / 2)


def test_judging_and_calibration_have_seeds_of_their_own() -> None:
    rng = np.random.default_rng(0)

    def scores(best: int) -> Scores:
        def test(pretended: int) -> float:
            return float(0.5 + 0.1 * (pretended == best) + 0.01 * rng.uniform())

        names = [
            (task, f"{seed}/{p}", p) for task in "abc" for seed in (13, 21) for p in PRETENDED
        ]
        of: Scores = {"learned": {}, "vocabulary": {}}
        for start in of:
            for task, key, pretended in names:
                of[start].setdefault(task, {})[key] = test(pretended)
        return of

    flags = argparse.Namespace(calibration=[1, 2, 3], seeds=[4, 5, 6], pretended=PRETENDED)
    every = {seed: scores(10 if seed < 4 else 100) for seed in range(1, 7)}
    figures = judged(every, every[1], flags)
    assert figures["calibration"]["leader"] == "t0 = 10"
    assert figures["judging"]["leader"] == "t0 = 100"
    assert figures["plain start"]["t0 = 0"] == 0
    assert figures["plain start"]["t0 = 10"] > 15
