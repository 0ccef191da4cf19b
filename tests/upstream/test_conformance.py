"""What every upstream method must do. A new method is one more row in `ROWS`."""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from episode_losses import Quadratic
from plain_loops import PLAIN, PlainLoop
from torch import Tensor

from mpt.backbones import Backbone, load_backbone
from mpt.config import METHODS, OWN_METHODS, PromptConfig, TextConfig, UpstreamConfig
from mpt.gym.episodes import Episode
from mpt.gym.fewshot import FewShotTask
from mpt.study.recipes import recipe
from mpt.upstream.engine import Diverged, UpstreamRun
from mpt.upstream.registry import UPSTREAM_METHODS

PROMPT = PromptConfig(length=3)


@dataclass(frozen=True)
class Row:
    """One method in the suite."""

    method: str
    acting: dict[str, Any]
    """Settings that must act, each with another value than that of `config`."""
    closed_form: Callable[[Quadratic, Tensor, Episode, float], Tensor]
    """Its outer gradient of a quadratic: (quadratic, φ flat, episode, α) → g flat."""

    inner_steps: int = 1

    @property
    def config(self) -> UpstreamConfig:
        return UpstreamConfig(
            method=self.method,
            inner_lr=20.0,
            inner_steps=self.inner_steps,
            outer_lr=0.3,
            batch_size=2,
        )


def _path(
    quadratic: Quadratic, prompt: Tensor, episode: Episode, inner_lr: float
) -> tuple[Tensor, Tensor]:
    """Return φ_k and dφ_k/dφ: φ_i = φ_{i−1} − α A_i (φ_{i−1} − c_i) is affine."""
    chain = torch.eye(len(prompt), dtype=prompt.dtype)
    for rows in episode.support:
        hessian = quadratic.curvature[list(rows)].sum(0)
        prompt = prompt - inner_lr * quadratic.gradient(prompt, rows)
        chain = chain @ (torch.eye(len(prompt), dtype=prompt.dtype) - inner_lr * hessian)
    return prompt, chain


def _maml(quadratic: Quadratic, prompt: Tensor, episode: Episode, inner_lr: float) -> Tensor:
    adapted, chain = _path(quadratic, prompt, episode, inner_lr)
    return chain @ quadratic.gradient(adapted, episode.query)


def _fomaml(quadratic: Quadratic, prompt: Tensor, episode: Episode, inner_lr: float) -> Tensor:
    return quadratic.gradient(_path(quadratic, prompt, episode, inner_lr)[0], episode.query)


def _reptile(quadratic: Quadratic, prompt: Tensor, episode: Episode, inner_lr: float) -> Tensor:
    return (prompt - _path(quadratic, prompt, episode, inner_lr)[0]) / inner_lr


def _multitask(quadratic: Quadratic, prompt: Tensor, episode: Episode, _: float) -> Tensor:
    return quadratic.gradient(prompt, episode.support[0])


def _area(quadratic: Quadratic, prompt: Tensor, episode: Episode, inner_lr: float) -> Tensor:
    """Σ_i A_i (φ_i − c_i) over all batches, φ_i from the closed form of the first i steps."""
    total = torch.zeros_like(prompt)
    for steps, rows in enumerate((*episode.support, episode.query)):
        few = dataclasses.replace(episode, support=episode.support[:steps])
        total = total + quadratic.gradient(_path(quadratic, prompt, few, inner_lr)[0], rows)
    return total


OUTER: dict[str, Any] = {"outer_lr": 0.2, "batch_size": 3, "items_per_step": 1, "dropout": 0.1}
OUTER |= {"average": "polynomial", "decay_horizon": 3}
META = OUTER | {"inner_lr": 10.0, "inner_steps": 2, "inner_optimiser": "adafactor"}

ROWS = [
    Row("maml", META, _maml),
    Row("fomaml", META, _fomaml),
    # After one inner step α is nothing but the scale of the direction.
    Row("reptile", META | {"inner_steps": 3}, _reptile, inner_steps=2),
    Row("multitask", OUTER, _multitask),
    Row("path", META, _area),
]

every_method = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.method)
NewRun = Callable[..., UpstreamRun]


@pytest.fixture
def new_run(toy_backbone: Backbone, toy_tasks: list[FewShotTask]) -> NewRun:
    def make(config: UpstreamConfig, **changes: Any) -> UpstreamRun:
        settings: dict[str, Any] = {"backbone": toy_backbone, "tasks": toy_tasks}
        settings |= {"prompt_config": PROMPT, "text": TextConfig(), "root_seed": 42}
        return UpstreamRun(config=config, **(settings | changes))

    return make


