from __future__ import annotations

import numpy as np
import pytest
import torch

from mpt.backbones.rows import Row, RowTable, length_groups

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
