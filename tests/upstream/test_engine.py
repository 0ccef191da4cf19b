from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor
from toys import toy_task
from transformers.optimization import Adafactor as HuggingFaceAdafactor

from mpt.backbones import Backbone, load_backbone
from mpt.config import METHODS, OWN_METHODS, PromptConfig, TextConfig, UpstreamConfig
from mpt.errors import DataError, UsageError
from mpt.gym.episodes import EpisodeStream
from mpt.gym.fewshot import FewShotTask
from mpt.upstream import engine
from mpt.upstream.engine import Diverged, UpstreamRun
from mpt.upstream.registry import UPSTREAM_METHODS

CONFIG = UpstreamConfig(inner_lr=20.0, outer_lr=0.3, batch_size=2, items_per_step=2)
PROMPT = PromptConfig(length=3)

NewRun = Callable[..., UpstreamRun]


@pytest.fixture
def new_run(toy_backbone: Backbone, toy_tasks: list[FewShotTask]) -> NewRun:
    def make(**changes: Any) -> UpstreamRun:
        settings: dict[str, Any] = {
            "backbone": toy_backbone,
            "tasks": toy_tasks,
            "config": CONFIG,
            "prompt_config": PROMPT,
            "text": TextConfig(),
            "root_seed": 42,
        }
        return UpstreamRun(**(settings | changes))

    return make


@pytest.fixture
def own_generator() -> Iterator[None]:
    """What a test does to the global generator ends with it."""
    with torch.random.fork_rng(devices=[]):
        yield


def test_a_trajectory_keeps_freed_memory_for_its_next_step(
    new_run: NewRun, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(engine, "keep_freed_memory", asked.append)
    new_run()
    assert asked == [toy_backbone.device]


def _through_files(state: dict[str, Any]) -> dict[str, Any]:
    """What comes back when a state was written as safetensors and JSON."""
    return {
        "tensors": load(save(state["tensors"])),
        "meta": json.loads(json.dumps(state["meta"], allow_nan=False)),
    }


def _assert_same(one: UpstreamRun, other: UpstreamRun) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine["tensors"].keys() == theirs["tensors"].keys()
    for name, tensor in mine["tensors"].items():
        assert torch.equal(tensor, theirs["tensors"][name]), name
    for state in (mine, theirs):
        del state["meta"]["cost"]["seconds"]
    assert mine["meta"] == theirs["meta"]


def test_config_and_registry_name_the_same_methods() -> None:
    assert (*METHODS, *OWN_METHODS) == tuple(UPSTREAM_METHODS)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.usefixtures("own_generator")
def test_the_state_after_n_steps_is_bit_identical_however_it_was_reached(
    new_run: NewRun, dropout: float
) -> None:
    config = dataclasses.replace(CONFIG, dropout=dropout)
    torch.manual_seed(1)  # the global generator has no say
    straight = new_run(config=config)
    straight.advance(7)
    chunks = new_run(config=config)
    for n in (1, 0, 4, 2):
        chunks.advance(n)
    _assert_same(straight, chunks)
    resumed = new_run(config=config)
    resumed.advance(3)
    for _ in range(2):
        state = _through_files(resumed.state_dict())
        torch.manual_seed(2)
        loss = resumed.query_loss
        resumed = new_run(config=config)
        resumed.load_state_dict(state)
        assert resumed.query_loss == loss
        resumed.advance(2)
    _assert_same(straight, resumed)


def test_a_rung_of_a_long_run_is_the_end_of_a_short_one(new_run: NewRun) -> None:
    long, short = new_run(), new_run()
    rungs = []
    for _ in range(3):
        long.advance(4)
        rungs.append(long.prompt.clone())
    short.advance(4)
    assert torch.equal(short.prompt, rungs[0])
    assert not torch.equal(rungs[1], rungs[0])


def test_a_state_is_a_copy_that_later_steps_leave_alone(new_run: NewRun) -> None:
    run = new_run()
    run.advance(1)
    state = run.state_dict()
    before = {name: tensor.clone() for name, tensor in state["tensors"].items()}
    run.advance(2)
    assert all(torch.equal(before[name], tensor) for name, tensor in state["tensors"].items())


def test_the_trajectory_equals_a_plain_independent_loop(
    toy_backbone64: Backbone, toy_tasks: list[FewShotTask], new_run: NewRun
) -> None:
    """MAML written out, with Hugging Face's Adafactor, on the same batches in float64."""
    config = dataclasses.replace(CONFIG, inner_steps=2)
    run = new_run(backbone=toy_backbone64, config=config)
    prompt = torch.nn.Parameter(run.prompt.clone())
    run.advance(6)
    settings: dict[str, Any] = {"scale_parameter": False, "relative_step": False}
    settings |= {"decay_rate": -0.8, "weight_decay": 1e-5, "lr": config.outer_lr}
    optimiser = HuggingFaceAdafactor([prompt], **settings)
    stream = EpisodeStream(toy_tasks, config, 42)

    def loss(phi: Tensor, task: FewShotTask, split: str, rows: Sequence[int]) -> Tensor:
        examples = [getattr(task, split)[row] for row in rows]
        batch = toy_backbone64.collate(
            toy_backbone64.encode_rows(task.name, examples, TextConfig()), [0] * len(rows)
        )
        nll, tokens = toy_backbone64.row_losses(phi[None], batch)
        return nll.sum() / tokens.sum()

    for step in range(6):
        optimiser.zero_grad()
        for index in (2 * step, 2 * step + 1):
            episode = stream.episode(index)
            task, phi = toy_tasks[episode.item], prompt * 1
            with toy_backbone64.second_order():
                for rows in episode.support:
                    inner = loss(phi, task, "train", rows)
                    slope = torch.autograd.grad(inner, phi, create_graph=True)[0]
                    phi = phi - config.inner_lr * slope
                loss(phi, task, "dev", episode.query).backward()
        optimiser.step()
    torch.testing.assert_close(run.prompt, prompt.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        {"inner_lr": 10.0},
        {"outer_lr": 0.2},
        {"inner_steps": 2},
        {"batch_size": 3},
        {"items_per_step": 1},
        {"dropout": 0.1},
    ],
)
def test_every_setting_changes_the_trajectory_and_its_key(
    change: dict[str, Any], new_run: NewRun
) -> None:
    base, changed = new_run(), new_run(config=dataclasses.replace(CONFIG, **change))
    base.advance(3)
    changed.advance(3)
    assert (base.prompt - changed.prompt).abs().max() > 1e-4
    assert base.key != changed.key


