"""A prompt that stands first is read once a pass while it is trained, too: gradients stay."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from torch import Tensor
from toys import byte_tokenizer, toy_task

from mpt.backbones import Backbone, Batch
from mpt.backbones.check import settle_cache
from mpt.backbones.decoder_only import DecoderOnly, _same_rope_until, _window
from mpt.backbones.families import family_of
from mpt.backbones.rows import cheapest_groups, groups_of_runs, pass_tokens
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.limits import PackLimits
from mpt.downstream.probe import Probe
from mpt.downstream.prompt_tuning import TuningRun, tune
from mpt.downstream.queue import TuningQueue
from mpt.upstream.checkpointing import activation_checkpointing

P = 10
"""Longer than the windows of 8 that some of the models have."""
RUNS = [0, 2, 1, 0, 2]
ROWS = [([30] * 12, [40, 50, 1]), ([60, 70], [80, 1]), ([90] * 5, [35, 45, 55, 1])]
ROWS += [([33, 44, 55], [66, 1]), ([90, 80, 70, 60], [35, 1])]


def _model(name: str = "llama-grouped", dtype: torch.dtype = torch.float64) -> DecoderOnly:
    model = tiny_models.build(name).to(dtype)
    backbone = family_of("tiny", model.config)("tiny", model, byte_tokenizer(), "prepend")
    assert isinstance(backbone, DecoderOnly)
    return backbone


def _whole(name: str = "llama-grouped", dtype: torch.dtype = torch.float64) -> DecoderOnly:
    """The same model, made to read whole rows."""
    backbone = _model(name, dtype)
    backbone.input_cache = None
    return backbone


def _prompts(backbone: Backbone, runs: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return backbone.embeddings()[torch.randint(3, 200, (runs, P), generator=generator)].double()


def _slope(backbone: Backbone, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    leaf = prompts.clone().requires_grad_()
    losses = backbone.run_losses(leaf, batch)
    return losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]


def _places(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that will hold (rows, places) of every pass through the model."""
    sizes: list[tuple[int, int]] = []
    plain = backbone._transformer

    def spy(embedded: Tensor, **options: Any) -> Tensor:
        sizes.append((embedded.shape[0], embedded.shape[1]))
        return torch.as_tensor(plain(embedded, **options))

    monkeypatch.setattr(backbone, "_transformer", spy)
    return sizes


# Some models take norms or positions in float32: 1.2e-7 at most was measured.
@pytest.mark.parametrize("name", tiny_models.CAUSAL)
def test_losses_and_gradients_are_those_of_whole_rows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, whole = _model(name), _whole(name)
    prompts, batch = _prompts(shared), shared.collate(ROWS, RUNS)
    sizes = _places(shared, monkeypatch)
    losses, slope = _slope(shared, prompts, batch)
    assert sizes == [(3, P), (5, 12 + 4 - 1)]
    expected = _slope(whole, prompts, batch)
    torch.testing.assert_close(losses, expected[0], rtol=1e-6, atol=1e-6)
    assert (slope - expected[1]).norm() <= 1e-6 * expected[1].norm()


def test_a_prompt_without_a_row_is_not_read_and_has_no_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = _model()
    sizes = _places(backbone, monkeypatch)
    slope = _slope(backbone, _prompts(backbone), backbone.collate(ROWS[:3], [2, 0, 2]))[1]
    assert sizes[0] == (2, P)
    assert (slope.abs().sum((1, 2)) > 0).tolist() == [True, False, True]


def test_second_derivatives_are_those_of_whole_rows() -> None:
    products = []
    for backbone in (_model(), _whole()):
        leaf = _prompts(backbone, 1).requires_grad_()
        with backbone.second_order():
            loss = backbone.run_losses(leaf, backbone.collate(ROWS, [0] * 5))
            (slope,) = torch.autograd.grad(loss.sum(), leaf, create_graph=True)
            (product,) = torch.autograd.grad(slope, leaf, torch.ones_like(slope))
        products.append(product)
    assert (products[0] - products[1]).norm() <= 1e-6 * products[1].norm()
    assert float(products[1].norm()) > 1e-3


