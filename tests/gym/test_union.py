from __future__ import annotations

from collections import Counter

import pytest
from toys import toy_task

from mpt.backbones import Backbone
from mpt.config import TextConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.gym.fewshot import FewShotTask
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
