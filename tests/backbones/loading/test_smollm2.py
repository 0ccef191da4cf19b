"""The packaged real model; minutes, and only where its two packages are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from real_model import GYM, NEEDS_SMOLLM2
from transformers import AutoModelForCausalLM

from analysis.__main__ import main
from mpt.backbones import Backbone, load_backbone
from mpt.backbones.load import pretrained_source, quiet
from mpt.config import TextConfig
from mpt.prompts import prompt_bytes

_TASK = "tweet_eval-emotion"
ROWS, NEW = 50, 6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), NEEDS_SMOLLM2]


def _texts() -> list[str]:
    """Return rows of a real task where it lies beside the project, else sums in words."""
    files = sorted((GYM / _TASK).glob("*_16_13_test.tsv"))
    if files:
        lines = files[0].read_text(encoding="utf-8").splitlines()
        return [f" [{_TASK}] {line.split(chr(9))[0]}" for line in lines[:ROWS]]
    return [f" [sums] What is {n} and {7 * n % 31} together?" for n in range(ROWS)]


def _own_answer(backbone: Backbone, line: list[int]) -> list[int]:
    model: Any = backbone.model
    ids = torch.tensor([line])
    with quiet():
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
        )
    return [int(token) for token in written[0, len(line) :]]


@pytest.mark.parametrize("position", ["prepend", "append"])
def test_greedy_answers_are_those_of_transformers_own_generate(position: str) -> None:
    backbone = load_backbone("smollm2", position=position)
    soft = backbone.word_ids(" The feeling of this message, in one word, is")
    prompts = backbone.embeddings()[soft][None]
    inputs = [backbone.encode_input(text, TextConfig(max_input=48).max_input) for text in _texts()]
    assert len(inputs) == ROWS
    ours: list[list[int]] = []
    for start in range(0, ROWS, 10):
        part = inputs[start : start + 10]
        batch = backbone.collate([(ids, [backbone.end_id]) for ids in part], [0] * len(part))
        ours += backbone.generate_ids(prompts, batch, NEW)
    for ids, answer in zip(inputs, ours, strict=True):
        line = [*soft, *ids] if position == "prepend" else [*ids, *soft]
        assert answer == _own_answer(backbone, line)
    assert len({tuple(answer) for answer in ours}) > 5  # it does say different things


def test_it_is_one_model_with_a_chat_template_wherever_it_was_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_backbone("smollm2", check=False).digest
    monkeypatch.setenv("MPT_CACHE", str(tmp_path))
    backbone = load_backbone("smollm2", check=False)
    assert backbone.digest == first
    assert sum(weight.numel() for weight in backbone.model.parameters()) == 134_515_008
    line = backbone.encode_chat("hello", 64)
    text: str = backbone._tokenizer.decode(line)
    assert text.endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_gives_an_exported_prompt_the_logits_that_it_has_here(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    backbone = load_backbone("smollm2", check=False)
    generator = torch.Generator().manual_seed(0)
    prompt = backbone.embeddings().std() * torch.randn(8, backbone.d_model, generator=generator)
    file, out = tmp_path / "prompt.safetensors", tmp_path / "adapter"
    file.write_bytes(prompt_bytes(prompt, {}))
    words = ["export", "peft", str(file), "--base-model", "smollm2", "--out", str(out)]
    assert main(words) == 0
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(pretrained_source("smollm2"))
        wrapped = peft.PeftModel.from_pretrained(base, out).eval()
    ids = backbone.encode_input(_texts()[0], 48)
    batch = backbone.collate([(ids, [backbone.end_id])], [0])
    with torch.no_grad():
        ours = backbone.head(backbone.target_states(prompt[None], batch))[0]
        line = torch.tensor([ids])
        theirs = wrapped(input_ids=line, attention_mask=torch.ones_like(line)).logits[0, -1]
        bare = backbone.head(backbone.target_states(0 * prompt[None], batch))[0]
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert (bare - ours).abs().max() > 0.1  # the prompt is heard
