from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from peers_real import flags_of
from sides.peer_search import Scorer
from sides.peer_work import Work, work_of
from sides.real_plan import SIDES, checkpoint_of, plan_of, sides_of
from transformers import AutoTokenizer

from mpt.backbones.load import PACKAGED_WEIGHTS
from mpt.study.study import open_study


def test_a_decoder_only_model_has_all_sides_and_a_t5_those_without_padding() -> None:
    assert sides_of("embedded-gpt2", None) == list(SIDES)
    assert sides_of("embedded-gpt2", ["append"]) == ["append"]
    for name in ("embedded", "t5-large-random"):
        assert sides_of(name, None) == ["peft", "prepend"]
        assert sides_of(name, ["prepend"]) == ["prepend"]


def test_sides_that_a_t5_does_not_have_are_refused() -> None:
    with pytest.raises(
        SystemExit,
        match=r"--sides has peft-padded, append, but t5-base-random is an encoder-decoder, "
        r".*; take peft and prepend",
    ):
        sides_of("t5-base-random", ["peft-padded", "prepend", "append"])


def test_encoder_decoders_whose_runs_would_differ_are_refused() -> None:
    with pytest.raises(
        SystemExit, match=r"--backbone is embedded-bart, but must be a decoder-only model or a T5"
    ):
        sides_of("embedded-bart", None)


def test_a_random_t5_knows_the_answers_of_the_embedded_gym(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_of("t5-tiny-random", tmp_path))
    ids = tokenizer("positive", add_special_tokens=False)["input_ids"]
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == "positive"
    assert checkpoint_of("embedded", tmp_path) == "embedded"


def test_flags_stand_over_the_recipe_of_the_backbone() -> None:
    words = "--backbone embedded --tasks 1 --seeds 2 --dev-rows 3 --test-rows 5 --steps 7"
    plan = plan_of(flags_of([*words.split(), "--dtype", "bfloat16"]), "embedded")
    down = plan.config.downstream
    assert (down.max_dev, down.max_test, down.steps, down.max_generated) == (3, 5, 7, 24)
    assert (plan.config.precision, len(plan.config.data_seeds)) == ("bfloat16", 2)


@pytest.fixture(scope="module")
def work() -> Work:
    words = "--backbone embedded --tasks 1 --quick --dtype bfloat16"
    study = open_study(plan_of(flags_of(words.split()), "embedded"))
    return work_of(study, PACKAGED_WEIGHTS / "t5", (), 48)


def test_a_peers_prompt_stays_float32_in_a_bfloat16_model(work: Work) -> None:
    tuner = Scorer(work)._tuner
    assert tuner.model.dtype == torch.bfloat16
    assert tuner.prompt.dtype == torch.float32


def test_a_peers_model_and_prompt_lie_on_its_device(work: Work) -> None:
    tuner = Scorer(work, device="meta")._tuner
    assert {tuner.model.device.type, tuner.prompt.device.type} == {"meta"}


def test_a_peers_clock_waits_for_the_gpu_at_both_ends_of_a_part(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    with Scorer(work, device="meta")._timed("dev"):
        assert waited == ["meta"]
    assert waited == ["meta", "meta"]


def test_warming_up_changes_neither_runs_nor_seconds(work: Work) -> None:
    few = dataclasses.replace(work, dtype="float32", lrs=work.lrs[:1])
    warm, cold = Scorer(few), Scorer(few)
    warm.warm_up()
    assert not any(warm.seconds.values())
    assert not torch.equal(warm._tuner.prompt.cpu(), few.samples[0].start)  # it took a step
    assert warm.trial(None)["runs"] == cold.trial(None)["runs"]
