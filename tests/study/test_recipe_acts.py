"""From a recipe's row to what the code then does, seen from outside and counted by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import save_toy_t5
from transformers import GenerationConfig

from mpt.backbones import load_backbone
from mpt.gym.fewshot import Example, FewShotTask
from mpt.study.recipes import recipe
from mpt.upstream.engine import UpstreamRun

LONG = 200
"""Letters of the inputs and answers of `wordy`: longer than every limit on targets."""


@pytest.fixture(scope="module")
def wordy() -> FewShotTask:
    """One row a part; a byte-level tokenizer makes a token of every letter."""
    rows = (Example("q" * LONG, ("a" * LONG,)),)
    return FewShotTask("wordy", 1, 13, "EM", rows, rows, rows, "digest of wordy")


@pytest.mark.parametrize(
    ("name", "method", "target"),
    [
        ("paper", "maml", 64),
        ("paper", "multitask", 64),
        ("released", "maml", 64),
        ("released", "fomaml", 64),
        ("released", "reptile", 64),
        ("released", "multitask", 128),
    ],
)
def test_upstream_targets_are_cut_at_the_recipes_length(
    name: str, method: str, target: int, wordy: FewShotTask, toy_checkpoint: Path
) -> None:
    wanted = recipe(name)
    backbone = load_backbone(str(toy_checkpoint), position=wanted.prompt.position)
    config = dataclasses.replace(wanted.upstream[method], items_per_step=1)
    prompt = dataclasses.replace(wanted.prompt, length=2)
    run = UpstreamRun(backbone, [wordy], config, prompt, wanted.upstream_text, 42)
    run.advance(1)
    source = LONG + len(" [wordy] ") + 1  # the text and the end mark
    assert run.cost.tokens == run.cost.examples * (source + target)


def _endless(path: Path) -> Any:
    """A T5 that never writes its end mark."""
    backbone = load_backbone(str(save_toy_t5(path)))
    with torch.no_grad():
        backbone.model.get_parameter("lm_head.weight")[backbone.end_id] = 0.0
    return backbone


@pytest.mark.parametrize(("name", "new"), [("paper", 128), ("released", 127)])
def test_the_released_limit_counts_the_start_token_as_hugging_face_does(
    name: str, new: int, tmp_path: Path
) -> None:
    backbone = _endless(tmp_path)
    prompts = torch.randn(1, 2, backbone.d_model, generator=torch.Generator().manual_seed(0))
    batch = backbone.collate([(backbone.encode_input("pab", 40), [backbone.end_id])], [0])
    (ids,) = backbone.generate_ids(prompts, batch, recipe(name).downstream.max_generated)
    assert len(ids) == new
    how = GenerationConfig(
        max_length=128,
        do_sample=False,
        eos_token_id=backbone.end_id,
        pad_token_id=0,
        decoder_start_token_id=0,
    )
    embedded, mask = backbone._with_prompts(prompts, batch)
    theirs = backbone.model.generate(
        inputs_embeds=embedded, attention_mask=mask, generation_config=how
    )
    assert theirs[0, 1:].tolist() == ids[: theirs.shape[1] - 1]
    assert theirs.shape[1] - 1 == 127
