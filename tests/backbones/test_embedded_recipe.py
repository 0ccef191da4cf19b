"""The recipe of the embedded T5: its text, its tokenizer, a run that is cut and resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mpt.backbones.embedded import train
from mpt.backbones.embedded.text import curriculum, instructions
from mpt.backbones.embedded.tokenizer import SPECIALS, train_tokenizer
from mpt.gym.world.skills import SKILLS
from mpt.gym.world.split import in_gym

TINY = train.Recipe(
    vocab_size=400,
    tokenizer_examples=200,
    d_model=16,
    d_kv=8,
    d_ff=16,
    encoder_layers=1,
    decoder_layers=1,
    heads=2,
    recall_steps=2,
    steps=6,
    batch_size=8,
    checkpoint_every=3,
    bf16=False,
)


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
        source, target = train.corrupt(ids, rng, [3, 4, 5])
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
        source, target = train.recall(rng, 3, 400, [3, 4, 5])
        told = dict(zip(source[:6:2], source[1:6:2], strict=True))
        asked = dict(zip(source[7::2], source[6::2], strict=True))
        answers = dict(zip(target[::2], target[1::2], strict=True))
        assert answers == {sentinel: told[key] for sentinel, key in asked.items()}
        assert min(told) >= len(SPECIALS)


def test_a_run_that_was_cut_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train.train(TINY, tmp_path / "whole")
    step = train._step

    def cut(*arguments: object) -> float:
        if arguments[-1] == 4:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "_step", cut)
    with pytest.raises(KeyboardInterrupt):
        train.train(TINY, tmp_path / "cut")
    monkeypatch.setattr(train, "_step", step)
    train.train(TINY, tmp_path / "cut")
    weights = [tmp_path / run / "weights" / "model.safetensors" for run in ("whole", "cut")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    other = train.Recipe(**{**TINY.__dict__, "steps": 3})
    train.train(other, tmp_path)
    with pytest.raises(SystemExit, match="belongs to another recipe"):
        train.train(TINY, tmp_path)


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    recipe = train.Recipe(steps=1000, warmup=100, decay_from=0.6)
    assert recipe.rate(0) == pytest.approx(0.01)
    assert recipe.rate(99) == recipe.rate(599) == 1.0
    assert recipe.rate(800) == pytest.approx(0.5)
    assert 0 < recipe.rate(999) < 0.003


def test_building_the_model_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    train.new_model(TINY)
    assert torch.equal(torch.get_rng_state(), before)