def test_whole_rows_are_read_where_nothing_is_shared_or_may_not_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = _model("gpt2", torch.float32)
    sizes = _places(backbone, monkeypatch)
    prompts = _prompts(backbone)
    line = P + 12 + 4 - 1

    def read(batch: Batch) -> list[tuple[int, int]]:
        sizes.clear()
        _slope(backbone, prompts, batch)
        return list(sizes)

    assert read(backbone.collate(ROWS[:3], [0, 1, 2])) == [(3, line)]  # a run each
    batch = backbone.collate(ROWS, RUNS)
    assert len(read(batch)) == 2
    with backbone.dropout(0.1, seed=1):  # every row has masks of its own
        assert read(batch) == [(5, line)]
    with activation_checkpointing(backbone):  # a block that runs twice would write twice
        assert read(batch)[0] == (5, line)
    copy = backbone.trainable_copy()
    assert isinstance(copy, DecoderOnly)
    own = _places(copy, monkeypatch)
    copy.row_losses(prompts, batch)
    assert own == [(5, line)]


def test_of_a_step_no_more_tokens_are_useful_than_are_read() -> None:
    backbone = _model("gpt2", torch.float32)
    task = toy_task("one", 13)
    prompts = [_prompts(backbone, 1)[0]] * 2
    config = DownstreamConfig(steps=2, eval_every=2, batch_size=4, max_generated=2)
    limits = PackLimits(runs=2, tokens=1000, pass_cost=20, source="toy")
    runs = [TuningRun(task, 0.1, prompt) for prompt in prompts]
    queue = TuningQueue(backbone, runs, config, TextConfig(), 42, limits)
    queue.advance()
    assert 0.5 < queue.progress.useful_share <= 1


def test_rows_that_fit_are_measured_as_whole_ones() -> None:
    """Keys and values of its prompt are kept for every row, however often it was read."""
    row = ([30] * 12, [40, 50, 1])
    shared, whole = (Probe(one("gpt2", torch.float32), row, P) for one in (_model, _whole))
    assert shared.bytes_of(6) == pytest.approx(whole.bytes_of(6), rel=0.01)


@pytest.mark.parametrize("position", ["prepend", "append"])
def test_what_the_self_check_found_holds_for_a_copy_that_is_trained(position: str) -> None:
    model = tiny_models.build("llama-grouped")
    backbone = family_of("tiny", model.config)("tiny", model, byte_tokenizer(), position)
    assert getattr(backbone.trainable_copy(), "input_cache", None) is not None
    backbone.input_cache = None  # type: ignore[attr-defined]
    assert getattr(backbone.trainable_copy(), "input_cache", 0) is None


