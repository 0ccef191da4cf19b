"""Episodes of an outer step that share passes: the numbers of each stay those it has alone."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_models import save
from torch import Tensor
from toys import toy_task

import mpt
from mpt.backbones import Backbone, load_backbone
from mpt.config import PromptConfig, TextConfig, UpstreamConfig
from mpt.gym.fewshot import FewShotTask
from mpt.keys import changed
from mpt.testing import check_upstream_method
from mpt.upstream.engine import Diverged, UpstreamRun, acting
from mpt.upstream.finite_difference import finite_difference_products
from mpt.upstream.inner import InnerStep, Pass
from mpt.upstream.losses import ItemsLoss
from mpt.upstream.randomness import RandomState
from mpt.upstream.registry import UPSTREAM_METHODS

CONFIG = UpstreamConfig(
    inner_lr=0.5, inner_steps=2, outer_lr=0.3, batch_size=3, items_per_step=3, items_per_pass=3
)
METHODS: dict[str, dict[str, Any]] = {
    **{
        f"maml {engine}": {"method": "maml", "second_order": engine}
        for engine in ("unrolled", "exact", "finite_difference", "higher")
    },
    "maml adafactor": {"method": "maml", "inner_optimiser": "adafactor", "inner_lr": 0.05},
    "fomaml": {"method": "fomaml"},
    "fomaml checkpointed": {"method": "fomaml", "activation_checkpointing": True},
    "reptile": {"method": "reptile", "support_draw": "jointly"},
    "reptile subtracted": {"method": "reptile", "reptile_difference": "subtracted"},
    "multitask": {"method": "multitask"},
    "path": {"method": "path"},
    "path adafactor": {"method": "path", "inner_optimiser": "adafactor", "inner_lr": 0.05},
}
PLACES = [
    *(("t5", position) for position in ("prepend", "append", "append_padded")),
    *(("gpt2", position) for position in ("prepend", "append")),
]
ROUNDING = 1e-9
"""Of a trajectory of two steps in float64, relative to its way: near 1e-16 a pass, which α times
the curvature and Adafactor (near the sign of a gradient in its first step) make some 1e-12."""
DIFFERENCES = 1e-5
"""A difference of gradients at a step near 1e-6 keeps some nine digits of its product."""

every_method = pytest.mark.parametrize("name", METHODS)
At = Callable[[str, str], Backbone]


@pytest.fixture(scope="module")
def backbone_at(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> At:
    """A toy of a model with its prompt at a position, in float64."""
    paths = {"t5": toy_checkpoint, "gpt2": save("gpt2", tmp_path_factory.mktemp("gpt2"))}

    @functools.cache
    def at(model: str, position: str) -> Backbone:
        return load_backbone(str(paths[model]), position=position, dtype=torch.float64)

    return at


@pytest.fixture(scope="module")
def tasks() -> list[FewShotTask]:
    """Of two items the files have 8 rows, of two others 2, which is less than a batch."""
    rows = (("toy-one", 4), ("toy_two", 1))
    return [toy_task(name, seed, shots=shots) for name, shots in rows for seed in (13, 21)]


def _config(name: str, **changes: Any) -> UpstreamConfig:
    return dataclasses.replace(CONFIG, **(METHODS[name] | changes))


def _run(backbone: Backbone, tasks: Sequence[FewShotTask], config: UpstreamConfig) -> UpstreamRun:
    prompt = PromptConfig(length=3, position=backbone.position)
    return UpstreamRun(backbone, tasks, config, prompt, TextConfig(), 42)


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _refused(name: str, position: str) -> bool:
    """Whether an engine that reads row by row meets a position whose rows feel the padding."""
    return name == "maml exact" and position == "append_padded"


def _some(*chosen: Sequence[tuple[str, str]]) -> list[Any]:
    """Pair every method with all places; one of each of the `chosen`, in turns, is not slow."""
    pairs = []
    for number, name in enumerate(METHODS):
        ordinary = [places[number % len(places)] for places in chosen]
        for place in PLACES:
            marks = [] if place in ordinary else [pytest.mark.slow]
            if not _refused(name, place[1]):
                pairs.append(pytest.param(name, *place, marks=marks))
    return pairs


@pytest.mark.parametrize(("name", "model", "position"), _some(PLACES[1:4:2]))
def test_shared_steps_end_where_steps_apart_do(
    name: str, model: str, position: str, tasks: list[FewShotTask], backbone_at: At
) -> None:
    backbone = backbone_at(model, position)
    apart = _run(backbone, tasks, _config(name, items_per_pass=1))
    start = apart.prompt.clone()
    apart.advance(2)
    way = apart.prompt - start
    close = DIFFERENCES if name == "maml finite_difference" else ROUNDING
    # of three episodes a pair, and one left over
    shared = _run(backbone, tasks, _config(name, items_per_pass=2))
    shared.advance(2)
    assert _apart(shared.prompt - start, way) < close
    assert shared.query_loss == pytest.approx(apart.query_loss, rel=close)
    counted = [dataclasses.replace(run.cost, seconds=0.0) for run in (apart, shared)]
    assert counted[0] == counted[1]


@pytest.mark.parametrize(("name", "model", "position"), _some(PLACES[:3], PLACES[3:]))
def test_each_episode_has_the_gradient_that_it_has_alone(
    name: str, model: str, position: str, tasks: list[FewShotTask], backbone_at: At
) -> None:
    """Of four episodes, the items with fewer rows than a batch among them."""
    run = _run(backbone_at(model, position), tasks, _config(name))
    episodes = [run._episode(index) for index in range(4)]
    gradients, losses = run._gradients(episodes)
    close = 1e-6 if name == "maml finite_difference" else 1e-11
    for episode, gradient, loss in zip(episodes, gradients, losses, strict=True):
        alone, (value,) = run._gradients([episode])
        assert _apart(gradient, alone[0]) < close
        assert loss == pytest.approx(value, rel=close)
        assert not gradient.requires_grad


def test_episodes_of_a_step_with_fewer_rows_than_a_batch_are_among_them(
    tasks: list[FewShotTask], toy_backbone64: Backbone
) -> None:
    """What the tests above are about is really there."""
    run = _run(toy_backbone64, tasks, _config("fomaml"))
    lengths = [[len(rows) for rows in run._episode(index).support] for index in range(4)]
    assert sorted(lengths) == [[2, 2], [2, 2], [3, 3], [3, 3]]


# Method → passes of an outer step of three episodes: those of one episode.
PASSES = {"maml unrolled": 3, "fomaml": 3, "reptile": 2, "multitask": 1, "path": 3}
PASSES |= {"maml exact": 2 * 3 + 1 + 2 * 3, "maml higher": 3}


@pytest.mark.parametrize("name", PASSES)
def test_a_shared_step_takes_the_passes_of_one_episode(
    name: str,
    tasks: list[FewShotTask],
    toy_backbone64: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    run_losses = Backbone.run_losses

    def watched(self: Backbone, prompts: Tensor, batch: Any) -> Tensor:
        seen.append(len(prompts))
        return run_losses(self, prompts, batch)

    monkeypatch.setattr(Backbone, "run_losses", watched)
    _run(toy_backbone64, tasks, _config(name)).advance(1)
    assert len(seen) == PASSES[name]
    assert max(seen) == 3
    seen.clear()
    _run(toy_backbone64, tasks, _config(name, items_per_pass=1)).advance(1)
    assert set(seen) == {1}
    assert len(seen) > PASSES[name]


@every_method
@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.1])
def test_a_shared_run_goes_on_bit_by_bit_after_a_resume(
    name: str, dropout: float, toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    """Without dropout no unit is drawn, so there is less to go on with."""
    config = _config(name, items_per_pass=2, dropout=dropout)
    straight, first, resumed = (_run(toy_backbone, tasks, config) for _ in range(3))
    straight.advance(3)
    first.advance(2)
    state = first.state_dict()
    tensors = safetensors.torch.load(safetensors.torch.save(state["tensors"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)  # the global generator has no say
        resumed.load_state_dict(state | {"tensors": tensors})
        resumed.advance(1)
    for part, tensor in straight.state_dict()["tensors"].items():
        assert torch.equal(tensor, resumed.state_dict()["tensors"][part]), part
    assert straight.query_loss == resumed.query_loss


def test_dropout_drops_other_units_than_apart_and_the_same_ones_every_time(
    toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    def prompt(**changes: Any) -> Tensor:
        run = _run(toy_backbone, tasks, _config("fomaml", **changes))
        run.advance(2)
        return run.prompt.clone()

    shared = prompt(dropout=0.1)
    assert torch.equal(prompt(dropout=0.1), shared)
    assert _apart(prompt(dropout=0.1, items_per_pass=1), shared) > 1e-3
    # without it nothing but rounding differs, in float32 and Adafactor's first step
    assert _apart(prompt(items_per_pass=1), prompt()) < 1e-3


@pytest.mark.parametrize("engine", ["finite_difference", "unrolled"])
def test_dropout_is_replayed_for_all_episodes_of_a_pass(
    engine: str, toy_backbone64: Backbone, tasks: list[FewShotTask]
) -> None:
    """Against `higher`, which keeps the graph of its inner passes; one attention for all."""

    def gradients(name: str) -> Tensor:
        config = _config("maml unrolled", second_order=name, dropout=0.2, inner_lr=300.0)
        run = _run(toy_backbone64, tasks, config)
        with toy_backbone64.second_order():
            return run._gradients([run._episode(index) for index in range(3)])[0]

    reference = gradients("higher")
    for found, expected in zip(gradients(engine), reference, strict=True):
        assert _apart(found, expected) < 1e-5
    assert torch.equal(gradients(engine), gradients(engine))


class Curves:
    """Σ exp(s_e (φ_e − c)) / s_e² of each episode e: the larger s_e, the shorter the step for it.

    It notes which episodes' rows were read.
    """

    def __init__(self, sharp: Sequence[float], centre: float):
        self.sharp = torch.tensor(sharp, dtype=torch.float64)[:, None, None]
        self.centre = centre
        self.read: list[list[bool]] = []

    def support(self, prompts: Tensor, rows: Any, *, second_order: bool = False) -> Tensor:
        self.read.append([bool(own) for own in rows])
        taking_part = torch.tensor([float(bool(own)) for own in rows])
        curves = torch.exp(self.sharp * (prompts - self.centre)) / self.sharp**2
        return curves.sum((1, 2)) * taking_part

    query = support

    def shares(self, rows: Any) -> list[list[float]]:
        return [[1.0] for _ in rows]


@pytest.mark.parametrize(("dropout", "again"), [(0.0, [False, True]), (0.1, [True, True])])
def test_only_an_episode_whose_step_is_too_long_is_read_again(
    dropout: float, again: list[bool]
) -> None:
    """With dropout all are: fewer rows in the pass would change which units are dropped."""
    loss = Curves([0.01, 10.0], centre=1e5)
    offset = torch.linspace(-0.1, 0.1, 12, dtype=torch.float64).reshape(1, 3, 4).repeat(2, 1, 1)
    prompts = (1e5 + offset).requires_grad_()
    rows = ((0,), (0,))
    (gradients,) = torch.autograd.grad(loss.support(prompts, rows).sum(), prompts)
    one = Pass(rows, (1.0, 1.0), RandomState.now(torch.device("cpu")))
    step = InnerStep(prompts.detach(), (one,), gradients, (0.0, 0.0))
    loss.read.clear()
    config = UpstreamConfig(inner_lr=1e6, dropout=dropout)
    products = finite_difference_products(loss, step, torch.ones_like(offset), config)
    assert loss.read == [[True, True]] * 2 + [again] * 2
    for product, sharp in zip(products, (0.01, 10.0), strict=True):
        assert _apart(product, torch.exp(sharp * offset[0])) < 1e-3


@pytest.mark.parametrize("name", ["maml unrolled", "reptile", "multitask"])
def test_an_error_names_the_task_of_the_episode_that_diverged(
    name: str, tasks: list[FewShotTask], toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(toy_backbone, tasks, _config(name))
    third = run._episode(2)
    losses = ItemsLoss._losses

    def broken(self: ItemsLoss, *given: Any) -> Tensor:
        return losses(self, *given) * torch.tensor([1.0, 1.0, math.nan])

    monkeypatch.setattr(ItemsLoss, "_losses", broken)
    with pytest.raises(Diverged, match=rf"at step 1: (query )?loss of {third.task} is nan"):
        run.advance(1)
    assert run.step_count == 0


def test_a_setting_that_changes_nothing_changes_no_key(
    toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    def key(**changes: Any) -> str:
        return _run(toy_backbone, tasks, _config("fomaml", **changes)).key

    apart, shared = key(items_per_pass=1), key(items_per_pass=3)
    assert apart != shared
    assert key(items_per_pass=9) == shared  # there are three episodes
    assert key(items_per_pass=2) not in (apart, shared)
    alone = [key(items_per_step=1, items_per_pass=n) for n in (1, 4)]
    assert alone[0] == alone[1]
    settings = changed(acting(_config("fomaml", items_per_pass=1), toy_backbone))
    assert "items_per_pass" not in settings


def test_a_method_of_ones_own_gets_its_episodes_one_at_a_time(
    toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    seen: list[tuple[tuple[int, ...], int]] = []

    @mpt.upstream_method
    def own(
        loss: Any, prompt: Tensor, episode: Any, config: UpstreamConfig
    ) -> tuple[Tensor, float]:
        seen.append((tuple(prompt.shape), episode.index))
        adapted = mpt.adapt(loss, prompt, episode, config).prompt
        return mpt.query_gradient(loss, adapted, episode)

    runs = [
        _run(toy_backbone, tasks, dataclasses.replace(CONFIG, method="own", items_per_pass=n))
        for n in (1, 3)
    ]
    for run in runs:
        run.advance(2)
    assert seen == 2 * [((3, toy_backbone.d_model), index) for index in range(6)]
    assert runs[0].key == runs[1].key
    first_order = _run(toy_backbone, tasks, _config("fomaml", items_per_pass=1))
    first_order.advance(2)
    for run in runs:
        assert torch.equal(run.prompt, first_order.prompt)


@pytest.mark.parametrize(
    "method", [name for name, method in UPSTREAM_METHODS.items() if method.learns]
)
def test_what_every_method_must_do_it_does_with_shared_passes(method: str) -> None:
    checks = check_upstream_method(method, items_per_pass=2, batch_size=4)
    assert "state is the same however it was reached" in checks


def test_the_setting_is_refused_where_it_is_no_count() -> None:
    with pytest.raises(
        mpt.UsageError, match="items_per_pass is 0, but must be a whole number ≥ 1"
    ):
        UpstreamConfig(items_per_pass=0)


def test_a_space_can_hold_it_fixed_or_search_it() -> None:
    space = mpt.Space("fomaml", outer_lr=0.1, inner_lr=1.0, steps=[2], items_per_pass=[1, 2])
    found = {spec.config.items_per_pass for spec in space.grid()}  # type: ignore[union-attr]
    assert found == {1, 2}
