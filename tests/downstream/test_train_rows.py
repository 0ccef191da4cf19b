"""The train rows of a run: their order, their answers, and the weight of each in the loss."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from toys import toy_task
from tuning_toys import start_prompt

from mpt.backbones import Backbone
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.data import TrainRows, token_weights
from mpt.downstream.fine_tuning import fine_tune, no_prompt
from mpt.downstream.prompt_tuning import TuningRun, tune
from mpt.gym.fewshot import Example, FewShotTask

CONFIG = DownstreamConfig(steps=6, eval_every=3, batch_size=3)


def _several() -> FewShotTask:
    """Eight rows, of which every second has three answers."""
    task = toy_task()
    train = tuple(
        Example(row.input, ("a", "bb", "ccc") if place % 2 else ("a",))
        for place, row in enumerate(task.train)
    )
    return dataclasses.replace(task, train=train)


def _rows(backbone: Backbone, tasks: list[FewShotTask], **changes: Any) -> TrainRows:
    config = dataclasses.replace(CONFIG, **changes)
    return TrainRows(backbone, tasks, TextConfig(), 42, config)


def test_repeated_epochs_have_one_order(toy_backbone: Backbone) -> None:
    tasks = [toy_task("one"), toy_task("two", shots=5)]
    plain = _rows(toy_backbone, tasks)
    repeated = _rows(toy_backbone, tasks, epoch_order="repeated")
    for task, steps in enumerate((3, 4)):  # 8 and 10 rows in batches of 3
        first = [plain.batch(task, step) for step in range(1, steps + 1)]
        for epoch in range(3):
            later = [repeated.batch(task, epoch * steps + step) for step in range(1, steps + 1)]
            assert later == first
    assert [plain.batch(0, step) for step in (4, 5, 6)] != [plain.batch(0, n) for n in (1, 2, 3)]


def test_a_random_answer_is_that_of_the_row_and_drawn_anew_at_every_step(
    toy_backbone: Backbone,
) -> None:
    task = _several()
    tasks = [toy_task("before"), task]
    plain, drawn = _rows(toy_backbone, tasks), _rows(toy_backbone, tasks, answers="random")
    seen: Counter[tuple[int, str]] = Counter()
    for step in range(1, 301):
        own = [row - 8 for row in plain.batch(1, step)]  # 8 rows of the other task before
        for row, read in zip(own, drawn.batch(1, step), strict=True):
            answer = toy_backbone.decode(drawn.table.target(read))
            assert answer in task.train[row].outputs
            assert drawn.table.input_lengths[read] == plain.table.input_lengths[row + 8]
            seen[row, answer] += 1
    # 300 steps are 100 epochs: every row is read 100 times, an answer of three 33 ± 5 · 4.7.
    for row, example in enumerate(task.train):
        counts = [seen[row, answer] for answer in example.outputs]
        assert sum(counts) == 100
        assert all(abs(count - 100 / len(counts)) <= 23.5 for count in counts)
    again = _rows(toy_backbone, tasks, answers="random")
    assert again.batch(1, 200) == drawn.batch(1, 200)


@pytest.mark.parametrize("tuned", ["prompt", "weights"])
def test_both_ways_of_tuning_read_the_drawn_answers(tuned: str, toy_backbone: Backbone) -> None:
    """The tokens a run counts are those of the answers that were drawn."""
    task = _several()
    config = dataclasses.replace(CONFIG, answers="random", steps=9, eval_every=9, max_generated=3)
    if tuned == "prompt":
        run = TuningRun(task, 0.3, start_prompt(toy_backbone))
        (result,) = tune(toy_backbone, [run], config, TextConfig(), 42)
    else:
        run = TuningRun(task, 1e-3, no_prompt(toy_backbone))
        (result,) = fine_tune(toy_backbone, [run], config, TextConfig(), 42)
    rows = _rows(toy_backbone, [task], answers="random")
    read = [row for step in range(1, 10) for row in rows.batch(0, step)]
    targets = [len(toy_backbone.decode(rows.table.target(row))) for row in read]
    assert set(targets) == {1, 2, 3}
    sources = sum(len(f" [toy] {row.input}") + 1 for row in task.train)
    # three epochs; the blank before a target and its end mark are tokens too
    assert result.cost["tokens"] == 3 * sources + sum(targets) + 2 * len(targets)


def test_every_rate_reads_the_same_answers(toy_backbone: Backbone) -> None:
    config = dataclasses.replace(CONFIG, answers="random")
    runs = [TuningRun(_several(), lr, start_prompt(toy_backbone)) for lr in (0.3, 0.1)]
    one, other = tune(toy_backbone, runs, config, TextConfig(), 42)
    assert one.cost["tokens"] == other.cost["tokens"]
    assert not torch.equal(one.prompt, other.prompt)


def test_weights_of_a_step_by_hand() -> None:
    # one token mean of 2 + 3 + 5 tokens
    assert token_weights([2, 3, 5], 1) == [0.1, 0.1, 0.1]
    # two means: rows 0 and 2 have 7 tokens, row 1 has 3; each mean counts a half
    assert token_weights([2, 3, 5], 2) == [1 / 14, 1 / 6, 1 / 14]
    # one row cannot be dealt to two devices
    assert token_weights([4], 2) == [0.25]


@pytest.mark.parametrize("tuned", ["prompt", "weights"])
def test_two_parts_average_two_token_means(tuned: str, toy_backbone64: Backbone) -> None:
    """The first loss of a run beside two separate passes of Hugging Face's own model."""
    task = _several()
    config = DownstreamConfig(
        steps=1, eval_every=1, batch_size=8, loss_parts=2, answers="random", max_generated=2
    )
    rows = _rows(toy_backbone64, [task], batch_size=8, answers="random")
    batch = rows.batch(0, 1)
    model: Any = toy_backbone64.model
    prompt = start_prompt(toy_backbone64) if tuned == "prompt" else no_prompt(toy_backbone64)
    means = []
    for part in (batch[0::2], batch[1::2]):
        own = rows.table.batch(part, [0] * len(part))
        words = model.shared(own.input_ids)
        soft = prompt.double().expand(len(part), -1, -1)
        mask = torch.cat([torch.ones(soft.shape[:2]), own.input_mask], 1)
        labels = own.target_ids.masked_fill(~own.target_mask, -100)
        embedded = torch.cat([soft, words], 1)
        means.append(model(inputs_embeds=embedded, attention_mask=mask, labels=labels).loss)
    run = TuningRun(task, 0.3, prompt)
    tuner = tune if tuned == "prompt" else fine_tune
    (result,) = tuner(toy_backbone64, [run], config, TextConfig(), 42)
    expected = float(means[0] + means[1]) / 2
    assert result.curve[0][2] == pytest.approx(expected, rel=1e-9)
    whole = dataclasses.replace(config, loss_parts=1)
    (other,) = tuner(toy_backbone64, [run], whole, TextConfig(), 42)
    assert abs(other.curve[0][2] - expected) > 1e-3 * expected
