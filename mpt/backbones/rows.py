"""Tokenised rows and the padded batches made from them.

Shapes: B rows, L input tokens, T target tokens (both padded on the right), N rows in a table.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Row = tuple[list[int], list[int]]
"""Token ids of (input, target), end marks included."""


class RowCache:
    """Rows that were tokenised before, by what they were made from.

    Every point of a search reads the same files: its worker tokenises them once.

    Args:
        most: tokens that are kept, 4 bytes each; the cache is emptied when it is full.
    """

    def __init__(self, most: int = 2**23):
        self._most, self._tokens = most, 0
        self._rows: dict[Hashable, tuple[array[int], array[int]]] = {}

    def row(self, source: Hashable, tokenise: Callable[[], Row]) -> Row:
        """Return the row of a source, in lists of its own; `tokenise` makes it where it is new."""
        known = self._rows.get(source)
        if known is not None:
            return known[0].tolist(), known[1].tolist()
        row = tokenise()
        count = len(row[0]) + len(row[1])
        if self._tokens + count > self._most:
            self._rows.clear()
            self._tokens = 0
        self._rows[source] = (array("i", row[0]), array("i", row[1]))
        self._tokens += count
        return row


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass; every row belongs to a run, whose prompt it is read with."""

    input_ids: Tensor
    """[B, L] long, padded on the right."""
    input_mask: Tensor
    """[B, L] bool, true where `input_ids` is a token."""
    target_ids: Tensor
    """[B, T] long, padded on the right."""
    target_mask: Tensor
    """[B, T] bool, true where `target_ids` is a token (the end mark is one)."""
    run: Tensor
    """[B] long, index of each row's run in the stack of prompts."""
    width: Tensor | None = None
    """[B] long, tokens ≤ L to which each row's input is padded where its prompt stands after the
    padding ("append_padded"); None: L."""

    def __len__(self) -> int:
        return self.run.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`."""
        return Batch(
            self.input_ids.to(device),
            self.input_mask.to(device),
            self.target_ids.to(device),
            self.target_mask.to(device),
            self.run.to(device),
            None if self.width is None else self.width.to(device),
        )


class RowTable:
    """Rows padded once; a batch is two gathers, cut to the longest of its own rows.

    Args:
        rows: tokenised rows; each has at least one input and one target token.
        pad: id that fills the padding (its value never matters: it is masked).
        device: where the table and its batches lie.
    """

    def __init__(self, rows: Sequence[Row], pad: int, device: torch.device | str = "cpu"):
        self.input_lengths = [len(input_ids) for input_ids, _ in rows]
        self.target_lengths = [len(target_ids) for _, target_ids in rows]
        self._inputs = _padded([row[0] for row in rows], pad).to(device)
        self._targets = _padded([row[1] for row in rows], pad).to(device)
        self._n_inputs = torch.tensor(self.input_lengths, device=device)
        self._n_targets = torch.tensor(self.target_lengths, device=device)
        self._positions = torch.arange(
            max(self._inputs.shape[1], self._targets.shape[1]), device=device
        )

    def __len__(self) -> int:
        return len(self.input_lengths)

    def target(self, row: int) -> list[int]:
        """Return the target tokens of a row."""
        return self._targets[row, : self.target_lengths[row]].tolist()

    def batch(
        self, rows: Sequence[int], runs: Sequence[int], widths: Sequence[int] | None = None
    ) -> Batch:
        """Return the batch of these rows, the i-th one belonging to run ``runs[i]``.

        Args:
            rows: positions in the table.
            runs: the run of each.
            widths: `Batch.width` of each, at least its input's length; None: the longest input's.
        """
        longest_input = max([*(self.input_lengths[row] for row in rows), *(widths or ())])
        longest_target = max(self.target_lengths[row] for row in rows)
        device = self._inputs.device
        index = torch.tensor(rows, device=device)
        inputs, positions = self._inputs[:, :longest_input][index], self._positions
        if longest_input > inputs.shape[1]:  # wider than any row of the table
            inputs = functional.pad(inputs, (0, longest_input - inputs.shape[1]))
            positions = torch.arange(longest_input, device=device)
        return Batch(
            input_ids=inputs,
            input_mask=positions[:longest_input] < self._n_inputs[index, None],
            target_ids=self._targets[:, :longest_target][index],
            target_mask=self._positions[:longest_target] < self._n_targets[index, None],
            run=torch.tensor(runs, device=device),
            width=None if widths is None else torch.tensor(widths, device=device),
        )


def _padded(sequences: Sequence[list[int]], pad: int) -> Tensor:
    """Return the sequences as one [N, longest] tensor, filled up with `pad` on the right."""
    longest = max(map(len, sequences), default=0)
    return torch.tensor(
        [ids + [pad] * (longest - len(ids)) for ids in sequences], dtype=torch.long
    ).reshape(len(sequences), longest)


def length_groups(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split rows into groups of similar length that each fill at most `max_tokens` when padded.

    Args:
        lengths: tokens of every row (prompt included where it counts).
        max_tokens: most padded tokens of a group; a longer single row is a group of its own.

    Returns:
        Groups of row positions; the longest rows come first, so that a memory limit shows at
        once. Sorting is stable: the grouping is a pure function of the lengths.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    groups: list[list[int]] = []
    for row in order:
        # Rows come longest first, so the first row of a group sets its padded length.
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def cheapest_groups(
    inputs: Sequence[int],
    targets: Sequence[int],
    *,
    extra: int,
    pass_cost: int,
    max_tokens: int,
) -> list[list[int]]:
    """Split rows into the passes of least cost: Σ (pass_cost + padded tokens) over the passes.

    A pass of n rows has n · (extra + longest input + longest target) padded tokens. Among all ways
    to cut the rows, sorted by input and then by target length, the best is found exactly:
    best(i) = min_j best(j) + cost of a pass of the rows j … i − 1.

    Args:
        inputs: input tokens of every row [N].
        targets: target tokens of every row [N].
        extra: tokens that every row has besides (the prompt).
        pass_cost: fixed cost of a pass, in tokens.
        max_tokens: most padded tokens of a pass; a longer single row is a pass of its own.

    Returns:
        Groups of row positions, the longest inputs first, so that a memory limit shows at once.
        A pure function of the arguments.
    """
    order = np.lexsort((-np.asarray(targets, int), -np.asarray(inputs, int)))
    own = (np.asarray(lengths)[order] for lengths in (inputs, targets))
    cost = _pass_costs(*own, prompt=extra, max_tokens=max_tokens)
    return _cut(order, cost, pass_cost)


def groups_of_runs(
    inputs: Sequence[int],
    targets: Sequence[int],
    runs: Sequence[int],
    *,
    prompt: int,
    pass_cost: int,
    max_tokens: int,
) -> list[list[int]]:
    """Split rows into passes that read the prompt of each of their runs once.

    A pass of n rows of r runs costs n · (longest input + longest target) + r · prompt tokens. Rows
    of similar length side by side save padding, rows of one run prompts: of the best split of rows
    by length (as if no prompt were shared) and the best one of rows by run the cheaper is taken.

    Memory is bounded as without sharing, since every row keeps keys and values of its prompt: a
    pass has at most `max_tokens` of n · (prompt + longest input + longest target).

    Args:
        inputs: input tokens of every row [N].
        targets: target tokens of every row [N].
        runs: the run of every row [N].
        prompt: prompt tokens P.
        pass_cost: see `cheapest_groups`.
        max_tokens: bound of a pass; a longer single row is a pass of its own.

    Returns:
        Groups of row positions; a pure function of the arguments.
    """
    of_length = cheapest_groups(
        inputs, targets, extra=prompt, pass_cost=pass_cost, max_tokens=max_tokens
    )
    longest = dict.fromkeys(runs, 0)
    for run, n in zip(runs, inputs, strict=True):
        longest[run] = max(longest[run], n)
    order = np.array(
        sorted(range(len(runs)), key=lambda n: (-longest[runs[n]], runs[n], -inputs[n]))
    )
    own = (np.asarray(values)[order] for values in (inputs, targets, runs))
    cost = _pass_costs(*own, prompt=prompt, max_tokens=max_tokens)
    of_run = _cut(order, cost, pass_cost)

    def total(groups: list[list[int]]) -> int:
        return sum(pass_cost + pass_tokens(inputs, targets, runs, g, prompt) for g in groups)

    return min(of_length, of_run, key=total)


def pass_tokens(
    inputs: Sequence[int],
    targets: Sequence[int],
    runs: Sequence[int],
    group: Sequence[int],
    prompt: int,
) -> int:
    """Return the padded tokens of a pass that reads the prompt of each of its runs once."""
    longest = max(inputs[row] for row in group) + max(targets[row] for row in group)
    return len(group) * longest + prompt * len({runs[row] for row in group})


def _cut(order: np.ndarray, cost: np.ndarray, pass_cost: int) -> list[list[int]]:
    """Return the cheapest way to cut rows, in this order, into passes.

    Args:
        order: row positions [N].
        cost: of a pass of the rows j … i of the order [i, j].
        pass_cost: fixed cost of a pass.
    """
    best = np.zeros(len(order) + 1)
    first = np.zeros(len(order), int)
    for last in range(len(order)):
        total = best[: last + 1] + cost[last, : last + 1]
        first[last] = total.argmin()
        best[last + 1] = total[first[last]] + pass_cost
    groups: list[list[int]] = []
    end = len(order)
    while end > 0:
        groups.append(order[first[end - 1] : end].tolist())
        end = int(first[end - 1])
    return groups[::-1]


def _pass_costs(
    inputs: np.ndarray,
    targets: np.ndarray,
    runs: np.ndarray | None = None,
    *,
    prompt: int,
    max_tokens: int,
) -> np.ndarray:
    """Return the padded tokens of a pass of the rows j … i [i, j]; infinite where not allowed.

    With `runs` (in which the rows of each stand together) a pass reads the prompt of each once.
    """
    n = len(inputs)
    index = np.arange(n)
    upper = index[:, None] <= index  # [j, i]
    longest = np.zeros((n, n))
    for lengths in (inputs, targets):
        longest += np.maximum.accumulate(np.where(upper, lengths, 0), axis=1)
    rows = index - index[:, None] + 1
    whole = rows * (prompt + longest)
    allowed = upper & ((whole <= max_tokens) | (rows == 1))
    cost = whole
    if runs is not None:
        number = np.concatenate([[0], np.cumsum(runs[1:] != runs[:-1])])
        cost = rows * longest + prompt * (number - number[:, None] + 1)
    return np.ascontiguousarray(np.where(allowed, cost, np.inf).T)
