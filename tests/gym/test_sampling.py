"""Pools and samples against hand-made cases and against NumPy's global legacy functions."""

# ruff: noqa: NPY002 (the published files come from the global legacy generator)
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mpt.errors import DataError
from mpt.gym.catalogue import ALL_SHOTS
from mpt.gym.crossfit.lines import Line
from mpt.gym.crossfit.sampling import Sample, pools, sample, short_classes, shuffled
from mpt.gym.crossfit.tasks import Splits, TaskRow, load_rows


def lines(**counts: int) -> list[Line]:
    return [(f"{label} {at}", label) for label, count in counts.items() for at in range(count)]


def cls(short: tuple[str, ...] = (), splits: Splits | None = None) -> TaskRow:
    """A task that is sampled per class, whose classes are whatever its lines hold."""
    row = load_rows()["ag_news"]
    return dataclasses.replace(
        row, label=None, output="{x}", short=short, splits=splits or row.splits
    )


def flat() -> TaskRow:
    return load_rows()["xsum"]


def sizes(drawn: Sample, label: str) -> tuple[int, int]:
    return (
        sum(line[1] == label for line in drawn.train),
        sum(line[1] == label for line in drawn.dev),
    )


@pytest.mark.parametrize("seed", [0, 42, 100])
def test_the_order_is_that_of_the_global_seed_and_shuffle(seed: int) -> None:
    pool = lines(a=57)
    expected = list(pool)
    np.random.seed(seed)
    np.random.shuffle(expected)
    assert shuffled(pool, seed) == expected


def test_each_class_gives_its_first_lines_to_train_and_the_next_ones_to_dev() -> None:
    pool = lines(a=40, b=50)
    order = shuffled(pool, 13)
    drawn = sample(cls(), pool, 16, 13)
    first = order[0][1]
    other = "b" if first == "a" else "a"
    by_label = {name: [line for line in order if line[1] == name] for name in "ab"}
    assert drawn.train == by_label[first][:16] + by_label[other][:16]
    assert drawn.dev == by_label[first][16:32] + by_label[other][16:32]


def test_a_task_that_is_not_sampled_per_class_is_one_bucket() -> None:
    pool = lines(a=40, b=50)
    order = shuffled(pool, 21)
    drawn = sample(flat(), pool, 32, 21)
    assert (drawn.train, drawn.dev) == (order[:32], order[32:64])


def test_a_short_class_at_the_published_size_gives_what_it_has_train_first() -> None:
    drawn = sample(cls(), lines(a=20, b=40), 16, 13)
    assert sizes(drawn, "a") == (16, 4)


@pytest.mark.parametrize("shots", [32, 64, 128])
def test_with_more_shots_a_short_class_gives_half_to_each(shots: int) -> None:
    drawn = sample(cls(), lines(a=21, b=300), shots, 13)
    assert sizes(drawn, "a") == (10, 10)
    assert sizes(drawn, "b") == (shots, shots)


def test_all_shots_halve_every_class_and_a_flat_pool() -> None:
    drawn = sample(cls(), lines(a=21, b=300), ALL_SHOTS, 13)
    assert (sizes(drawn, "a"), sizes(drawn, "b")) == ((10, 10), (150, 150))
    drawn = sample(flat(), lines(a=71), ALL_SHOTS, 13)
    assert (len(drawn.train), len(drawn.dev)) == (35, 35)


@pytest.mark.parametrize("shots", [16, 64, ALL_SHOTS])
def test_train_and_dev_share_no_line(shots: int) -> None:
    drawn = sample(cls(), lines(a=50, b=90), shots, 87)
    assert not set(drawn.train) & set(drawn.dev)


def test_a_larger_sample_starts_with_the_smaller_one_of_the_same_seed() -> None:
    pool = lines(a=300)
    small, large = (sample(cls(), pool, shots, 42).train for shots in (16, 64))
    assert large[:16] == small


def test_too_few_rows_of_a_class_are_an_error_at_the_published_size() -> None:
    with pytest.raises(
        DataError, match=r"task ag_news, split train: class 'b' has 31 rows .* need 32"
    ):
        short_classes(cls(), lines(a=40, b=31), 16)
    with pytest.raises(DataError, match=r"task xsum, split train: the split has 63 rows"):
        short_classes(flat(), lines(a=63), 32)


def test_a_class_listed_as_short_and_one_without_rows_are_reported_not_refused() -> None:
    assert short_classes(cls(short=("b",)), lines(a=40, b=31), 16) == {"b": 31}
    row = load_rows()["poem_sentiment"]
    found = short_classes(row, lines(negative=32, positive=32, mixed=32), 16)
    assert found == {"no_impact": 0}


def test_with_more_shots_short_classes_are_reported() -> None:
    assert short_classes(cls(), lines(a=40, b=130), 64) == {"a": 40}


@pytest.mark.parametrize(
    ("splits", "train", "test"),
    [
        (Splits(pool="p", train_until=0.8, test_from=0.8), slice(0, 44), slice(44, 56)),
        (Splits(pool="p", train_until=0.8, test_from=0.99), slice(0, 44), slice(55, 56)),
        (Splits(pool="p", train_rows=(0, 10), test_rows=(10, 13)), slice(0, 10), slice(10, 13)),
    ],
)
def test_one_split_is_shuffled_with_seed_42_and_cut(
    splits: Splits, train: slice, test: slice
) -> None:
    pool = lines(a=56)  # 0.8 · 56 = 44.8, cut off to 44
    order = shuffled(pool, 42)
    found = pools(cls(splits=splits), {"p": pool})
    assert (found.train, found.test) == (order[train], order[test])


def test_two_splits_are_kept_in_order_and_a_share_of_the_test_is_drawn_with_seed_42() -> None:
    train, test = lines(a=30), lines(b=57)
    found = pools(cls(splits=Splits(train="x", test="y")), {"x": train, "y": test})
    assert (found.train, found.test) == (train, test)
    share = Splits(train="x", test="y", keep_test=0.1)
    found = pools(cls(splits=share), {"x": train, "y": test})
    assert (found.train, found.test) == (train, shuffled(test, 42)[:5])


def test_an_empty_test_is_an_error_with_the_sizes() -> None:
    share = Splits(train="x", test="y", keep_test=0.1)
    with pytest.raises(DataError, match=r"task ag_news: the test comes out empty .*x: 30, y: 9"):
        pools(cls(splits=share), {"x": lines(a=30), "y": lines(b=9)})
