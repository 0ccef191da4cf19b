from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from toys import toy_task

from mpt.config import UpstreamConfig
from mpt.errors import UsageError
from mpt.gym.episodes import EpisodeStream, render
from mpt.gym.fewshot import Example, FewShotTask

CONFIG = UpstreamConfig(batch_size=3, inner_steps=2)


def test_an_example_reads_as_the_protocol_says() -> None:
    example = Example("is it good?", ("yes", "true"))
    # recipe row 7; the first output is the one trained on.
    assert render("task-a_b", example) == (" [task-a_b] is it good?", " yes")


def test_an_episode_depends_on_root_seed_and_index_only(toy_tasks: list[FewShotTask]) -> None:
    forwards = EpisodeStream(toy_tasks, CONFIG, 42)
    backwards = EpisodeStream(toy_tasks, CONFIG, 42)
    first = [forwards.episode(index) for index in range(12)]
    second = [backwards.episode(index) for index in reversed(range(12))]
    assert first == second[::-1]


@pytest.mark.parametrize("part", ["item", "support", "query"])
def test_another_root_seed_changes_order_and_batches(
    toy_tasks: list[FewShotTask], part: str
) -> None:
    one, other = EpisodeStream(toy_tasks, CONFIG, 1), EpisodeStream(toy_tasks, CONFIG, 2)
    assert any(
        getattr(one.episode(index), part) != getattr(other.episode(index), part)
        for index in range(12)
    )


def test_every_epoch_visits_every_item_once_in_an_order_of_its_own(
    toy_tasks: list[FewShotTask],
) -> None:
    stream = EpisodeStream(toy_tasks, CONFIG, 42)
    epochs = [
        [stream.episode(len(stream) * epoch + place).item for place in range(len(stream))]
        for epoch in range(6)
    ]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_an_episode_names_its_item(toy_tasks: list[FewShotTask]) -> None:
    episode = EpisodeStream(toy_tasks, CONFIG, 42).episode(7)
    task = toy_tasks[episode.item]
    assert (episode.task, episode.data_seed) == (task.name, task.seed)


def test_batches_hold_no_row_twice_and_stay_inside_their_file() -> None:
    task = dataclasses.replace(toy_task(shots=3), dev=toy_task(shots=2).dev)
    stream = EpisodeStream([task], CONFIG, 42)
    for index in range(50):
        episode = stream.episode(index)
        assert len(episode.support) == CONFIG.inner_steps
        for rows, known in [*((s, 6) for s in episode.support), (episode.query, 4)]:
            assert len(set(rows)) == len(rows) == 3
            assert set(rows) <= set(range(known))


def test_rows_are_drawn_uniformly() -> None:
    stream = EpisodeStream([toy_task(shots=3)], UpstreamConfig(batch_size=2), 42)
    counts = Counter(row for index in range(600) for row in stream.episode(index).query)
    # 1200 draws over 6 rows: 200 each with a standard deviation of 11.5; five of them are 58.
    assert all(abs(counts[row] - 200) < 58 for row in range(6))


def test_a_batch_of_a_small_file_is_the_whole_file() -> None:
    stream = EpisodeStream([toy_task(shots=1)], UpstreamConfig(batch_size=8), 42)
    assert sorted(stream.episode(0).query) == [0, 1]


def test_more_inner_steps_leave_the_first_batches_as_they_are(
    toy_tasks: list[FewShotTask],
) -> None:
    few = EpisodeStream(toy_tasks, CONFIG, 42).episode(5)
    many = EpisodeStream(toy_tasks, dataclasses.replace(CONFIG, inner_steps=4), 42).episode(5)
    assert many.support[:2] == few.support
    assert len(set(many.support)) > 1
    assert many.query == few.query


def test_an_empty_or_doubled_list_of_items_is_refused() -> None:
    with pytest.raises(UsageError, match="0 given"):
        EpisodeStream([], CONFIG, 42)
    with pytest.raises(UsageError, match="toy with data seed 13 is given twice"):
        EpisodeStream([toy_task(), toy_task()], CONFIG, 42)


