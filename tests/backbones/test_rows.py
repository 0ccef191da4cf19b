from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch

from mpt.backbones.rows import Row, RowCache, RowTable, cheapest_groups, length_groups

ROWS: list[Row] = [([5, 6, 1], [7, 1]), ([5, 1], [7, 8, 9, 1]), ([4, 4, 4, 4, 1], [1])]


def test_a_batch_is_padded_to_its_own_longest_row() -> None:
    batch = RowTable(ROWS, pad=0).batch([1, 0], [3, 2])
    assert batch.input_ids.tolist() == [[5, 1, 0], [5, 6, 1]]
    assert batch.input_mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.target_ids.tolist() == [[7, 8, 9, 1], [7, 1, 0, 0]]
    assert batch.target_mask.sum(1).tolist() == [4, 2]
    assert batch.run.tolist() == [3, 2]
    assert len(batch) == 2


def test_a_row_may_stand_in_a_batch_many_times() -> None:
    batch = RowTable(ROWS, pad=0).batch([0, 0, 0], [0, 1, 2])
    assert batch.input_ids.tolist() == [[5, 6, 1]] * 3


def test_a_token_that_equals_the_padding_is_still_a_token() -> None:
    batch = RowTable([([0, 1], [0, 1]), ([3, 0, 1], [1])], pad=0).batch([0, 1], [0, 0])
    assert batch.input_mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.target_mask.tolist() == [[True, True], [True, False]]


def test_a_batch_moves_with_all_its_parts() -> None:
    moved = RowTable(ROWS, pad=0).batch([0], [0]).to("meta")
    parts = (moved.input_ids, moved.input_mask, moved.target_ids, moved.target_mask, moved.run)
    assert {part.device for part in parts} == {torch.device("meta")}


@pytest.mark.parametrize("max_tokens", [1, 40, 200, 10_000])
def test_groups_hold_every_row_once_within_the_limit(max_tokens: int) -> None:
    lengths = np.random.default_rng(0).integers(5, 60, size=50).tolist()
    groups = length_groups(lengths, max_tokens)
    assert sorted(row for group in groups for row in group) == list(range(50))
    for group in groups:
        padded = len(group) * max(lengths[row] for row in group)
        assert padded <= max_tokens or len(group) == 1


def test_grouping_by_length_saves_most_of_the_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, size=400).tolist()
    padded = sum(
        len(group) * max(lengths[row] for row in group) for group in length_groups(lengths, 600)
    )
    # Unsorted batches of that size are padded to nearly 60: twice the tokens.
    assert padded < 1.1 * sum(lengths)


def test_no_rows_make_no_groups() -> None:
    assert length_groups([], 100) == []


def _lengths(rows: int, seed: int = 0) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(5, 60, size=rows).tolist(), rng.integers(1, 9, size=rows).tolist()


def _padded(groups: list[list[int]], inputs: list[int], targets: list[int], extra: int) -> int:
    return sum(
        len(group) * (extra + max(inputs[n] for n in group) + max(targets[n] for n in group))
        for group in groups
    )


@pytest.mark.parametrize("max_tokens", [100, 300, 10_000])
@pytest.mark.parametrize("pass_cost", [0, 10, 60])
def test_passes_are_the_cheapest_of_all_cuts_of_the_sorted_rows(
    max_tokens: int, pass_cost: int
) -> None:
    extra = 7
    for seed in range(4):
        inputs, targets = _lengths(9, seed)
        inputs[3], targets[3] = inputs[5], targets[5]  # rows of one length
        order = sorted(range(9), key=lambda n: (-inputs[n], -targets[n]))
        costs = []
        for cuts in itertools.product([False, True], repeat=8):
            edges = [0, *[n + 1 for n, cut in enumerate(cuts) if cut], 9]
            groups = [order[a:b] for a, b in itertools.pairwise(edges)]
            sizes = [(_padded([group], inputs, targets, extra), len(group)) for group in groups]
            if all(size <= max_tokens or rows == 1 for size, rows in sizes):
                costs.append(pass_cost * len(groups) + sum(size for size, _ in sizes))
        groups = cheapest_groups(
            inputs, targets, extra=extra, pass_cost=pass_cost, max_tokens=max_tokens
        )
        cost = pass_cost * len(groups) + _padded(groups, inputs, targets, extra)
        assert cost == min(costs)


@pytest.mark.parametrize("max_tokens", [1, 40, 200, 10_000])
def test_cheapest_passes_hold_every_row_once_within_the_limit(max_tokens: int) -> None:
    inputs, targets = _lengths(50)
    groups = cheapest_groups(inputs, targets, extra=4, pass_cost=30, max_tokens=max_tokens)
    assert sorted(row for group in groups for row in group) == list(range(50))
    for group in groups:
        assert _padded([group], inputs, targets, 4) <= max_tokens or len(group) == 1
    longest = [max(inputs[row] for row in group) for group in groups]
    assert longest == sorted(longest, reverse=True)


def test_the_fixed_cost_weighs_padding_against_passes() -> None:
    inputs, targets = _lengths(50)

    def passes(pass_cost: int) -> list[list[int]]:
        return cheapest_groups(inputs, targets, extra=4, pass_cost=pass_cost, max_tokens=10**6)

    real = sum(inputs) + sum(targets) + 4 * 50
    assert len(passes(10**6)) == 1
    assert _padded(passes(0), inputs, targets, 4) == real  # no padding where a pass is free
    numbers = [len(passes(cost)) for cost in (0, 10, 100, 1000)]
    assert numbers == sorted(numbers, reverse=True)
    assert cheapest_groups([], [], extra=4, pass_cost=1, max_tokens=10) == []


def test_a_known_row_is_not_tokenised_again_and_is_the_callers_own() -> None:
    cache, asked = RowCache(), list[int]()

    def row(source: int) -> Row:
        def tokenise() -> Row:
            asked.append(source)
            return [source, 70_000], [1]

        return cache.row(source, tokenise)

    for _ in range(3):
        found = row(5)
        assert found == ([5, 70_000], [1])
        found[0].append(9)
    assert row(6) == ([6, 70_000], [1])
    assert asked == [5, 6]


def test_a_full_cache_is_emptied_and_goes_on() -> None:
    cache, asked = RowCache(most=5), list[str]()

    def tokens(source: str) -> Row:
        asked.append(source)
        return [1, 2], [3]

    for source in ("a", "a", "b", "b", "a"):  # three tokens each: only one has room
        assert cache.row(source, functools.partial(tokens, source)) == ([1, 2], [3])
    assert asked == ["a", "b", "a"]
