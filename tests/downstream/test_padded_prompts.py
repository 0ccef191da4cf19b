"""The released code's order, [input; padding; prompt]: a row's numbers depend on its batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_backbones import save_toy_gpt2
from toys import toy_task
from transformers.optimization import Adafactor as HuggingFaceAdafactor
from tuning_toys import start_prompt

from mpt.backbones import Backbone, load_backbone
from mpt.config import DownstreamConfig, PromptConfig, TextConfig, UpstreamConfig
from mpt.downstream.data import BatchOrder
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.prompt_tuning import TuningRun, tune
from mpt.errors import UsageError
from mpt.gym.fewshot import Example, FewShotTask
from mpt.upstream.engine import UpstreamRun

CONFIG = DownstreamConfig(
    steps=4, eval_every=4, batch_size=6, loss_parts=2, epoch_order="repeated", max_generated=2
)


def _ragged(name: str) -> FewShotTask:
    """Rows of 1 to 29 letters, so that the two halves of a batch are padded differently."""
    task = toy_task(name, shots=4)
    train = tuple(
        Example(row.input[0] + "ab" * (2 * place), row.outputs)
        for place, row in enumerate(task.train)
    )
    return dataclasses.replace(task, train=train)


@pytest.fixture
def padded(toy_checkpoint: Path) -> Backbone:
    return load_backbone(str(toy_checkpoint), dtype=torch.float64, position="append_padded")


def _loss(backbone: Any, phi: Tensor, name: str, rows: list[Example]) -> Tensor:
    """Hugging Face's loss on rows padded to the longest of them, then the prompt."""
    model, tokenizer = backbone.model, backbone._tokenizer
    sources = [[*tokenizer(f" [{name}] {row.input}")["input_ids"], 1] for row in rows]
    targets = [[*tokenizer(f" {row.outputs[0]}")["input_ids"], 1] for row in rows]
    wide, tall = max(map(len, sources)), max(map(len, targets))
    ids = torch.tensor([s + [0] * (wide - len(s)) for s in sources])
    mask = torch.tensor([[1] * len(s) + [0] * (wide - len(s)) for s in sources])
    labels = torch.tensor([t + [-100] * (tall - len(t)) for t in targets])
    loss: Tensor = model(
        inputs_embeds=torch.cat([model.shared(ids), phi.expand(len(rows), -1, -1)], 1),
        attention_mask=torch.cat([mask, torch.ones(len(rows), len(phi))], 1),
        labels=labels,
        use_cache=False,
    ).loss
    return loss


def _expected(backbone: Backbone, run: TuningRun) -> Tensor:
    """Two devices with every second row each, their gradients averaged, Adafactor: four steps."""
    phi = torch.nn.Parameter(run.prompt.double())
    optimiser = HuggingFaceAdafactor(
        [phi], lr=run.lr, scale_parameter=False, relative_step=False, weight_decay=1e-5
    )
    order, task = BatchOrder(42, 6, repeated=True), run.task
    for step in range(1, 5):
        rows = [task.train[row] for row in order.rows(task, step)]
        optimiser.zero_grad()
        for part in (rows[0::2], rows[1::2]):
            (_loss(backbone, phi, task.name, part) / 2).backward()
        optimiser.step()
    return phi.detach()


def test_packed_runs_equal_the_released_loop_on_two_devices(padded: Backbone) -> None:
    tasks = [_ragged("one"), _ragged("another_name")]
    runs = [TuningRun(task, lr, start_prompt(padded)) for task in tasks for lr in (0.3, 0.1)]
    results = tune(padded, runs, CONFIG, TextConfig(), 42)
    for run, result in zip(runs, results, strict=True):
        expected = _expected(padded, run)
        assert (result.prompt - expected).norm() <= 1e-9 * expected.norm()


def test_the_padding_moves_the_loss(padded: Backbone, toy_checkpoint: Path) -> None:
    right_after = load_backbone(str(toy_checkpoint), dtype=torch.float64, position="append")
    run = TuningRun(_ragged("one"), 0.3, start_prompt(padded))
    both = [tune(b, [run], CONFIG, TextConfig(), 42)[0] for b in (padded, right_after)]
    assert abs(both[0].curve[0][2] / both[1].curve[0][2] - 1) > 1e-4


def test_an_evaluation_pads_a_tasks_rows_in_batches_in_file_order(
    padded: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = (3, 9, 1, 2, 5, 4, 8)
    rows = tuple(Example("q" * n, ("x",)) for n in lengths)
    task = dataclasses.replace(toy_task("toy"), test=rows, metric="Rouge-L")
    seen: dict[int, int] = {}

    def generate(_prompts: Tensor, batch: Any, *_: Any) -> list[list[int]]:
        for length, width in zip(batch.input_mask.sum(1).tolist(), batch.width, strict=True):
            seen[length] = int(width)
        return [[1]] * len(batch)

    monkeypatch.setattr(padded, "generate_ids", generate)
    config = dataclasses.replace(CONFIG, batch_size=3, beams=2, max_test=None)
    evaluator = Evaluator(padded, [toy_task("two"), task], "test", config, TextConfig(), 60)
    evaluator.scores(start_prompt(padded)[None], [1])
    more = len(" [toy] ") + 1  # and the end mark
    by_hand = {3: 9, 9: 9, 1: 9, 2: 5, 5: 5, 4: 5, 8: 8}
    assert seen == {n + more: width + more for n, width in by_hand.items()}


def test_a_model_without_encoder_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'has no encoder, .*; take "append"'):
        load_backbone(str(save_toy_gpt2(tmp_path)), position="append_padded")


def test_reading_row_by_row_is_refused(padded: Backbone) -> None:
    config = UpstreamConfig(method="maml", second_order="exact")
    prompt = PromptConfig(length=3, position="append_padded")
    with pytest.raises(UsageError, match="must be 'unrolled' or 'higher' with position"):
        UpstreamRun(padded, [toy_task()], config, prompt, TextConfig(), 42)
    other = dataclasses.replace(config, method="fomaml")
    UpstreamRun(padded, [toy_task()], other, prompt, TextConfig(), 42).advance(1)
