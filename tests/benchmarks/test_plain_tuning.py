from __future__ import annotations

from pathlib import Path

import pytest
import torch
from plain_tuning import PlainRun, batch_rows, texts
from toy_backbones import FAMILIES
from toys import toy_task

from mpt.backbones import Backbone, load_backbone
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.prompt_tuning import TuningRun, tune

STEPS, ROOT, TEXT = 6, 42, TextConfig(max_input=24, max_target=4)


# BART's decoder starts from two tokens here and from one in Hugging Face's loss.
# Hugging Face's loss of a causal model computes in float32 even where the model is float64.
# Adafactor divides gradients by their size and so amplifies rounding.
@pytest.mark.parametrize(("family", "tolerance"), [("t5", 1e-9), ("gpt2", 1e-4)])
def test_the_plain_loop_ends_where_our_tuning_ends(
    family: str, tolerance: float, tmp_path: Path
) -> None:
    backbone = load_backbone(str(FAMILIES[family](tmp_path)), dtype=torch.float64)
    task = toy_task()
    start = backbone.embeddings()[backbone.frequent_ids(3)].double()
    config = DownstreamConfig(steps=STEPS, eval_every=STEPS, batch_size=3, max_generated=3)
    (ours,) = tune(backbone, [TuningRun(task, 0.3, start)], config, TEXT, ROOT)
    plain = PlainRun(backbone.model, start, 0.3, pad=0)
    rows = backbone.encode_rows(task.name, task.train, TEXT)
    losses = [
        plain.step(batch_rows(rows, 3, step, ROOT, task.name, task.seed))
        for step in range(1, STEPS + 1)
    ]
    assert torch.allclose(plain.prompt.detach(), ours.prompt, rtol=0, atol=tolerance)
    assert sum(losses) / STEPS == pytest.approx(ours.curve[0][2], rel=tolerance)
    assert not torch.allclose(plain.prompt.detach(), start, rtol=0, atol=1e-2)


def test_the_plain_texts_are_those_of_our_generation(toy_backbone64: Backbone) -> None:
    task = toy_task(test=7)
    prompt = toy_backbone64.embeddings()[toy_backbone64.frequent_ids(3)].double()
    rows = toy_backbone64.encode_rows(task.name, task.test, TEXT)
    plain = PlainRun(toy_backbone64.model, prompt, 0.3, pad=0)
    batch = toy_backbone64.collate(rows, [0] * len(rows))
    ours = toy_backbone64.generate(prompt[None], batch, 3)
    assert texts(plain, rows, 3, 3, toy_backbone64.decode) == ours
    assert any(ours)


def test_the_start_is_copied_and_weights_stay_as_they_are(toy_backbone64: Backbone) -> None:
    start = toy_backbone64.embeddings()[:2].double()
    before = start.clone()
    rows = toy_backbone64.encode_rows("toy", toy_task().train, TEXT)
    PlainRun(toy_backbone64.model, start, 0.3, pad=0).step(rows)
    assert torch.equal(start, before)
    toy_backbone64.check_frozen()
