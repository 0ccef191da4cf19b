"""The recipes of the embedded backbones: text, tokenizers, runs that are cut and resumed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mpt.backbones import load_backbone
from mpt.backbones.load import packaged
from mpt.config import TextConfig
from mpt.embedded.world.skills import SKILLS
from mpt.embedded.world.split import in_gym
from mpt.gym.episodes import render
from mpt.gym.fewshot import Example
from tools.embedded_models import train
from tools.embedded_models.bart import BartRecipe
from tools.embedded_models.gpt2 import GPT2Recipe
from tools.embedded_models.recipe import AbsoluteRecipe, Recipe
from tools.embedded_models.stream import corrupt
from tools.embedded_models.t5 import T5Recipe, recall_by_sentinels
from tools.embedded_models.text import curriculum, instructions
from tools.embedded_models.tokenizer import SPECIALS, train_tokenizer

_SIZE: dict[str, Any] = {
    "vocab_size": 400,
    "tokenizer_examples": 200,
    "d_model": 16,
    "d_ff": 16,
    "heads": 2,
    "recall_steps": 2,
    "steps": 6,
    "batch_size": 8,
    "checkpoint_every": 3,
    "bf16": False,
}
_LAYERS: dict[str, Any] = {"encoder_layers": 1, "decoder_layers": 1}
TINY: dict[str, Recipe] = {
    "t5": T5Recipe(**_SIZE, **_LAYERS, d_kv=8),
    "bart": BartRecipe(**(_SIZE | {"heads": 4}), **_LAYERS),
    "gpt2": GPT2Recipe(**_SIZE, layers=2),
}
EACH = pytest.mark.parametrize("family", list(TINY))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    text = curriculum(context=1.0, short=0.5)
    rng = np.random.default_rng(0)
    return train_tokenizer([t for _ in range(500) for t in text.instructed(rng)], 500)


def test_training_text_never_holds_an_input_of_the_gym() -> None:
    text = curriculum(context=1.0, short=0.5)
    rng = np.random.default_rng(0)
    assert not any(in_gym(text.draw(rng)[1]) for _ in range(2000))


def test_every_skill_is_taught() -> None:
    taught = {row.skill or row.name for row in instructions()}
    assert taught == set(SKILLS)


def test_the_early_curriculum_tells_shorter_stories() -> None:
    row = next(row for row in instructions() if row.name == "look_up")
    rng = np.random.default_rng(0)
    short, long = (
        [row.draw(rng, short=flag)[1].count(".") for _ in range(50)] for flag in (True, False)
    )
    assert (set(short), set(long)) == ({2}, {3})


@pytest.mark.parametrize("text", ["Zażółć gęślą jaźń", "日本語 🎉", "a\tb", "İ ß ﬁ", "\x00\x7f"])
def test_any_text_is_encoded_without_unknowns_and_read_back(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert ids[-1] == tokenizer.eos_token_id
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == text.strip()


def test_low_ids_are_the_frequent_pieces(tokenizer: PreTrainedTokenizerFast) -> None:
    text = curriculum(context=1.0, short=0.5)
    rng = np.random.default_rng(0)
    texts = [t for _ in range(500) for t in text.instructed(rng)]
    counts = np.bincount(np.concatenate(tokenizer(texts)["input_ids"]), minlength=len(tokenizer))
    pieces = counts[len(SPECIALS) :]
    assert (np.diff(pieces) <= 0).all()


def test_span_corruption_hides_spans_and_gives_them_back() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        ids = list(range(100, 100 + int(rng.integers(2, 30))))
        source, target = corrupt(ids, rng, [3, 4, 5])
        restored: list[int] = []
        for token in source:
            if token in (3, 4, 5):
                start = target.index(token) + 1
                end = next((i for i in range(start, len(target)) if target[i] < 6), len(target))
                restored += target[start:end]
            else:
                restored.append(token)
        assert restored == ids
        assert len(target) >= 2


def test_recall_asks_for_every_value_by_its_key() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        source, target = recall_by_sentinels(rng, 3, 400, [3, 4, 5])
        told = dict(zip(source[:6:2], source[1:6:2], strict=True))
        asked = dict(zip(source[7::2], source[6::2], strict=True))
        answers = dict(zip(target[::2], target[1::2], strict=True))
        assert answers == {sentinel: told[key] for sentinel, key in asked.items()}
        assert min(told) >= len(SPECIALS)


def test_a_causal_model_recalls_values_behind_their_keys() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        source, target = GPT2Recipe().recall(rng, 3, 400, [])
        pairs = [list(zip(ids[::2], ids[1::2], strict=True)) for ids in (source, target)]
        assert sorted(pairs[0]) == sorted(pairs[1])
        assert len(set(source)) == 6


@EACH
def test_the_tokenizers_share_their_ids(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    text = curriculum(context=1.0, short=0.5)
    rng = np.random.default_rng(0)
    other = train_tokenizer([t for _ in range(500) for t in text.instructed(rng)], 500, family)
    assert other("a bird.", add_special_tokens=False) == tokenizer(
        "a bird.", add_special_tokens=False
    )
    words = other("a bird.", add_special_tokens=False)["input_ids"]
    begin, end = len(SPECIALS) - 1, other.eos_token_id
    marked = {"t5": [*words, end], "bart": [begin, *words, end], "gpt2": words}
    assert other("a bird.")["input_ids"] == marked[family]
    assert len(other) == 500


@EACH
def test_a_run_that_was_cut_ends_with_the_same_weights(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.train(TINY[family], tmp_path / "whole")
    step = train._step

    def cut(*arguments: object) -> float:
        if arguments[-1] == 4:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "_step", cut)
    with pytest.raises(KeyboardInterrupt):
        train.train(TINY[family], tmp_path / "cut")
    monkeypatch.setattr(train, "_step", step)
    train.train(TINY[family], tmp_path / "cut")
    weights = [tmp_path / run / "weights" / "model.safetensors" for run in ("whole", "cut")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@EACH
def test_what_a_run_leaves_is_loaded_as_it_was_trained(family: str, tmp_path: Path) -> None:
    recipe = TINY[family]
    train.train(recipe, tmp_path)
    backbone = load_backbone(str(tmp_path / "weights"))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    for name, weight in backbone.model.state_dict().items():
        assert torch.equal(weight, state[name].to(recipe.saved).float()), name
    rng = np.random.default_rng(0)
    example = Example(*_example(rng))
    rows = backbone.encode_rows("task", [example], TextConfig(max_input=96, max_target=24))
    losses, tokens = backbone.row_losses(
        torch.zeros(1, 0, backbone.d_model), backbone.collate(rows, [0])
    )
    # The recipe and the library read the same row alike, up to the rounding of saved weights.
    model = recipe.new_model().eval()
    model.load_state_dict(backbone.model.state_dict())
    tokenizer = backbone._tokenizer
    source, target = render("task", example)
    source_ids, target_ids = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (source, target)
    )
    if isinstance(recipe, AbsoluteRecipe):
        recipe = dataclasses.replace(recipe, shift=0)
    expected = recipe.loss(model, [(source_ids, target_ids)], tokenizer, 0)
    torch.testing.assert_close(losses.sum() / tokens.sum(), expected, rtol=1e-5, atol=1e-6)


def _example(rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
    source, target = curriculum(context=1.0, short=0.5).instructed(rng)
    return source, (target,)


@pytest.mark.parametrize("family", ["bart", "gpt2"])
def test_rows_are_read_from_shifted_positions(family: str) -> None:
    """A shift is the same as that many positions taken from the front of the table."""
    recipe = TINY[family]
    assert isinstance(recipe, AbsoluteRecipe)
    tokenizer = train_tokenizer(["a bird and a tree"] * 3, 400, family)
    pairs = [([50, 51, 52], [53]), ([60, 61], [62, 63])]
    model = recipe.new_model()
    losses = []
    for shift in (0, 7):
        other = dataclasses.replace(recipe, shift=shift)
        drawn = torch.randint
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randint", lambda high, size, **_: torch.full(size, high - 1))
            losses.append(other.loss(model, pairs, tokenizer, 0))
        assert torch.randint is drawn
    table = (
        model.transformer.wpe if family == "gpt2" else model.model.encoder.embed_positions
    ).weight
    offset = 0 if family == "gpt2" else 2
    with torch.no_grad():
        table[offset : offset + 50] = table[offset + 7 : offset + 57].clone()
    by_hand = dataclasses.replace(recipe, shift=0).loss(model, pairs, tokenizer, 0)
    torch.testing.assert_close(losses[1], by_hand, rtol=1e-5, atol=1e-6)
    assert (losses[0] - losses[1]).abs() > 1e-4


def test_the_shift_of_a_row_is_drawn_by_the_step_alone() -> None:
    recipe = TINY["gpt2"]
    tokenizer = train_tokenizer(["a bird and a tree"] * 3, 400, "gpt2")
    model, pairs = recipe.new_model(), [([50, 51, 52], [53])] * 4
    first, again, later = (recipe.loss(model, pairs, tokenizer, step) for step in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train.train(dataclasses.replace(TINY["t5"], steps=3), tmp_path)
    with pytest.raises(SystemExit, match="belongs to another recipe"):
        train.train(TINY["t5"], tmp_path)


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    recipe = T5Recipe(steps=1000, warmup=100, decay_from=0.6)
    assert recipe.rate(0) == pytest.approx(0.01)
    assert recipe.rate(99) == recipe.rate(599) == 1.0
    assert recipe.rate(800) == pytest.approx(0.5)
    assert 0 < recipe.rate(999) < 0.003


@EACH
def test_building_the_model_leaves_the_global_generator_alone(family: str) -> None:
    before = torch.get_rng_state()
    TINY[family].new_model()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_bart_of_too_few_heads_for_its_start_is_refused() -> None:
    with pytest.raises(ValueError, match="heads is 2, but"):
        BartRecipe(**_SIZE)


@EACH
def test_every_weight_is_trained_by_exactly_one_optimiser(family: str) -> None:
    model = TINY[family].new_model()
    trained = [
        id(weight)
        for stepper in train.optimizers(model, TINY[family])
        for group in stepper.param_groups
        for weight in group["params"]
    ]
    assert sorted(trained) == sorted(id(weight) for weight in model.parameters())


@EACH
def test_the_packaged_weights_are_those_of_the_recipe(family: str) -> None:
    """The manifest says how they came about; the digests say that they are the ones."""
    folder = packaged("embedded" if family == "t5" else f"embedded-{family}")[1]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["recipe"] == dataclasses.asdict(train.RECIPES[family]())
    files = {path.name: path for path in folder.iterdir() if path.name != "manifest.json"}
    assert manifest["sha256"] == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
    }