@pytest.fixture(scope="module")
def wide_at(toy_checkpoint: Path) -> Callable[[str], Backbone]:
    """The toy backbone in float64 with its prompt at a position."""

    @functools.cache
    def at(position: str) -> Backbone:
        return load_backbone(str(toy_checkpoint), dtype=torch.float64, position=position)

    return at


def test_every_method_has_a_row_here_and_in_the_plain_loops() -> None:
    assert [*METHODS, *OWN_METHODS] == list(UPSTREAM_METHODS)
    learning = [name for name, method in UPSTREAM_METHODS.items() if method.learns]
    assert [row.method for row in ROWS] == learning == list(PLAIN)
    assert set(UPSTREAM_METHODS) - set(learning) == {"untrained"}  # see test_untrained.py


@every_method
@pytest.mark.parametrize("steps", [1, 3])
def test_its_gradient_of_a_quadratic_is_the_closed_form(row: Row, steps: int) -> None:
    quadratic = Quadratic(6)
    prompt = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = prompt.clone()
    steps = 1 if row.method == "multitask" else steps
    episode = Episode(0, 0, "toy", 13, ((0, 1), (2,), (3, 4))[:steps], (5, 6))
    config = dataclasses.replace(row.config, inner_lr=0.1, inner_steps=steps)
    outer_gradient = UPSTREAM_METHODS[row.method].outer_gradient
    gradient, _ = outer_gradient(quadratic, prompt, episode, config)
    expected = row.closed_form(quadratic, prompt.flatten(), episode, 0.1)
    torch.testing.assert_close(gradient.flatten(), expected, rtol=1e-12, atol=1e-12)
    assert not gradient.requires_grad
    assert torch.equal(prompt, before)
    assert not prompt.requires_grad


@pytest.mark.parametrize(
    ("name", "inner_lr"),
    [
        ("released", 3e-5),
        ("released", 20.0),
        pytest.param("released-exact", 3e-5, marks=pytest.mark.slow),
        ("released-exact", 20.0),
    ],
)
@every_method
def test_released_steps_equal_a_plain_independent_loop(
    row: Row,
    name: str,
    inner_lr: float,
    wide_at: Callable[[str], Backbone],
    toy_tasks: list[FewShotTask],
    new_run: NewRun,
) -> None:
    """In float64, norms too; at the released α, and at one where adaptation is not rounding.

    Two steps read every item once; these of Reptile have ten inner ones each.
    """
    steps = 3 if row.method == "reptile" else 5
    released = recipe(name)
    backbone = wide_at(released.prompt.position)
    prompt_config = dataclasses.replace(released.prompt, length=3)
    own = dataclasses.replace(released.upstream["fomaml"], method=row.method)
    config = dataclasses.replace(released.upstream.get(row.method, own), inner_lr=inner_lr)
    run = new_run(config, backbone=backbone, prompt_config=prompt_config)
    loop = PlainLoop(backbone, toy_tasks, config, run.prompt.clone(), root_seed=42)
    loop.padded = name == "released-exact"
    start = run.prompt.clone()
    run.advance(steps)
    expected = loop.run(steps)
    assert (run.prompt - expected).norm() <= 1e-9 * expected.norm()
    assert (start - expected).norm() > 0.1 * expected.norm()


@pytest.mark.parametrize("method", ["fomaml", "reptile", "path"])
def test_inner_steps_of_adafactor_are_those_of_hugging_face(
    method: str,
    wide_at: Callable[[str], Backbone],
    toy_tasks: list[FewShotTask],
    new_run: NewRun,
) -> None:
    backbone = wide_at("append")
    config = UpstreamConfig(
        method=method, inner_lr=0.1, inner_steps=3, outer_lr=0.3, inner_optimiser="adafactor"
    )
    run = new_run(
        config, backbone=backbone, prompt_config=PromptConfig(length=3, position="append")
    )
    loop = PlainLoop(backbone, toy_tasks, config, run.prompt.clone(), root_seed=42)
    run.advance(4)
    expected = loop.run(4)
    assert (run.prompt - expected).norm() <= 1e-9 * expected.norm()


@every_method
@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.2])
def test_its_state_is_bit_identical_however_it_was_reached(
    row: Row, dropout: float, new_run: NewRun
) -> None:
    config = dataclasses.replace(row.config, dropout=dropout, inner_steps=2)
    straight = new_run(config)
    straight.advance(4)
    first = new_run(config)
    first.advance(1)
    torch.manual_seed(0)  # the global generator has no say
    resumed = new_run(config)
    resumed.load_state_dict(first.state_dict())
    resumed.advance(3)
    mine, theirs = straight.state_dict(), resumed.state_dict()
    for name, tensor in mine["tensors"].items():
        assert torch.equal(tensor, theirs["tensors"][name]), name
    assert straight.query_loss == resumed.query_loss
    assert straight.cost.tokens == resumed.cost.tokens > 0


