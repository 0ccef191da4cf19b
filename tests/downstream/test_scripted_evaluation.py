"""Evaluation against outputs that a script prescribes, so that every odd case really comes up."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from toys import toy_task
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from mpt.backbones import Backbone, Batch
from mpt.backbones.generation import BatchRead, Begun
from mpt.backbones.load import FAMILIES
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.evaluation import Evaluator
from mpt.gym.fewshot import Example, FewShotTask
from mpt.metrics import task_metrics

METRICS = sorted(set(task_metrics.METRICS) - {"Pearson Correlation"})
ANSWERS = ["river", "the river", "River.", "positive", "pos", "x y", "a", "1,000", "é", "not"]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A model that is never asked, with a tokenizer that can spell a text in several ways."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([f" {answer}" for answer in ANSWERS] * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>"
    )
    settings: dict[str, Any] = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1}
    settings |= {"num_heads": 1, "vocab_size": 300, "decoder_start_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        model = T5ForConditionalGeneration(T5Config(**settings))
    return FAMILIES["t5"]("scripted", model, tokenizer, "prepend")


def _spellings(backbone: Backbone, text: str, rng: random.Random) -> list[int]:
    """Return tokens of the text; some pieces are spelt by smaller ones."""
    vocabulary = backbone._tokenizer.get_vocab()
    pieces = backbone._tokenizer.convert_ids_to_tokens(backbone.word_ids(text))
    ids = []
    for piece in pieces:
        cut = rng.randint(0, len(piece))
        parts = [part for part in (piece[:cut], piece[cut:]) if part]
        whole = rng.random() < 0.5 or not all(part in vocabulary for part in parts)
        ids += [vocabulary[part] for part in ([piece] if whole else parts)]
    return ids


def _output(backbone: Backbone, answers: tuple[str, ...], rng: random.Random) -> list[int]:
    """Return a greedy output: a right answer in some writing, a near miss, or babble."""
    text = rng.choice([*answers, rng.choice(ANSWERS)])
    text = rng.choice([text, text.upper(), text.capitalize()])
    text = rng.choice(["", " ", " ", "  ", " the ", " “"]) + text
    text += rng.choice(["", "", "", " ", ".", "s", " river", " the"])
    ids = _spellings(backbone, text, rng)
    return ids * 12 if rng.random() < 0.1 else [*ids, backbone.end_id]


class Script:
    """Stands for the model: it knows each input's greedy output and obeys teacher forcing."""

    def __init__(self, backbone: Backbone, outputs: dict[str, list[int]], rng: random.Random):
        self.backbone, self.outputs, self.rng = backbone, outputs, rng
        self.generated = 0

    def _of(self, batch: Batch, row: int) -> list[int]:
        ids = batch.input_ids[row][batch.input_mask[row]].tolist()
        return self.outputs[self.backbone.decode(ids)]

    def greedy_pass(self, prompts: Tensor, batch: Batch, _: int) -> tuple[Tensor, BatchRead]:
        greedy = torch.zeros_like(batch.target_ids)
        for row, target in enumerate(batch.target_ids.tolist()):
            output = self._of(batch, row)
            for place in range(int(batch.target_mask[row].sum())):
                followed = place < len(output) and output[:place] == target[:place]
                greedy[row, place] = output[place] if followed else self.rng.randrange(2, 258)
        return greedy, ScriptRead([self._of(batch, row) for row in range(len(batch))])

    def continue_ids(self, begun: Sequence[Begun], max_new_tokens: int) -> list[list[int]]:
        self.generated += len(begun)
        outputs = [row.memory.tolist() for row in begun]
        for row, output in zip(begun, outputs, strict=True):
            assert row.written == output[: len(row.written)]
        return [output[:max_new_tokens] for output in outputs]


class ScriptRead(BatchRead):
    """Keeps the whole outputs of its rows."""

    def __init__(self, outputs: list[list[int]]):
        self._outputs = outputs

    def row(self, index: int, written: list[int]) -> Begun:
        return Begun(written, torch.tensor(self._outputs[index]), torch.ones(9, dtype=torch.bool))


@pytest.mark.parametrize("max_generated", [64, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_every_row_scores_as_its_generated_text_would(
    metric: str, max_generated: int, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    rows = 800 if task_metrics.METRICS[metric].exact_match_decides else 100
    examples = [
        Example(f"row {row}", tuple(rng.sample(ANSWERS, rng.randint(1, 2)))) for row in range(rows)
    ]
    outputs = {
        f"[toy] row {row}": _output(backbone, example.outputs, rng)
        for row, example in enumerate(examples)
    }
    script = Script(backbone, outputs, rng)
    monkeypatch.setattr(backbone, "greedy_pass", script.greedy_pass)
    monkeypatch.setattr(backbone, "continue_ids", script.continue_ids)
    # Targets of up to four tokens, so that some are cut short.
    text = TextConfig(max_target=4)
    config = DownstreamConfig(max_generated=max_generated)
    tasks = [_alone(example, row, metric) for row, example in enumerate(examples)]
    evaluator = Evaluator(backbone, tasks, "test", config, text, 500)
    scores = evaluator.scores(torch.zeros(rows, 1, 8), list(range(rows)))
    for row, example in enumerate(examples):
        prediction = backbone.decode(outputs[f"[toy] row {row}"][:max_generated])
        expected = task_metrics.score(metric, [prediction], [example.outputs])
        assert scores[row] == expected, (prediction, example.outputs)
    assert max(scores) > min(scores) or metric == "Matthew Correlation"
    # Some outputs need no generation under any metric: they end at their first difference.
    assert 0 < script.generated < rows


def _alone(example: Example, row: int, metric: str) -> FewShotTask:
    """A task with this one test row, so that each row has a score of its own."""
    task = toy_task("toy", row, metric=metric, shots=1, test=1)
    return dataclasses.replace(task, test=(example,))
