from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from toys import toy_task

from mpt.backbones import Backbone
from mpt.config import TextConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.gym.fewshot import Example, FewShotTask, with_answers_apart
from mpt.gym.union import Union, UnionStream
from mpt.upstream.losses import UnionRows

CONFIG = UpstreamConfig(method="multitask", batch_size=5)


def test_the_union_holds_every_train_and_dev_row_once(toy_tasks: list[FewShotTask]) -> None:
    union = Union(toy_tasks)
    found = [union.locate(place) for place in range(len(union))]
    expected = [
        (item, split, row)
        for item, task in enumerate(toy_tasks)
        for split in ("train", "dev")
        for row in range(len(getattr(task, split)))
    ]
    assert found == expected


def test_every_epoch_visits_every_row_once_in_an_order_of_its_own(
    toy_tasks: list[FewShotTask],
) -> None:
    stream = UnionStream(toy_tasks, CONFIG, 42)
    rows = len(Union(toy_tasks))
    assert len(stream) == -(-rows // 5) == 13
    epochs = []
    for epoch in range(2):
        batches = [stream.episode(epoch * len(stream) + n).support[0] for n in range(len(stream))]
        assert [len(batch) for batch in batches] == [5] * 12 + [4]
        epochs.append([row for batch in batches for row in batch])
        assert Counter(epochs[-1]) == Counter(range(rows))
    assert epochs[0] != epochs[1]


def test_a_batch_depends_on_root_seed_and_index_only(toy_tasks: list[FewShotTask]) -> None:
    forwards, backwards = (UnionStream(toy_tasks, CONFIG, 42) for _ in range(2))
    first = [forwards.episode(index) for index in range(30)]
    assert first == [backwards.episode(index) for index in reversed(range(30))][::-1]
    other = UnionStream(toy_tasks, CONFIG, 43)
    assert any(other.episode(index).support != first[index].support for index in range(30))


def test_a_row_of_the_union_is_the_row_of_its_task(
    toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    text = TextConfig()
    place = len(toy_tasks[0].train) + len(toy_tasks[0].dev) + len(toy_tasks[1].train) + 2
    (row,) = UnionRows(toy_backbone, toy_tasks, text).rows(0, "train", [place])
    task = toy_tasks[1]
    assert row == toy_backbone.encode_rows(task.name, [task.dev[2]], text)[0]


def test_an_empty_or_doubled_list_of_items_is_refused() -> None:
    with pytest.raises(UsageError, match="0 given"):
        UnionStream([], CONFIG, 42)
    with pytest.raises(UsageError, match="toy with data seed 13 is given twice"):
        UnionStream([toy_task(), toy_task()], CONFIG, 42)


def test_repeated_epochs_have_one_order(toy_tasks: list[FewShotTask]) -> None:
    repeated = UnionStream(toy_tasks, dataclasses.replace(CONFIG, epoch_order="repeated"), 42)
    plain = UnionStream(toy_tasks, CONFIG, 42)
    n = len(plain)
    first = [plain.episode(index).support for index in range(n)]
    for epoch in range(3):
        assert [repeated.episode(epoch * n + place).support for place in range(n)] == first


def test_a_random_answer_is_read_from_the_row_that_was_drawn(
    toy_backbone: Backbone, toy_tasks: list[FewShotTask]
) -> None:
    def more(rows: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(
            dataclasses.replace(row, outputs=(*row.outputs, *("u", "v")[: place % 3]))
            for place, row in enumerate(rows)
        )

    tasks = [
        dataclasses.replace(task, train=more(task.train), dev=more(task.dev)) for task in toy_tasks
    ]
    config = dataclasses.replace(CONFIG, answers="random")
    plain, stream = UnionStream(tasks, CONFIG, 42), UnionStream(tasks, config, 42)
    everything = [
        (task.name, row) for task in tasks for part in (task.train, task.dev) for row in part
    ]
    table = UnionRows(toy_backbone, [with_answers_apart(task) for task in tasks], TextConfig())
    seen: Counter[tuple[int, int]] = Counter()
    for index in range(3 * len(stream)):
        drawn, read = plain.episode(index).support[0], stream.episode(index).support[0]
        for number, (source, target) in zip(drawn, table.rows(0, "train", read), strict=True):
            name, row = everything[number]
            assert toy_backbone.decode(source) == f"[{name}] {row.input}".strip()
            answer = toy_backbone.decode(target)
            assert answer in row.outputs
            seen[len(row.outputs), row.outputs.index(answer)] += 1
    assert set(seen) == {(n, answer) for n in (1, 2, 3) for answer in range(n)}