@every_method
def test_every_setting_that_should_act_does(row: Row, new_run: NewRun) -> None:
    base = new_run(row.config)
    base.advance(2)
    for name, value in row.acting.items():
        changed = new_run(dataclasses.replace(row.config, **{name: value}))
        changed.advance(2)
        assert (base.prompt - changed.prompt).abs().max() > 1e-5, name
        assert base.key != changed.key, name
    seeded = new_run(row.config, root_seed=43)
    seeded.advance(2)
    assert not torch.equal(base.prompt, seeded.prompt)


@every_method
def test_it_leaves_weights_and_the_global_generator_alone(
    row: Row, new_run: NewRun, toy_backbone: Backbone
) -> None:
    digest = {name: weight.clone() for name, weight in toy_backbone.model.state_dict().items()}
    state = torch.get_rng_state()
    new_run(dataclasses.replace(row.config, dropout=0.1)).advance(2)
    assert torch.equal(torch.get_rng_state(), state)
    for name, weight in toy_backbone.model.state_dict().items():
        assert torch.equal(weight, digest[name]), name
    assert all(weight.grad is None for weight in toy_backbone.model.parameters())


@every_method
def test_a_nan_is_reported_and_the_last_state_kept(row: Row, new_run: NewRun) -> None:
    broken, other = new_run(row.config), new_run(row.config)
    for run in (broken, other):
        run.advance(1)
    broken.prompt[1, 1] = math.nan
    before = broken.prompt.clone()
    with pytest.raises(Diverged, match=r"diverged at step 2: .*loss of .* is nan"):
        broken.advance(1)
    torch.testing.assert_close(broken.prompt, before, rtol=0, atol=0, equal_nan=True)
    assert broken.step_count == 1
    other.advance(1)  # a run on the same backbone is not touched by it
    assert other.prompt.isfinite().all()


@every_method
def test_its_cost_counts_the_rows_it_reads(row: Row, new_run: NewRun) -> None:
    run = new_run(dataclasses.replace(row.config, inner_steps=3))
    run.advance(2)
    # 2 steps of 2 episodes of batches of 2: three for the inner steps, one for the query
    batches = {"maml": 4, "fomaml": 4, "reptile": 3, "multitask": 1, "path": 4}[row.method]
    assert (run.cost.steps, run.cost.examples) == (2, 2 * 2 * 2 * batches)
    assert run.cost.tokens > run.cost.examples


@every_method
def test_twenty_steps_leave_nothing_in_memory(row: Row, new_run: NewRun) -> None:
    """With the collector off, so that a cycle that holds a graph would be seen.

    A single tensor that is left behind by one of the steps is seen.
    """
    config = dataclasses.replace(
        row.config, items_per_step=1, batch_size=1, second_order="finite_difference"
    )
    run = new_run(config, prompt_config=PromptConfig(length=1))
    run.advance(5)
    gc.collect()
    gc.disable()
    try:
        before = _live_tensors()
        run.advance(20)
        assert _live_tensors() <= before
    finally:
        gc.enable()


@pytest.mark.parametrize("engine", ["exact", "unrolled"])
def test_twenty_steps_of_the_other_engines_leave_nothing_either(
    engine: str, new_run: NewRun
) -> None:
    config = dataclasses.replace(ROWS[0].config, items_per_step=1, second_order=engine)
    run = new_run(config)
    run.advance(3)
    gc.collect()
    gc.disable()
    try:
        before = _live_tensors()
        run.advance(20)
        assert _live_tensors() <= before
    finally:
        gc.enable()


def _live_tensors() -> int:
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@every_method
def test_it_lowers_the_loss_of_episodes_it_has_not_drawn(row: Row, new_run: NewRun) -> None:
    wide = PromptConfig(length=8)
    config = dataclasses.replace(row.config, batch_size=4, items_per_step=1)
    run = new_run(config, prompt_config=wide)
    judge = new_run(dataclasses.replace(config, method="fomaml"), prompt_config=wide, root_seed=7)

    def held_out(prompt: Tensor) -> float:
        judge.prompt.copy_(prompt)
        return sum(judge._gradients([judge._episode(index)])[1][0] for index in range(8)) / 8

    before = held_out(run.prompt)
    run.advance(40)
    after = held_out(run.prompt)
    assert after < 0.5 * before, f"query loss {before:.3f} -> {after:.3f}"
