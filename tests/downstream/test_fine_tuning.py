from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_backbones import FAMILIES
from toys import toy_task
from transformers.optimization import Adafactor as HuggingFaceAdafactor

from mpt.backbones import Backbone, load_backbone
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream import fine_tuning
from mpt.downstream.data import BatchOrder
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.fine_tuning import fine_tune, no_prompt
from mpt.downstream.record import TuningResult, TuningRun
from mpt.errors import UsageError

TASK = toy_task(shots=4, test=8)


def _tuned(backbone: Backbone, lr: float = 3e-3, **changes: Any) -> TuningResult:
    settings: dict[str, Any] = {"steps": 6, "eval_every": 2, "max_generated": 4} | changes
    run = TuningRun(TASK, lr, no_prompt(backbone))
    return fine_tune(backbone, [run], DownstreamConfig(**settings), TextConfig(), 7)[0]


def test_training_all_weights_learns_a_toy_task(toy_backbone: Backbone) -> None:
    result = _tuned(toy_backbone, steps=30, eval_every=10)
    losses = [loss for _, _, loss in result.curve]
    assert result.status == "ok"
    assert losses[-1] < 0.5 * losses[0], losses
    assert result.dev == result.test == 1.0
    assert result.prompt.shape == (0, toy_backbone.d_model)


def test_the_shared_backbone_is_untouched(toy_backbone: Backbone) -> None:
    before = {name: weight.clone() for name, weight in toy_backbone.model.state_dict().items()}
    digest = toy_backbone.digest
    _tuned(toy_backbone)
    toy_backbone.check_frozen()
    for name, weight in toy_backbone.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert toy_backbone.digest == digest


def test_the_same_run_gives_the_same_bits_whatever_runs_beside_it(toy_backbone: Backbone) -> None:
    config = DownstreamConfig(steps=4, eval_every=2, max_generated=4, dropout=0.1)
    runs = [TuningRun(TASK, lr, no_prompt(toy_backbone)) for lr in (1e-3, 3e-3)]
    together = fine_tune(toy_backbone, runs, config, TextConfig(), 7)
    alone = fine_tune(toy_backbone, runs[1:], config, TextConfig(), 7)[0]
    assert together[1].curve == alone.curve
    assert together[1].test == alone.test
    assert together[0].curve != alone.curve
    other = fine_tune(toy_backbone, runs[1:], config, TextConfig(), 8)[0]
    assert other.curve != alone.curve