JOINTLY = dataclasses.replace(CONFIG, support_draw="jointly")


def test_support_rows_drawn_jointly_are_one_draw_without_replacement() -> None:
    stream = EpisodeStream([toy_task(shots=3)], JOINTLY, 42)
    apart = EpisodeStream([toy_task(shots=3)], CONFIG, 42)
    for index in range(20):
        # 6 rows, two batches of 3: every row once
        support = stream.episode(index).support
        assert sorted(row for batch in support for row in batch) == [0, 1, 2, 3, 4, 5]
        assert [len(batch) for batch in support] == [3, 3]
    assert any(set(s[0]) & set(s[1]) for s in (apart.episode(n).support for n in range(20)))


def test_support_rows_drawn_jointly_repeat_where_the_file_is_too_small() -> None:
    """Ten batches of 4 from 16 rows, as released Reptile has them: 40 draws with replacement."""
    config = dataclasses.replace(JOINTLY, batch_size=4, inner_steps=10)
    stream = EpisodeStream([toy_task(shots=8)], config, 42)
    counts: Counter[int] = Counter()
    twice = 0
    for index in range(100):
        support = stream.episode(index).support
        assert [len(batch) for batch in support] == [4] * 10
        twice += sum(len(set(batch)) < 4 for batch in support)
        counts.update(row for batch in support for row in batch)
    # 4000 draws over 16 rows: 250 each with a standard deviation of 15.3; five of them are 77.
    assert set(counts) == set(range(16))
    assert all(abs(count - 250) < 77 for count in counts.values())
    # A batch holds a row twice with probability 1 - 15·14·13/16³ = 0.333: 333 of 1000, ± 5 · 15.
    assert abs(twice - 333) < 75


def test_repeated_epochs_have_one_order_of_items_and_draw_their_rows_anew(
    toy_tasks: list[FewShotTask],
) -> None:
    stream = EpisodeStream(toy_tasks, dataclasses.replace(CONFIG, epoch_order="repeated"), 42)
    first = [stream.episode(index) for index in range(4)]
    fresh = EpisodeStream(toy_tasks, CONFIG, 42)
    assert first == [fresh.episode(index) for index in range(4)]
    for epoch in range(1, 4):
        later = [stream.episode(4 * epoch + place) for place in range(4)]
        assert [episode.item for episode in later] == [episode.item for episode in first]
        assert [episode.support for episode in later] != [episode.support for episode in first]


def test_random_answers_leave_the_rows_as_they_are() -> None:
    task = toy_task(shots=3)
    two = tuple(dataclasses.replace(row, outputs=(*row.outputs, "z")) for row in task.train)
    three = tuple(dataclasses.replace(row, outputs=("u", "v", "w")) for row in task.dev)
    task = dataclasses.replace(task, train=two, dev=three)
    plain = EpisodeStream([task], CONFIG, 42)
    stream = EpisodeStream([task], dataclasses.replace(CONFIG, answers="random"), 42)
    chosen: Counter[tuple[str, int]] = Counter()
    for index in range(100):
        first, episode = plain.episode(index), stream.episode(index)
        for expected, rows in zip(first.support, episode.support, strict=True):
            assert tuple(row // 2 for row in rows) == expected
            chosen.update(("support", row % 2) for row in rows)
        assert tuple(row // 3 for row in episode.query) == first.query
        chosen.update(("query", row % 3) for row in episode.query)
    # 600 draws of two and 300 of three, within five standard deviations
    assert all(abs(chosen["support", answer] - 300) < 62 for answer in range(2))
    assert all(abs(chosen["query", answer] - 100) < 41 for answer in range(3))
    again = EpisodeStream([task], dataclasses.replace(CONFIG, answers="random"), 42)
    assert again.episode(50) == stream.episode(50)
