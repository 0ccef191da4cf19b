from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sides.peft_tuning import PeftTuner
from toy_backbones import FAMILIES
from toys import toy_task
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from mpt.backbones import Backbone, load_backbone
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.data import BatchOrder
from mpt.downstream.prompt_tuning import TuningRun, tune

STEPS, ROOT, TEXT = 6, 42, TextConfig(max_input=24, max_target=4)


# BART's decoder starts from two tokens here and from one in Hugging Face's loss.
# Hugging Face's loss of a causal model computes in float32 even where the model is float64.
# Adafactor divides gradients by their size and so amplifies rounding.
@pytest.mark.parametrize(("family", "tolerance"), [("t5", 1e-9), ("gpt2", 1e-4)])
def test_pefts_loop_ends_where_our_tuning_ends(
    family: str, tolerance: float, tmp_path: Path
) -> None:
    backbone = load_backbone(str(FAMILIES[family](tmp_path)), dtype=torch.float64)
    task = toy_task()
    start = backbone.embeddings()[backbone.frequent_ids(3)].double()
    config = DownstreamConfig(steps=STEPS, eval_every=STEPS, batch_size=3, max_generated=3)
    (ours,) = tune(backbone, [TuningRun(task, 0.3, start)], config, TEXT, ROOT)
    plain, order = PeftTuner(backbone.model, 3, pad=0), BatchOrder(ROOT, 3)
    plain.start(start, 0.3)
    rows = backbone.encode_rows(task.name, task.train, TEXT)
    losses = [
        plain.step([rows[n] for n in order.rows(task, step)]) for step in range(1, STEPS + 1)
    ]
    assert torch.allclose(plain.prompt.detach(), ours.prompt, rtol=0, atol=tolerance)
    assert sum(losses) / STEPS == pytest.approx(ours.curve[0][2], rel=tolerance)
    assert not torch.allclose(plain.prompt.detach(), start, rtol=0, atol=1e-2)


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_pefts_texts_are_those_of_our_generation(family: str, tmp_path: Path) -> None:
    path = FAMILIES[family](tmp_path)
    backbone, task = load_backbone(str(path), dtype=torch.float64), toy_task(test=7)
    prompt = backbone.embeddings()[backbone.frequent_ids(3)].double()
    rows = backbone.encode_rows(task.name, task.test, TEXT)
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    plain = PeftTuner(auto.from_pretrained(path, dtype=torch.float64), 3, pad=0)
    plain.start(prompt, 0.3)
    found = plain.generate([source for source, _ in rows], 3, batch_size=3)
    batch = backbone.collate(rows, [0] * len(rows))
    ours = backbone.generate(prompt[None], batch, 3)
    assert [backbone.decode(ids) for ids in found] == ours
    assert any(ours)


def test_the_start_is_copied_and_weights_stay_as_they_are(toy_backbone64: Backbone) -> None:
    start = toy_backbone64.embeddings()[:2].double()
    before = start.clone()
    rows = toy_backbone64.encode_rows("toy", toy_task().train, TEXT)
    plain = PeftTuner(toy_backbone64.model, 2, pad=0)
    plain.start(start, 0.3)
    plain.step(rows)
    assert torch.equal(start, before)
    assert not torch.equal(plain.prompt, before)
    toy_backbone64.check_frozen()


def test_inputs_padded_on_the_left_are_generated_together(tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(FAMILIES["gpt2"](tmp_path))
    plain = PeftTuner(model, 3, pad=0, left_padded=True)
    plain.start(model.get_input_embeddings().weight[:3].detach(), 0.3)
    given: list[dict[str, list[list[int]]]] = []
    generate = plain.model.generate

    def noted(**inputs: Any) -> Any:
        given.append({name: inputs[name].tolist() for name in ("input_ids", "attention_mask")})
        return generate(**inputs)

    plain.model.generate = noted
    sources = [[5, 6, 7], [8]]
    both = plain.generate(sources, 2, batch_size=8)
    assert given == [
        {"input_ids": [[5, 6, 7], [0, 0, 8]], "attention_mask": [[1, 1, 1], [0, 0, 1]]}
    ]
    assert [len(ids) for ids in both] == [2, 2]
    # without padding an input has the output that it has alone
    assert plain.generate([sources[0]], 2, batch_size=8) == both[:1]
    apart = PeftTuner(model, 3, pad=0)._batches(sources, 8)
    assert apart == [[0], [1]]
