"""Every number of §5.3, looked for in the records of replays that were really run.

The replays take the published steps, rates and batches on a gym of two source tasks and one or two
target tasks. Only the language model is left out: losses and gradients are those of a toy, so that
5000 outer steps take seconds. What is expected was counted by hand.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stored import compute
from torch import Tensor, nn
from toys import save_toy_t5

from mpt.backbones import Backbone, load
from mpt.backbones.rows import Batch
from mpt.config import DATA_SEEDS
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.fine_tuning import _FineTuning
from mpt.downstream.pack import Pack, Reading
from mpt.replay.replay import plan_replay
from mpt.replay.request import Request
from mpt.store.database import open_results
from mpt.store.records import Point, Run

LETTERS = 600
"""Of every input and answer; a byte-level tokenizer makes a token of each: 512 are read."""
# Method → (outer steps, rows of a step, longest target): what the paper says, what the authors'
# files do. They stop after 120 epochs over the items: here 10, two a step, so after 600 steps.
Expected = tuple[int, int, int]
UPSTREAM: list[tuple[str, Expected, Expected]] = [
    ("maml", (5000, 2 + 2, 64), (600, 2 * (2 + 2), 64)),
    ("fomaml", (5000, 4 + 4, 64), (600, 2 * (4 + 4), 64)),
    ("reptile", (5000, 10 * 4, 64), (600, 2 * 10 * 4, 64)),
    # 20 epochs of (2 tasks × 5 data seeds × 64 rows) / 4
    ("multitask", (3200, 4, 64), (3200, 4, 128)),
]
SETTINGS: dict[str, dict[str, Any]] = {
    "maml": {"inner_lr": 3e-5, "outer_lr": 0.5, "inner_steps": 1, "batch_size": 2},
    "fomaml": {"inner_lr": 3e-5, "outer_lr": 0.5, "inner_steps": 1, "batch_size": 4},
    "reptile": {"inner_lr": 3e-5, "outer_lr": 0.5, "inner_steps": 10, "batch_size": 4},
    "multitask": {"outer_lr": 0.5, "batch_size": 4},
}
# (recipe, what is tuned, train rows) → steps, rows of a step
DOWNSTREAM: dict[tuple[str, str, int], tuple[int, int]] = {
    ("paper", "prompt", 32): (3000, 8),
    ("paper", "weights", 32): (3000, 8),
    ("released", "prompt", 32): (2000, 16),  # 1000 epochs of 2 steps
    ("released", "prompt", 64): (3000, 16),
    ("released", "weights", 32): (600, 16),  # 300 epochs of 2 steps
    ("released", "weights", 64): (1000, 16),
}
DOWNSTREAM_TARGET = (64, 128)
"""Longest target downstream, in the paper's recipe and in the authors' files."""
RATES = {"prompt": (0.5, 0.4, 0.3, 0.2), "weights": (5e-4, 3e-4, 2e-4, 1e-4)}


def _write_gym(folder: Path, recipe: str) -> Path:
    table = ['validation_tasks = ["v"]']
    for name, classes in (("s-one", 2), ("s-two", 2), ("v", 2), ("t-two", 2), ("t-four", 4)):
        table += [f"[tasks.{name}]", 'family = "classification"', 'metric = "ACC"', "shots = 16"]
        (folder / name).mkdir()
        for seed, part in itertools.product(DATA_SEEDS, ("train", "dev", "test")):
            rows = [
                f"{'q' * LETTERS}{n}\t{'abcd'[n % classes] * LETTERS}" for n in range(16 * classes)
            ]
            (folder / name / f"{name}_16_{seed}_{part}.tsv").write_text("\n".join(rows) + "\n")
    table += ["[partitions.random_to_random]", 'source = ["s-one", "s-two"]']
    table += ['target = ["t-two"]' if recipe == "paper" else 'target = ["t-two", "t-four"]']
    (folder / "gym.toml").write_text("\n".join(table) + "\n")
    return folder


def _collate(self: Backbone, rows: Sequence[Any], runs: Sequence[int], *_: object) -> Batch:
    """Rows without their tokens."""
    nothing = torch.ones(len(rows), 1, dtype=torch.long)
    return Batch(nothing, nothing, nothing, nothing, torch.tensor(runs))


def _losses(self: Backbone, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    return (prompts[batch.run] - 1).square().mean((1, 2)), batch.target_mask.sum(1)


def _gradient(self: Pack, rows_of: Sequence[Any]) -> tuple[Tensor, Tensor, Reading]:
    return torch.ones(len(rows_of)), torch.ones_like(self._optimiser.prompts), Reading()


def _backward(self: _FineTuning, rows: Sequence[int], step: int) -> float:
    weight = _smallest(self._backbone.model)
    weight.grad = torch.ones_like(weight)
    return 1.0


@functools.cache
def _smallest(model: nn.Module) -> Tensor:
    return min(model.parameters(), key=lambda weight: weight.numel())


def _scores(self: Evaluator, prompts: Tensor, *_: object) -> list[float]:
    """A score of prompt or weights alone, the same on dev and test."""
    seen = [_smallest(self._backbone.model)] if self._backbone.trainable else prompts
    return [0.5 + 0.4 * math.sin(99 * float(one.detach().double().sum())) for one in seen]


STUBS = [
    (load, "require", lambda backbone: None),  # it is no language model any more
    (Backbone, "dropout", lambda *_: contextlib.nullcontext()),
    (Backbone, "collate", _collate),
    (Backbone, "row_losses", _losses),
    (Pack, "_gradient", _gradient),
    (_FineTuning, "_backward", _backward),
    (Evaluator, "scores", _scores),
]
PARTS = [
    ("paper", ("maml", "fomaml", "multitask")),
    ("released", ("multitask", "fine_tuning")),
]
SLOW_PARTS = [
    ("paper", ("reptile", "fine_tuning")),
    ("released", ("maml", "fomaml", "reptile")),
]
"""Half a minute each."""


@dataclass(frozen=True)
class Recorded:
    """What a replay has recorded."""

    recipe: str
    points: dict[str, Point]
    runs: dict[str, list[Run]]
    prompts: dict[str, tuple[int, ...]]
    """Method → shape of the learned prompt."""

    @property
    def own(self) -> int:
        """Column of what is expected."""
        return ("paper", "released").index(self.recipe)


@pytest.fixture(
    scope="module",
    params=[*PARTS, *(pytest.param(part, marks=pytest.mark.slow) for part in SLOW_PARTS)],
    ids=lambda part: f"{part[0]}-{part[1][0]}",
)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """The records of a replay of the published settings."""
    (recipe, methods), folder = request.param, tmp_path_factory.mktemp("recorded")
    (folder / "gym").mkdir()
    asked = Request(
        results=folder / "results",
        gym=str(_write_gym(folder / "gym", recipe)),
        backbones=(str(save_toy_t5(folder / "model", width=8)),),
        methods=methods,
        recipe=recipe,
        precision=None if recipe == "paper" else "float32",
    )
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, stub in STUBS:
            patch.setattr(owner, name, stub)
        compute(plan_replay(asked).job)
    with open_results(folder / "results", read_only=True) as database:
        points = {point.method: point for point in database.points()}
        runs = {name: list(database.runs(one.runs).values()) for name, one in points.items()}
        prompts = {}
        for name, point in points.items():
            rung = database.artifact("rung", point.upstream)
            if rung is not None:
                (tensor,) = load_file(rung.uri).values()
                prompts[name] = tuple(tensor.shape)
    assert set(points) == {"prompt_tuning", *methods}
    return Recorded(recipe, points, runs, prompts)


def test_upstream_learning_took_the_published_steps_and_batches(recorded: Recorded) -> None:
    for method, *expected in UPSTREAM:
        if method not in recorded.points:
            continue
        steps, rows, target = expected[recorded.own]
        point = recorded.points[method]
        assert {key: point.settings[key] for key in SETTINGS[method]} == SETTINGS[method]
        assert (point.steps, point.cost.steps) == (steps, steps)
        assert point.cost.examples == steps * rows
        assert point.cost.tokens == steps * rows * (512 + target)
        assert recorded.prompts[method] == (100, 8)


def test_downstream_runs_took_the_published_steps_rates_and_selection(recorded: Recorded) -> None:
    targets = {2: "t-two"} if recorded.recipe == "paper" else {2: "t-two", 4: "t-four"}
    for method, runs in recorded.runs.items():
        tuned = "weights" if method == "fine_tuning" else "prompt"
        samples = itertools.product(targets.values(), DATA_SEEDS, RATES[tuned])
        assert sorted((r.identity.task, r.identity.data_seed, r.identity.lr) for r in runs) == (
            sorted(samples)
        )
        for run in runs:
            (classes,) = (n for n, name in targets.items() if name == run.identity.task)
            steps, batch = DOWNSTREAM[recorded.recipe, tuned, 16 * classes]
            assert (run.identity.tuned, run.status, run.stopped) == (tuned, "ok", None)
            assert run.cost.steps == steps
            assert run.cost.examples == steps * batch
            assert run.cost.tokens == run.cost.examples * (512 + DOWNSTREAM_TARGET[recorded.own])
            assert [step for step, *_ in run.curve] == list(range(50, steps + 1, 50))
            dev = {step: score for step, score, _ in run.curve}
            best = max(dev, key=lambda step: (dev[step] or 0.0, -step))
            last = recorded.recipe == "released" and tuned == "prompt"
            # the best score chooses the rate; the authors' files test the last prompt
            assert run.dev == dev[best]
            assert run.best_step == (steps if last else best)
            assert run.test == dev[run.best_step]
        assert any(run.best_step < run.curve[-1][0] for run in runs) or recorded.own
