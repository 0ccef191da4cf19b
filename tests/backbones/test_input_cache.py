from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_backbones import save_toy_gpt2
from transformers import GPT2Config, GPT2LMHeadModel

from mpt.backbones import Batch, input_cache, load_backbone
from mpt.backbones.decoder_only import DecoderOnly
from mpt.backbones.generation import Generation
from mpt.backbones.input_cache import CPU_BYTES, InputCache
from mpt.errors import UsageError

P = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_gpt2(tmp_path_factory.mktemp("gpt2"))


def _load(checkpoint: Path, dtype: torch.dtype = torch.float64) -> Any:
    return load_backbone(str(checkpoint), dtype=dtype, position="append")


def _batch(backbone: Any, texts: tuple[str, ...], runs: list[int]) -> Batch:
    rows = [
        (backbone.encode_input(text, 40), backbone.encode_target(text[::-1][:4], 9))
        for text in texts
    ]
    return backbone.collate(rows, runs)


def _prompts(backbone: Any, runs: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randn(runs, P, backbone.d_model, generator=generator, dtype=torch.float64)
    return prompts.to(backbone.dtype)


def _step(backbone: Any, batch: Batch, prompts: Tensor) -> tuple[Tensor, Tensor]:
    leaf = prompts.clone().requires_grad_()
    losses = backbone.run_losses(leaf, batch)
    return losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]


TEXTS = ("abc", "a much longer text", "xy", "abc")
RUNS = [0, 1, 1, 1]