@pytest.mark.parametrize("what", ["root_seed", "text", "prompt_config", "data", "order"])
def test_seed_text_prompt_and_data_change_the_trajectory_and_its_key(
    what: str, new_run: NewRun, toy_tasks: list[FewShotTask]
) -> None:
    changes: dict[str, dict[str, Any]] = {
        "root_seed": {"root_seed": 43},
        "text": {"text": TextConfig(max_input=10)},
        "prompt_config": {"prompt_config": PromptConfig(length=4)},
        "data": {"tasks": [*toy_tasks[:3], toy_task("toy_two", 42)]},
        "order": {"tasks": toy_tasks[::-1]},
    }
    base, changed = new_run(), new_run(**changes[what])
    base.advance(2)
    changed.advance(2)
    assert base.key != changed.key
    same_shape = base.prompt.shape == changed.prompt.shape
    assert not (same_shape and torch.equal(base.prompt, changed.prompt))


def test_the_key_follows_backbone_position_and_code_schema(
    new_run: NewRun, toy_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {new_run().key}
    append = load_backbone(str(toy_checkpoint), position="append")
    keys.add(new_run(backbone=append, prompt_config=PromptConfig(length=3, position="append")).key)
    keys.add(new_run(backbone=load_backbone(str(toy_checkpoint), dtype=torch.float64)).key)
    monkeypatch.setattr("mpt.upstream.engine.SCHEMA", 99)
    keys.add(new_run().key)
    assert len(keys) == 4


def test_a_position_the_backbone_was_not_loaded_for_is_refused(new_run: NewRun) -> None:
    with pytest.raises(UsageError, match=r"'append', but backbone .* loaded for 'prepend'"):
        new_run(prompt_config=PromptConfig(length=3, position="append"))


def test_a_state_of_another_trajectory_is_refused_and_changes_nothing(new_run: NewRun) -> None:
    other = new_run(root_seed=1)
    other.advance(1)
    run = new_run()
    before = run.prompt.clone()
    with pytest.raises(DataError, match="checkpoint is of trajectory"):
        run.load_state_dict(other.state_dict())
    assert torch.equal(run.prompt, before)
    assert run.step_count == 0


@pytest.mark.parametrize(
    ("part", "name"), [("tensors", "row"), ("tensors", "prompt"), ("meta", "cost")]
)
def test_an_incomplete_state_is_refused_and_changes_nothing(
    part: str, name: str, new_run: NewRun
) -> None:
    run = new_run()
    run.advance(1)
    state = run.state_dict()
    del state[part][name]
    fresh = new_run()
    before = fresh.state_dict()
    with pytest.raises(DataError, match="checkpoint is incomplete"):
        fresh.load_state_dict(state)
    assert all(
        torch.equal(tensor, before["tensors"][key])
        for key, tensor in fresh.state_dict()["tensors"].items()
    )


def test_a_loss_that_is_not_finite_ends_the_run_at_its_last_state(new_run: NewRun) -> None:
    run = new_run()
    run.advance(2)
    run.prompt[1, 1] = math.nan
    before = run.state_dict()
    with pytest.raises(Diverged, match=r"diverged at step 3: query loss of toy.one is nan") as e:
        run.advance(3)
    assert (e.value.step, e.value.exit_code, run.step_count, run.cost.steps) == (3, 1, 2, 2)
    after = run.state_dict()["tensors"]
    for name, tensor in before["tensors"].items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_a_gradient_that_is_not_finite_ends_the_run_too(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run()
    broken = dataclasses.replace(
        UPSTREAM_METHODS["maml"],
        outer_gradient=lambda _, prompt, *__: (torch.full_like(prompt, math.inf), 0.5),
    )
    monkeypatch.setattr(run, "_method", broken)
    with pytest.raises(Diverged, match="the outer gradient is not finite"):
        run.advance(1)
    assert run.prompt.isfinite().all()


def test_cost_counts_steps_examples_and_tokens(
    new_run: NewRun, toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    run = new_run()
    assert math.isnan(run.query_loss)
    run.advance(3)
    stream = EpisodeStream(toy_tasks, CONFIG, 42)
    tokens = 0
    for index in range(6):
        episode = stream.episode(index)
        task = toy_tasks[episode.item]
        examples = [task.train[row] for row in episode.support[0]]
        examples += [task.dev[row] for row in episode.query]
        rows = toy_backbone.encode_rows(task.name, examples, TextConfig())
        tokens += sum(len(source) + len(target) for source, target in rows)
    assert (run.cost.steps, run.cost.examples, run.cost.tokens) == (3, 24, tokens)
    assert run.cost.seconds > 0


@pytest.mark.slow  # 40 steps of every method: `test_conformance`
def test_maml_lowers_the_query_loss_after_adaptation(
    toy_backbone: Backbone, toy_tasks: list[FewShotTask], new_run: NewRun
) -> None:
    """On episodes the run has not drawn (another root seed), before and after learning."""
    config = dataclasses.replace(CONFIG, batch_size=4)
    run = new_run(config=config, prompt_config=PromptConfig(length=8))
    judge = new_run(config=config, prompt_config=PromptConfig(length=8), root_seed=7)

    def query_loss(prompt: Tensor) -> float:
        judge.prompt.copy_(prompt)
        episodes = [judge._stream.episode(index) for index in range(12)]
        return sum(judge._gradients([episode])[1][0] for episode in episodes) / 12

    before = query_loss(run.prompt)
    run.advance(100)
    after = query_loss(run.prompt)
    assert after < 0.75 * before, f"query loss {before:.3f} -> {after:.3f}"


def _average(iterates: Sequence[Tensor]) -> Tensor:
    """Σ w_t φ_t / Σ w_t with w_t = (t + 2)(t + 1) t: the recursion with η = 3 solved."""
    weights = [(t + 2) * (t + 1) * t for t in range(1, len(iterates) + 1)]
    total = sum(w * phi.double() for w, phi in zip(weights, iterates, strict=True))
    return torch.as_tensor(total / sum(weights))


@pytest.mark.parametrize("method", ["maml", "multitask", "path"])
def test_the_average_is_the_closed_form_over_the_iterates_of_the_plain_run(
    method: str, new_run: NewRun
) -> None:
    config = dataclasses.replace(CONFIG, method=method)
    plain = new_run(config=config)
    averaged = new_run(config=dataclasses.replace(config, average="polynomial"))
    assert torch.equal(averaged.prompt, plain.prompt)  # nothing to average yet
    iterates = []
    for _ in range(6):
        plain.advance(1)
        averaged.advance(1)
        iterates.append(plain.prompt.clone())
        # one trajectory gives both points
        assert torch.equal(averaged.iterate, plain.prompt)
    # six roundings of 6e-8
    torch.testing.assert_close(averaged.prompt.double(), _average(iterates), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(averaged.prompt, plain.prompt, atol=1e-3)
    first = new_run(config=dataclasses.replace(config, average="polynomial"))
    first.advance(1)
    assert torch.equal(first.prompt, iterates[0])


@pytest.mark.parametrize("average", ["polynomial", "schedule_free"])
def test_the_average_at_a_rung_is_the_end_of_a_shorter_run_and_survives_files(
    average: str, new_run: NewRun
) -> None:
    config = dataclasses.replace(CONFIG, average=average)
    long, short = new_run(config=config), new_run(config=config)
    long.advance(4)
    rung = long.prompt.clone()
    state = _through_files(long.state_dict())
    long.advance(3)
    for steps in (1, 3):
        short.advance(steps)
    assert torch.equal(short.prompt, rung)
    resumed = new_run(config=config)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.prompt, rung)
    resumed.advance(3)
    _assert_same(resumed, long)
    del state["tensors"]["mean"]
    with pytest.raises(DataError, match="checkpoint is incomplete"):
        new_run(config=config).load_state_dict(state)


def test_schedule_free_iterates_are_those_of_a_plain_loop(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hugging Face's Adafactor on z, the gradient A (y − c) of a quadratic at y = .1 z + .9 x."""
    config = dataclasses.replace(CONFIG, items_per_step=1, average="schedule_free")
    run = new_run(config=config)
    generator = torch.Generator().manual_seed(5)
    curvature = torch.rand(run.prompt.shape, generator=generator) + 0.5
    quadratic = dataclasses.replace(
        run._method, outer_gradient=lambda _, prompt, *__: (curvature * (prompt - 1.0), 0.5)
    )
    monkeypatch.setattr(run, "_method", quadratic)
    z = torch.nn.Parameter(run.prompt.clone())
    reference: Any = HuggingFaceAdafactor(
        [z], lr=0.3, scale_parameter=False, relative_step=False, weight_decay=1e-5
    )
    iterates: list[Tensor] = []
    for _ in range(5):
        x = torch.stack(iterates).mean(0) if iterates else z.detach().clone()
        z.grad = curvature * (0.1 * z.detach() + 0.9 * x - 1.0)
        reference.step()
        iterates.append(z.detach().clone())
        run.advance(1)
        # five steps of float32 arithmetic in another order
        torch.testing.assert_close(run.iterate, iterates[-1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(run.prompt, torch.stack(iterates).mean(0), rtol=1e-5, atol=1e-5)


def test_a_decaying_rate_is_that_of_a_plain_loop(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hugging Face's Adafactor with lr set before every step, on the same given gradients."""
    generator = torch.Generator().manual_seed(5)
    run = new_run(config=dataclasses.replace(CONFIG, items_per_step=1, decay_horizon=4))
    grads = torch.randn(4, *run.prompt.shape, generator=generator)
    given = iter(grads)
    monkeypatch.setattr(run, "_gradients", lambda _: (next(given)[None], [0.5]))
    phi = torch.nn.Parameter(run.prompt.clone())
    reference: Any = HuggingFaceAdafactor(
        [phi], lr=0.3, scale_parameter=False, relative_step=False, weight_decay=1e-5
    )
    for gradient, lr in zip(grads, (0.3, 0.225, 0.15, 0.075), strict=True):
        reference.param_groups[0]["lr"] = lr
        phi.grad = gradient.clone()
        reference.step()
        run.advance(1)
        torch.testing.assert_close(run.prompt, phi.detach(), rtol=1e-6, atol=1e-6)


def test_a_horizon_is_never_passed_and_makes_trajectories_of_their_own(new_run: NewRun) -> None:
    short, long = (
        new_run(config=dataclasses.replace(CONFIG, decay_horizon=horizon)) for horizon in (3, 6)
    )
    for run in (short, long):
        run.advance(3)
    assert short.key != long.key
    assert not torch.equal(short.prompt, long.prompt)
    before = short.prompt.clone()
    with pytest.raises(UsageError, match="steps are 4, but must be at most 3, the decay_horizon"):
        short.advance(1)
    assert torch.equal(short.prompt, before)
    resumed = new_run(config=dataclasses.replace(CONFIG, decay_horizon=6))
    resumed.load_state_dict(_through_files(long.state_dict()))
    for run in (resumed, long):
        run.advance(3)
    _assert_same(resumed, long)


def test_settings_at_their_defaults_leave_the_key_as_it_always_was(new_run: NewRun) -> None:
    """An option that is added later, with a default that changes nothing, changes no key."""
    key = new_run().key

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(UpstreamConfig):
        option: int = 7

    settings = dataclasses.asdict(CONFIG)
    assert new_run(config=Later(**settings)).key == key
    assert new_run(config=Later(**settings, option=8)).key != key
