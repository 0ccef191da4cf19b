"""A prompt that stands first is read once while it stays: the numbers are those of whole rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor
from toys import byte_tokenizer, toy_task

from mpt.backbones import Batch
from mpt.backbones.check import settle_cache
from mpt.backbones.decoder_only import DecoderOnly
from mpt.backbones.families import family_of
from mpt.backbones.generation import Generation
from mpt.backbones.input_cache import InputCache
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.evaluation import Evaluator
from mpt.trial.starts.losses import start_loss

P = 4
RUNS = [0, 2, 1, 0, 2]
ROWS = [([30] * 12, [40, 50, 1]), ([60, 70], [80, 1]), ([90] * 5, [35, 45, 55, 1])]
ROWS += [([33, 44, 55], [66, 1]), ([90, 80, 70, 60], [35, 1])]
SAME_LENGTH = [([30 + n] * 3, [40, 50, 1]) for n in range(5)]
PLACES_COUNTED = ("bloom", "mpt", "mistral-window", "gemma2-capped")
"""ALiBi without positions, or a window of 8: rows may have no gap there."""


def _model(name: str = "llama-grouped", dtype: torch.dtype = torch.float32) -> DecoderOnly:
    model = tiny_models.build(name).to(dtype)
    backbone = family_of("tiny", model.config)("tiny", model, byte_tokenizer(), "prepend")
    assert isinstance(backbone, DecoderOnly)
    return backbone


def _prompts(backbone: DecoderOnly, length: int = P) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return backbone.embeddings()[torch.randint(3, 200, (3, length), generator=generator)]


@contextlib.contextmanager
def _read(backbone: Any) -> Iterator[list[int]]:
    """Yield the places [B · S] of every pass through the model inside the block."""
    places: list[int] = []
    plain = backbone._transformer

    def spy(embedded: Tensor, **options: Any) -> Tensor:
        places.append(embedded.shape[0] * embedded.shape[1])
        return torch.as_tensor(plain(embedded, **options))

    backbone._transformer = spy
    try:
        yield places
    finally:
        del backbone._transformer


def _cache(backbone: DecoderOnly) -> InputCache:
    assert backbone.input_cache is not None
    return backbone.input_cache


# Prompt 10 is longer than the windows of 8, prompt 4 shorter. Measured: at most 1.1e-7 in float32
# and 8e-4 in bfloat16, where whole rows are 4e-3 away from float32.
@pytest.mark.parametrize(
    ("length", "dtype", "tolerance"),
    [
        (10, torch.float32, 2e-6),
        (P, torch.bfloat16, 5e-3),
        pytest.param(P, torch.float32, 2e-6, marks=pytest.mark.slow),
        pytest.param(10, torch.bfloat16, 5e-3, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", tiny_models.CAUSAL)
def test_losses_choices_and_outputs_are_those_of_whole_rows(
    name: str, length: int, dtype: torch.dtype, tolerance: float
) -> None:
    kept, plain = _model(name, dtype), _model(name, dtype)
    settle_cache(kept)
    prompts = _prompts(kept, length)
    for rows in (ROWS, SAME_LENGTH, ROWS[:1]):
        batch = kept.collate(rows, RUNS[: len(rows)])
        with torch.no_grad(), kept.fixed(prompts):
            losses = kept.row_losses(prompts, batch)[0]
            assert len(_cache(kept)) == len(set(RUNS[: len(rows)]))  # it is used
            expected = plain.row_losses(prompts, batch)[0]
            torch.testing.assert_close(losses, expected, rtol=tolerance, atol=tolerance)
            if dtype == torch.float32:
                _check_choices(kept, plain, prompts, batch)


def _check_choices(kept: DecoderOnly, plain: DecoderOnly, prompts: Tensor, batch: Batch) -> None:
    assert torch.equal(kept.greedy_tokens(prompts, batch), plain.greedy_tokens(prompts, batch))
    for how in (Generation(), Generation(beams=3), Generation(repetition_penalty=2.5)):
        written = kept.generate_ids(prompts, batch, 8, how)
        assert written == plain.generate_ids(prompts, batch, 8, how)


@pytest.mark.parametrize("name", tiny_models.CAUSAL)
def test_generation_reads_no_prompt_again_unless_padding_would_be_counted(name: str) -> None:
    backbone = _model(name)
    settle_cache(backbone)
    prompts = _prompts(backbone)
    longest = max(len(words) for words, _ in ROWS)
    with backbone.fixed(prompts), _read(backbone) as places:
        backbone.greedy_tokens(prompts, backbone.collate(ROWS, RUNS))
        backbone.generate_ids(prompts, backbone.collate(SAME_LENGTH, RUNS), 1)
        backbone.generate_ids(prompts, backbone.collate(ROWS, RUNS), 1)
    again = P if name in PLACES_COUNTED else 0
    line = longest + max(len(target) for _, target in ROWS) - 1
    assert places[:3] == [P, P, P]  # the three prompts, each alone
    assert places[3:] == [5 * line, 5 * 3, 5 * (longest + again)]


def test_bits_do_not_depend_on_the_other_runs_of_a_pack() -> None:
    """A resumed run meets other runs than an undisturbed one."""
    together, alone = _model(), _model()
    prompts = _prompts(together)
    batch = together.collate(ROWS[:2], [1, 1])
    other = together.collate(ROWS, RUNS)
    with torch.no_grad(), together.fixed(prompts), alone.fixed(prompts):
        together.row_losses(prompts, other)
        found = together.row_losses(prompts, batch)[0]
        assert torch.equal(found, alone.row_losses(prompts, batch)[0])
        assert (len(_cache(together)), len(_cache(alone))) == (3, 1)


def test_prompts_are_read_anew_outside_the_block_and_where_they_are_others() -> None:
    backbone, plain = _model(), _model()
    prompts, batch = _prompts(backbone), backbone.collate(ROWS, RUNS)
    with torch.no_grad():
        backbone.row_losses(prompts, batch)
        assert len(_cache(backbone)) == 0  # no block
        with backbone.fixed(prompts):
            backbone.row_losses(prompts, batch)
            other = prompts + 1
            found = backbone.row_losses(other, batch)[0]
            assert torch.equal(found, plain.row_losses(other, batch)[0])
            with backbone.fixed(other):
                inner = backbone.row_losses(other, batch)[0]
            torch.testing.assert_close(inner, found, rtol=1e-5, atol=1e-5)
            backbone.row_losses(prompts, batch)
            prompts += 2  # in place: what was read is no more
            changed = backbone.row_losses(prompts, batch)[0]
            expected = plain.row_losses(prompts, batch)[0]
            torch.testing.assert_close(changed, expected, rtol=1e-5, atol=1e-5)
        assert len(_cache(backbone)) == 0  # nothing is left behind


def test_what_has_a_gradient_or_dropout_or_no_prompt_reads_whole_rows() -> None:
    backbone = _model()
    batch = backbone.collate(ROWS, RUNS)
    prompts = _prompts(backbone).requires_grad_()
    none = prompts[:, :0].detach()
    with backbone.fixed(prompts):
        backbone.run_losses(prompts, batch).sum().backward()
        assert prompts.grad is not None
        assert bool((prompts.grad.abs().sum(2) > 0).all())
        with backbone.dropout(0.2, 1), torch.no_grad():
            backbone.row_losses(prompts, batch)
        with torch.no_grad(), backbone.fixed(none):
            backbone.row_losses(none, batch)
        assert len(_cache(backbone)) == 0
    copy = backbone.trainable_copy()
    assert isinstance(copy, DecoderOnly)
    with copy.fixed(prompts), torch.no_grad():
        copy.row_losses(prompts, batch)
        assert len(_cache(copy)) == 0


def test_the_room_holds_for_prompts_too() -> None:
    backbone, plain = _model(), _model()
    prompts, batch = _prompts(backbone), backbone.collate(ROWS, RUNS)
    with torch.no_grad(), backbone.fixed(prompts):
        backbone.row_losses(prompts, batch)
        one = _cache(backbone).bytes // 3
        # 2 layers × (keys and values) × 2 heads × 4 tokens × width 4 × 4 bytes
        assert one == 2 * 2 * 2 * P * 4 * 4
        for room in (2 * one, 0):
            _cache(backbone).max_bytes = room
            found = backbone.row_losses(prompts, batch)[0]
            assert _cache(backbone).bytes <= room
            expected = plain.row_losses(prompts, batch)[0]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_model_that_sees_what_comes_later_gives_the_cache_up() -> None:
    backbone = _model()
    plain = backbone._keys_values

    def wrong(embedded: Tensor) -> Tensor:
        return plain(embedded) * 1.01

    backbone._keys_values = wrong  # type: ignore[method-assign]
    settle_cache(backbone)
    assert backbone.input_cache is None
    prompts = _prompts(backbone)
    with torch.no_grad(), backbone.fixed(prompts):
        found = backbone.row_losses(prompts, backbone.collate(ROWS, RUNS))[0]
        without = _model()
        without.input_cache = None
        expected = without.row_losses(prompts, backbone.collate(ROWS, RUNS))[0]
    assert torch.equal(found, expected)


def test_an_evaluation_reads_every_prompt_once_and_scores_as_before() -> None:
    task = toy_task(test=12, metric="Rouge-L")  # teacher forcing, and then generation of the rest
    config = DownstreamConfig(max_generated=4)
    scores = []
    for kept in (True, False):
        backbone = _model()
        if not kept:
            backbone.input_cache = None
        prompts = 0.3 * _prompts(backbone)
        evaluator = Evaluator(backbone, [task], "test", config, TextConfig(), 200)
        with _read(backbone) as places:
            scores.append([evaluator.scores(prompts, [0, 0, 0]) for _ in range(2)])
        assert places.count(P) == (6 if kept else 0)  # 3 prompts in each of 2 evaluations
    assert scores[0] == scores[1]


def test_the_loss_that_a_start_is_chosen_by_reads_the_start_once() -> None:
    task, config = toy_task(), DownstreamConfig(batch_size=3)
    losses = []
    for kept in (True, False):
        backbone = _model()
        if not kept:
            backbone.input_cache = None
        study: Any = SimpleNamespace(
            backbone=backbone, config=SimpleNamespace(downstream=config, text=TextConfig())
        )
        prompt = 0.3 * _prompts(backbone)[0]
        with _read(backbone) as places:
            losses.append(start_loss(study, task, prompt))
        assert places.count(P) == (1 if kept else 0)
        assert len(places) == 6 + kept  # 16 rows, three at a time
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