# Measured elsewhere: 1.9e-8 (float64, norms in float32) and 1.1e-7 (float32).
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_losses_and_gradients_are_those_of_reading_the_whole_row(
    checkpoint: Path, dtype: torch.dtype, tolerance: float
) -> None:
    cached, plain = _load(checkpoint, dtype), _load(checkpoint, dtype)
    plain.input_cache = None
    batch, prompts = _batch(cached, TEXTS, RUNS), _prompts(cached)
    expected_loss, expected = _step(plain, batch, prompts)
    for _ in range(2):  # the second time from the cache alone
        loss, gradient = _step(cached, batch, prompts)
        torch.testing.assert_close(loss, expected_loss, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(gradient, expected, rtol=tolerance, atol=tolerance)
    assert len(cached.input_cache) == 3


def test_bits_do_not_depend_on_what_the_cache_holds(checkpoint: Path) -> None:
    """Otherwise a resumed run would go on differently from an undisturbed one."""
    fresh, used = _load(checkpoint, torch.float32), _load(checkpoint, torch.float32)
    prompts = _prompts(fresh)
    _step(used, _batch(used, ("a much longer text", "zzzzzz"), [0, 1]), prompts)
    _step(used, _batch(used, ("abc", "q"), [0, 1]), prompts)
    batch = _batch(fresh, TEXTS, RUNS)
    for found, expected in zip(
        _step(used, batch, prompts), _step(fresh, batch, prompts), strict=True
    ):
        assert torch.equal(found, expected)


def test_the_inputs_used_longest_ago_go_first_and_the_room_is_kept(checkpoint: Path) -> None:
    backbone = _load(checkpoint)
    prompts = _prompts(backbone)
    one = _batch(backbone, ("abcd",), [0])
    _step(backbone, one, prompts)
    size = backbone.input_cache.bytes
    # 2 layers × (keys and values) × 5 tokens × width 16 × 8 bytes
    assert size == 2 * 2 * 5 * 16 * 8
    backbone.input_cache.max_bytes = 2 * size
    computed = _spied(backbone)
    for text in ("abce", "abcd", "abcf", "abcd", "abce"):
        _step(backbone, _batch(backbone, (text,), [0]), prompts)
        assert backbone.input_cache.bytes <= 2 * size
    assert len(computed) == 3  # abce, abcf, and abce again
    backbone.input_cache.max_bytes = 0
    _, gradient = _step(backbone, one, prompts)
    assert len(backbone.input_cache) == 0
    assert gradient[0].abs().sum() > 0


def test_the_cache_is_left_out_where_its_content_would_be_wrong(checkpoint: Path) -> None:
    backbone = _load(checkpoint)
    batch, prompts = _batch(backbone, TEXTS, RUNS), _prompts(backbone).requires_grad_()
    with backbone.dropout(0.2, 1):
        backbone.row_losses(prompts, batch)[0].sum().backward()
    backbone.trainable_copy().row_losses(prompts, batch)[0].sum().backward()
    assert len(backbone.input_cache) == 0
    front = load_backbone(str(checkpoint), dtype=torch.float64)
    assert isinstance(front, DecoderOnly)
    _step(front, batch, _prompts(front))
    assert front.input_cache is not None
    assert len(front.input_cache) == 0


def _spied(backbone: Any) -> list[int]:
    """Return the lengths of the inputs that are read from now on."""
    read: list[int] = []
    compute = backbone._input_keys_values

    def spy(ids: Tensor) -> Tensor:
        read.append(len(ids))
        return compute(ids)

    backbone._input_keys_values = spy
    return read


def test_evaluation_and_generation_share_what_training_has_read(checkpoint: Path) -> None:
    backbone, plain = _load(checkpoint), _load(checkpoint)
    plain.input_cache = None
    read = _spied(backbone)
    batch, prompts = _batch(backbone, TEXTS, RUNS), _prompts(backbone)
    _step(backbone, batch, prompts)
    assert len(read) == 3
    with torch.no_grad():
        losses = backbone.row_losses(prompts, batch)[0]
        torch.testing.assert_close(losses, plain.row_losses(prompts, batch)[0], rtol=1e-11, atol=0)
    assert torch.equal(backbone.greedy_tokens(prompts, batch), plain.greedy_tokens(prompts, batch))
    for how in (Generation(), Generation(beams=3), Generation(repetition_penalty=2.5)):
        written = backbone.generate_ids(prompts, batch, 12, how)
        assert written == plain.generate_ids(prompts, batch, 12, how)
    assert len(read) == 3
    for count, text in ((4, "new to evaluation"), (5, "new to generation")):
        other = _batch(backbone, (text,), [0])
        if count == 4:
            backbone.greedy_tokens(prompts, other)
        else:
            backbone.generate_ids(prompts, other, 3)
        assert len(read) == count
        _step(backbone, other, prompts)
        assert len(read) == count


def test_the_room_is_kept_through_many_evaluations(checkpoint: Path) -> None:
    backbone = _load(checkpoint)
    prompts = _prompts(backbone)
    size = 2 * 2 * 16 * 8  # bytes of a token: 2 layers × (keys and values) × width 16 × 8
    backbone.input_cache.max_bytes = 12 * size
    most = 0
    for n in range(1, 30):
        texts = ("a" * (n % 7), "b" * (n % 5), f"c{n}")
        batch = _batch(backbone, texts, [0, 1, 0])
        backbone.greedy_tokens(prompts, batch)
        backbone.generate_ids(prompts, batch, 3)
        most = max(most, backbone.input_cache.bytes)
        kept = sum(kv.nbytes for kv in backbone.input_cache._known.values())
        assert kept == backbone.input_cache.bytes <= 12 * size
    assert most > 6 * size  # it is used


def test_the_room_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(input_cache, "free_ram", lambda: 2**20)
    assert InputCache.for_device(cpu).max_bytes == CPU_BYTES
    monkeypatch.setattr(input_cache, "free_ram", lambda: 2**36)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert InputCache.for_device(cpu).max_bytes == 2**33  # an eighth for each of four workers
    monkeypatch.setenv("MPT_INPUT_CACHE_MB", "3")
    assert InputCache.for_device(cpu).max_bytes == 3 * 2**20
    monkeypatch.setenv("MPT_INPUT_CACHE_MB", "some")
    with pytest.raises(UsageError, match="MPT_INPUT_CACHE_MB is 'some'"):
        InputCache.for_device(cpu)


@pytest.mark.slow
def test_a_step_with_long_inputs_is_at_least_half_as_long_again_without_the_cache() -> None:
    """256 wide, 3 layers, 4 inputs of 400 tokens; prints the ratio (-s). Measured: 4.0."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=2000, n_embd=256, n_layer=3, n_head=4, bos_token_id=1, eos_token_id=1
    )
    backbones = []
    for cache in (InputCache(2**30), None):
        backbone = DecoderOnly("toy", GPT2LMHeadModel(config), _Bytes(), "append")
        backbone.input_cache = cache
        backbones.append(backbone)
    rows = [([place + 2] * 400, [5, 1]) for place in range(4)]
    prompts = torch.randn(1, 100, 256)
    seconds: list[list[float]] = [[], []]
    for _ in range(4):
        for backbone, own in zip(backbones, seconds, strict=True):
            batch = backbone.collate(rows, [0] * 4)
            started = time.process_time()
            _step(backbone, batch, prompts)
            own.append(time.process_time() - started)
    ratio = min(seconds[1]) / min(seconds[0][1:])
    print(f"step without the cache / with it: {ratio:.2f} (threads: {os.cpu_count()})")
    assert ratio > 1.5


class _Bytes:
    """As much of a tokenizer as `DecoderOnly` needs here."""

    def __call__(self, *_: object, **__: object) -> dict[str, list[int]]:
        return {"input_ids": [3]}
