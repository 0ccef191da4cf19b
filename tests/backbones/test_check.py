"""The conformance suite on tiny models of many architectures, and models that it must refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file, save_file
from toys import byte_tokenizer

from mpt.backbones import Backbone, load_backbone
from mpt.backbones.check import LIMITS, Finding, findings, require, settle_cache
from mpt.backbones.decoder_only import DecoderOnly
from mpt.backbones.families import family_of
from mpt.backbones.load import quiet
from mpt.errors import DataError, UsageError

P = 4


@pytest.fixture(params=["prepend", "append"])
def position(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=tiny_models.ARCHITECTURES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _backbone(model: Any, position: str = "prepend") -> Backbone:
    return family_of("tiny", model.config)("tiny", model, byte_tokenizer(), position)


def _prompts(backbone: Backbone, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return backbone.embeddings()[torch.randint(3, 200, (2, P), generator=generator)]


def test_the_suite_has_at_least_ten_architectures_of_both_kinds() -> None:
    kinds = {prefix for prefix, _ in tiny_models.ARCHITECTURES.values()}
    assert len(kinds) >= 10
    assert tiny_models.CAUSAL
    assert tiny_models.SEQ2SEQ


# In float32 the paths agree to rounding (measured: at most 2e-7). float64 is left to the contract:
# eager attention makes its mask of float64's least number and its softmax in float32, which is NaN
# for padding, and the self-check says so.
@pytest.mark.parametrize(
    ("position", "dtype", "paths"),
    [
        ("prepend", torch.float32, 1e-6),
        ("append", torch.float32, 1e-6),
        ("append", torch.bfloat16, 2e-3),
        pytest.param("prepend", torch.bfloat16, 2e-3, marks=pytest.mark.slow),
    ],
)
def test_every_architecture_passes_every_check(
    name: str, position: str, dtype: torch.dtype, paths: float
) -> None:
    backbone = _backbone(tiny_models.build(name).to(dtype), position)
    settle_cache(backbone)
    found = list(findings(backbone))
    assert len(found) == 5
    assert [str(finding) for finding in found if not finding.passed] == []
    assert max(finding.value for finding in found[:3]) < paths < LIMITS[dtype]


@pytest.mark.parametrize("name", tiny_models.SEQ2SEQ)
def test_a_prompt_behind_the_padding_passes_every_check(name: str) -> None:
    backbone = _backbone(tiny_models.build(name), "append_padded")
    found = list(findings(backbone))
    assert [str(finding) for finding in found if not finding.passed] == []
    assert max(finding.value for finding in found[:3]) < 1e-6


def test_free_greedy_text_is_that_of_the_models_own_generate(name: str) -> None:
    """A prompt of word embeddings against `generate` on the words: another path entirely."""
    backbone = _backbone(tiny_models.build(name, seed=1))
    soft, inputs = [10, 20, 30, 40], [[50, 60, 70], [80, 90]]
    ids = torch.tensor(soft)
    prompts = backbone._words(ids).detach()[None]
    batch = backbone.collate([(words, [backbone.end_id]) for words in inputs], [0, 0])
    ours = backbone.generate_ids(prompts, batch, 6)
    for words, output in zip(inputs, ours, strict=True):
        line = torch.tensor([[*soft, *words]])
        given: dict[str, Any] = {}
        skip = line.shape[1]
        if not isinstance(backbone, DecoderOnly):
            prefix: list[int] = backbone._prefix  # type: ignore[attr-defined]
            given, skip = {"decoder_input_ids": torch.tensor([prefix])}, len(prefix)
        model: Any = backbone.model
        with quiet():
            written = model.generate(
                input_ids=line,
                attention_mask=torch.ones_like(line),
                max_new_tokens=6,
                do_sample=False,
                forced_bos_token_id=None,
                **given,
            )
        assert written[0, skip:].tolist() == output


@pytest.mark.parametrize("name", tiny_models.CAUSAL)
def test_cached_inputs_give_the_losses_gradients_and_outputs_of_whole_rows(name: str) -> None:
    cached, plain = (_backbone(tiny_models.build(name), "append") for _ in range(2))
    assert isinstance(cached, DecoderOnly)
    assert isinstance(plain, DecoderOnly)
    settle_cache(cached)
    plain.input_cache = None
    rows = [([30] * 12, [40, 50, 1]), ([60, 70], [80, 1]), ([90] * 5, [35, 45, 55, 1])]
    batch = cached.collate(rows, [0, 1, 0])
    results = []
    for backbone in (cached, plain):
        prompts = _prompts(cached).requires_grad_()
        loss = backbone.run_losses(prompts, batch)
        (slope,) = torch.autograd.grad(loss.sum(), prompts)
        results.append((loss.detach(), slope, backbone.generate_ids(prompts, batch, 8)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-5)
    assert results[0][2] == results[1][2]
    used = cached.input_cache is not None and len(cached.input_cache) > 0
    # ALiBi without positions counts places, and so does a window of 8: neither may cache here.
    assert used == (name not in ("bloom", "mpt", "mistral-window", "gemma2-capped"))


def test_a_window_longer_than_the_rows_may_cache_in_training() -> None:
    backbone = _backbone(tiny_models.build("mistral-window"), "append")
    assert isinstance(backbone, DecoderOnly)
    assert backbone.input_cache is not None
    prompts = _prompts(backbone)
    backbone.row_losses(prompts, backbone.collate([([30, 31], [40, 1])], [0]))
    assert len(backbone.input_cache) == 1
    backbone.generate_ids(prompts, backbone.collate([([32, 33], [40, 1])], [0]), 9)
    assert len(backbone.input_cache) == 1  # how far generation goes is not known beforehand


def test_gradients_can_be_differentiated_again_in_every_architecture(
    name: str, position: str
) -> None:
    backbone = _backbone(tiny_models.build(name), position)
    batch = backbone.collate([([30, 40, 50], [60, 1]), ([70], [80, 90, 1])], [0, 0])
    prompts = _prompts(backbone)[:1]
    one, other = torch.randn(2, *prompts.shape, generator=torch.Generator().manual_seed(3))

    def curvature(direction: torch.Tensor) -> torch.Tensor:
        leaf = prompts.clone().requires_grad_()
        with backbone.second_order():
            loss = backbone.run_losses(leaf, batch).sum()
            (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
            return torch.autograd.grad((first * direction).sum(), leaf)[0]

    # A Hessian is symmetric; a path that the second pass lost would make it lopsided.
    expected = (one * curvature(other)).sum()
    assert abs(float(expected)) > 1e-4
    torch.testing.assert_close((other * curvature(one)).sum(), expected, rtol=1e-3, atol=1e-5)


@pytest.fixture
def shifted() -> Backbone:
    """A GPT-2 that ignores the positions it is told, as the plain forward pass does."""
    backbone = _backbone(tiny_models.build("gpt2"))
    assert isinstance(backbone, DecoderOnly)
    backbone._takes_positions = False
    return backbone


def test_a_model_that_counts_padding_is_refused_with_the_number(shifted: Backbone) -> None:
    with pytest.raises(
        UsageError,
        match=r"tiny \(gpt2\) fails its self-check: the training path equals the generation path: "
        r"0\.\d+ \(must be ≤ 0\.0001\)",
    ) as error:
        require(shifted)
    assert "\n" not in str(error.value)


def test_a_prompt_that_the_model_does_not_hear_is_refused() -> None:
    backbone = _backbone(tiny_models.build("llama-tied"))
    for key, weight in backbone.model.named_parameters():
        if "o_proj" in key:
            weight.zero_()
    *_, dead, moved = findings(backbone)
    assert (dead.passed, dead.value) == (False, 3.0)
    assert (moved.passed, moved.value) == (False, 0.0)
    with pytest.raises(UsageError, match=r"prompt tokens without a gradient"):
        require(backbone)


def test_weights_that_are_not_a_number_are_refused() -> None:
    backbone = _backbone(tiny_models.build("llama-tied"))
    next(backbone.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(UsageError, match=r"reading words equals ours: nan"):
        require(backbone)


def test_a_wrong_scale_of_the_embeddings_is_noticed() -> None:
    backbone = _backbone(tiny_models.build("pegasus"))
    backbone._input_words.embed_scale = 1.0  # type: ignore[attr-defined]
    assert not next(findings(backbone)).passed


def test_a_model_that_keeps_no_keys_and_values_is_refused_in_one_line() -> None:
    config = transformers.MambaConfig(
        vocab_size=260, hidden_size=16, num_hidden_layers=2, state_size=4, eos_token_id=1
    )
    with quiet():
        model = transformers.MambaForCausalLM(config)
    with pytest.raises(UsageError, match=r"tiny \(mamba\) (cannot be called|fails its)") as error:
        require(_backbone(model))
    assert "\n" not in str(error.value)


def test_a_finding_that_is_not_a_number_never_passes() -> None:
    nan = float("nan")
    assert not Finding(name="x", value=nan, limit=1.0).passed
    assert not Finding(name="x", value=nan, limit=1.0, least=True).passed
    assert str(Finding(name="x", value=0.5, limit=1.0)) == "x: 0.5 (must be ≤ 1)"


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tiny_models.save("llama-grouped", tmp_path)
    before = torch.random.get_rng_state()
    backbone = load_backbone(str(path), position="append")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert isinstance(backbone, DecoderOnly)
    assert backbone.input_cache is not None
    assert (len(backbone.input_cache), backbone.input_cache.bytes) == (0, 0)


def test_loading_refuses_what_fails_and_can_be_told_not_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tiny_models.save("llama-grouped", tmp_path))
    monkeypatch.setattr("mpt.backbones.check._padding", lambda _: 0.79)
    with pytest.raises(UsageError, match=r"padded batch: 0\.79 \(must be ≤ 0\.0001\)"):
        load_backbone(path)
    assert load_backbone(path, check=False).d_model == 16


def test_a_checkpoint_without_some_weights_is_refused(tmp_path: Path) -> None:
    path = tiny_models.save("llama-grouped", tmp_path)
    weights = load_file(path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"1 weights are missing in the checkpoint, lm_head"):
        load_backbone(str(path))