def test_lines_that_turn_positions_otherwise_are_read_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A prompt alone is short; behind it a line of "longrope" may be long."""
    backbone = _model("llama-grouped")
    sizes = _places(backbone, monkeypatch)
    prompts, batch = _prompts(backbone), backbone.collate(ROWS, RUNS)
    line = P + 12 + 4 - 1
    for until, passes in ((line, 2), (line - 1, 1)):
        monkeypatch.setattr(backbone, "_same_until", until)
        sizes.clear()
        _slope(backbone, prompts, batch)
        assert len(sizes) == passes
    assert backbone.greedy_pass(prompts, batch, 4)[1] is None


@pytest.mark.parametrize(
    ("rope", "until"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, None),
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, 64),
        ({"rope_type": "longrope", "original_max_position_embeddings": 32}, 32),
        ({"full": {"rope_type": "dynamic"}, "sliding": {"rope_type": "default"}}, 64),
    ],
)
def test_the_length_from_which_positions_are_turned_otherwise_is_read(
    rope: dict[str, Any], until: int | None
) -> None:
    config = SimpleNamespace(rope_parameters=rope, max_position_embeddings=64)
    assert _same_rope_until(config) == until


@pytest.mark.parametrize(
    ("settings", "window"),
    [
        ({"sliding_window": None, "max_window_layers": 28}, None),
        ({"sliding_window": 8, "use_sliding_window": True}, 8),
        ({"sliding_window_size": 16, "attention_chunk_size": 12}, 12),
    ],
)
def test_windows_are_found_by_any_name(settings: dict[str, Any], window: int | None) -> None:
    assert _window(SimpleNamespace(to_dict=lambda: settings)) == window


def test_a_model_whose_keys_and_values_have_no_gradient_reads_whole_rows() -> None:
    """Losses alone would not show it."""
    backbone = _model()
    plain = backbone._prompts_of_rows

    def detached(prompts: Tensor, batch: Batch, length: int) -> Any:
        return plain(prompts.detach(), batch, length)

    backbone._prompts_of_rows = detached  # type: ignore[method-assign]
    settle_cache(backbone)
    assert backbone.input_cache is None


def test_a_tuned_prompt_is_that_of_whole_rows() -> None:
    shared, whole = _model("gpt2"), _whole("gpt2")
    tasks = [toy_task("one", 13), toy_task("other_task", 13, shots=5)]
    config = DownstreamConfig(steps=6, eval_every=3, batch_size=4, max_generated=3)
    limits = PackLimits(runs=4, tokens=300, pass_cost=20, source="toy")
    runs = [TuningRun(task, lr, _prompts(shared, 1)[0]) for task in tasks for lr in (0.3, 0.1)]
    pair = [tune(one, runs, config, TextConfig(), 42, limits=limits) for one in (shared, whole)]
    for run, one, other in zip(runs, *pair, strict=True):
        moved = other.prompt - run.prompt
        assert (one.prompt - other.prompt).norm() <= 1e-5 * moved.norm()
        assert (one.dev, one.test, one.best_step) == (other.dev, other.test, other.best_step)


def _cost(groups: list[list[int]], rows: Any, prompt: int, pass_cost: int) -> int:
    return sum(pass_cost + _tokens(rows, group, prompt) for group in groups)


def _tokens(rows: Any, group: list[int], prompt: int) -> int:
    inputs, targets, runs = rows
    return pass_tokens(inputs, targets, runs, group, prompt)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("prompt", [0, 4, 100])
def test_rows_are_split_into_passes_that_fit_and_cost_no_more_than_split_by_length(
    prompt: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    runs = [run for run in range(6) for _ in range(int(rng.integers(1, 9)))]
    inputs, targets = (rng.integers(1, most, len(runs)).tolist() for most in (60, 9))
    rows: Any = (inputs, targets, runs)
    groups = groups_of_runs(*rows, prompt=prompt, pass_cost=30, max_tokens=400)
    assert sorted(row for group in groups for row in group) == list(range(len(runs)))
    for group in groups:  # memory is that of whole rows
        longest = max(inputs[n] for n in group) + max(targets[n] for n in group)
        assert len(group) * (prompt + longest) <= 400 or len(group) == 1
    by_length = cheapest_groups(inputs, targets, extra=prompt, pass_cost=30, max_tokens=400)
    assert _cost(groups, rows, prompt, 30) <= _cost(by_length, rows, prompt, 30)
    if prompt == 100:  # most of a row is its prompt
        assert _cost(groups, rows, 100, 30) < _cost(by_length, rows, 100, 30)
    assert groups == groups_of_runs(*rows, prompt=prompt, pass_cost=30, max_tokens=400)


def test_a_run_that_does_not_fit_is_cut() -> None:
    rows = ([20] * 8, [5] * 8, [0] * 8)
    groups = groups_of_runs(*rows, prompt=10, pass_cost=1, max_tokens=110)
    assert sorted(len(group) for group in groups) == [2, 3, 3]
    # one long row and a run of short ones
    apart = groups_of_runs(
        [60] + [10] * 8, [2] * 9, [0] + [1] * 8, prompt=100, pass_cost=128, max_tokens=400
    )
    assert max(map(len, apart)) == 3
    single = groups_of_runs(*rows, prompt=10, pass_cost=1, max_tokens=5)
    assert sorted(itertools.chain(*single)) == list(range(8))
    assert {len(group) for group in single} == {1}


def test_tokens_of_a_pass_count_each_prompt_once() -> None:
    assert pass_tokens([3, 9, 4], [2, 1, 1], [0, 0, 7], [0, 1, 2], 10) == 3 * (9 + 2) + 2 * 10