def test_the_best_weights_on_dev_are_tested_not_the_last(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is tested is a copy of the weights as they were at the best step."""
    dev_scores = iter([0.25, 0.75, 0.75, 0.5])
    at: dict[str, list[torch.Tensor]] = {"dev": [], "test": []}

    def scores(self: Evaluator, *_: object) -> list[float]:
        weight = next(iter(self._backbone.model.parameters()))
        at[self.split].append(weight.detach().clone())
        return [next(dev_scores)] if self.split == "dev" else [0.6]

    monkeypatch.setattr(Evaluator, "scores", scores)
    result = _tuned(toy_backbone, steps=8)
    assert (result.dev, result.best_step, result.test) == (0.75, 4, 0.6)
    assert torch.equal(at["test"][0], at["dev"][1])
    assert not torch.equal(at["dev"][1], at["dev"][2])
    dev_scores = iter([0.25, 0.75, 0.75, 0.5])
    result = _tuned(toy_backbone, steps=8, select="last")
    assert (result.dev, result.best_step) == (0.75, 8)
    assert torch.equal(at["test"][1], at["dev"][-1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bias_decay", [True, False])
def test_the_weights_are_those_of_hugging_face_with_its_adafactor(
    family: str, bias_decay: bool, tmp_path: Path
) -> None:
    """An independent loop: Hugging Face's model, loss and optimiser in float64.

    Five steps of 1e-2 · 1e-5 decay a weight by 5e-7 of itself, which the tolerance sees.
    """
    backbone = load_backbone(str(FAMILIES[family](tmp_path)), dtype=torch.float64)
    config = DownstreamConfig(steps=5, batch_size=4, bias_decay=bias_decay)
    run = TuningRun(TASK, 1e-2, no_prompt(backbone))
    ours = fine_tuning._FineTuning(
        _without_key_biases(backbone.trainable_copy()), run, config, TextConfig(), 7
    )
    for step in range(1, 6):
        ours.step(step)
    reference = _without_key_biases(backbone.trainable_copy())
    biases = [w for name, w in reference.model.named_parameters() if "bias" in name]
    others = [w for name, w in reference.model.named_parameters() if "bias" not in name]
    assert biases
    groups = [{"params": others}, {"params": biases, "weight_decay": 1e-5 if bias_decay else 0.0}]
    optimiser = HuggingFaceAdafactor(
        groups,
        lr=1e-2,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
        clip_threshold=1.0,
        decay_rate=-0.8,
        weight_decay=1e-5,
    )
    rows = reference.encode_rows(TASK.name, TASK.train, TextConfig())
    for step in range(1, 6):
        optimiser.zero_grad()
        own = [rows[row] for row in BatchOrder(7, 4).rows(TASK, step)]
        losses = [_reference_loss(reference, *row) for row in own]
        tokens = sum(len(target) for _, target in own)
        (torch.stack(losses).sum() / tokens).backward()
        optimiser.step()
    for (name, weight), expected in zip(
        ours._backbone.model.named_parameters(), reference.model.parameters(), strict=True
    ):
        torch.testing.assert_close(weight, expected, rtol=1e-9, atol=1e-10, msg=name)


def _without_key_biases(backbone: Backbone) -> Backbone:
    """Freeze the biases of attention keys: no output depends on them.

    Their gradients are pure rounding, which Adafactor makes as large as any other.
    """
    for name, weight in backbone.model.named_parameters():
        if name.endswith(("k_proj.bias", "c_attn.bias")):
            weight.requires_grad_(False)
    return backbone


def _reference_loss(backbone: Any, words: list[int], target: list[int]) -> torch.Tensor:
    model = backbone.model
    if model.config.is_encoder_decoder:
        given = torch.tensor([[*backbone._prefix, *target[:-1]]])
        logits = model(input_ids=torch.tensor([words]), decoder_input_ids=given).logits
    else:
        logits = model(input_ids=torch.tensor([[*words, *target[:-1]]])).logits
    logits = logits[0, -len(target) :]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum")


def test_a_run_that_diverges_says_so(toy_backbone: Backbone) -> None:
    progress: list[tuple[int, int]] = []
    config = DownstreamConfig(steps=4, eval_every=2, max_generated=4)
    runs = [TuningRun(TASK, lr, no_prompt(toy_backbone)) for lr in (1e30, 1e-3)]

    def add(done: int, total: int) -> None:
        progress.append((done, total))

    bad, good = fine_tune(toy_backbone, runs, config, TextConfig(), 7, add)
    assert bad.status == "diverged"
    assert math.isnan(bad.dev)
    assert math.isnan(bad.test)
    assert bad.best_step == 0
    assert good.status == "ok"
    assert progress == [(step, 8) for step in range(1, 9)]


def test_patience_and_the_cap_on_epochs_end_a_run(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    # 8 rows in batches of 8: an epoch is a step.
    config = DownstreamConfig(steps=20, max_epochs=12, eval_every=2, patience=2, max_generated=4)
    dev_scores = iter([0.25, 0.5, 0.5, 0.25])

    def scores(self: Evaluator, *_: object) -> list[float]:
        return [next(dev_scores)] if self.split == "dev" else [0.6]

    monkeypatch.setattr(Evaluator, "scores", scores)
    run = TuningRun(TASK, 1e-3, no_prompt(toy_backbone))

    def add(done: int, total: int) -> None:
        told.append((done, total))

    (result,) = fine_tune(toy_backbone, [run], config, TextConfig(), 7, add)
    assert result.stopped == "patience at step 8"
    assert (result.status, result.dev, result.best_step, result.test) == ("ok", 0.5, 4, 0.6)
    assert result.cost["steps"] == 8
    assert told == [(step, 12) for step in range(1, 13)]
    # Without patience left at its last step, a run has not been stopped.
    dev_scores = iter([0.25, 0.5, 0.5, 0.25])
    whole = dataclasses.replace(config, steps=8)
    (result,) = fine_tune(toy_backbone, [run], whole, TextConfig(), 7)
    assert (result.stopped, result.cost["steps"]) == (None, 8)


def test_catching_up_is_refused(toy_backbone: Backbone) -> None:
    run = TuningRun(TASK, 1e-3, no_prompt(toy_backbone))
    with pytest.raises(UsageError, match=r"catch_up is 0\.1, but must be None in fine-tuning"):
        fine_tune(toy_backbone, [run], DownstreamConfig(catch_up=0.1), TextConfig(), 7)


def test_a_prompt_is_refused(toy_backbone: Backbone) -> None:
    run = TuningRun(TASK, 1e-3, torch.zeros(3, toy_backbone.d_model))
    with pytest.raises(UsageError, match="has 3 tokens, but fine-tuning has none"):
        fine_tune(toy_backbone, [run], DownstreamConfig(), TextConfig(), 7)


def test_a_bfloat16_backbone_is_trained_in_float32(toy_checkpoint: Path) -> None:
    backbone = load_backbone(str(toy_checkpoint), dtype=torch.bfloat16)
    copied = backbone.trainable_copy()
    assert copied.dtype == torch.float32
    assert backbone.dtype == torch.bfloat16
    assert copied.trainable
    assert not backbone.trainable
    assert _tuned(backbone).status == "ok"
