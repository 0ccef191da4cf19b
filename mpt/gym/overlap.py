"""Near-duplicate text between tasks: what "no task is both source and target" does not see.

An input is cut into segments at ``[SEP]``, at ``word:`` and at ``(A)``, so that the templates of
two tasks do not hide the same sentence. A segment of at least 8 words is a near-duplicate of a
task if at least 80 % of its runs of 5 words occur in that task; case and punctuation do not count.
An input is one if any of its segments is; an input without a long segment must occur as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RUN = 5
"""Words in a run."""
LONG = 8
"""Words of a segment from which on its runs are compared."""
SHARE = 0.8
"""Share of a segment's runs that makes it a near-duplicate."""

_CUT = re.compile(r"\[SEP\]|(?<!\S)\w+:(?=\s)|\([A-Z]\)", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_FACTORS = np.array(
    # odd 64-bit constants: a run's hash is Σ factor · word number, modulo 2^64
    [
        0x9E3779B97F4A7C15,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0xD6E8FEB86659FD93,
        0xA0761D6478BD642F,
    ],
    dtype=np.uint64,
)


@dataclass(frozen=True)
class Texts:
    """Inputs of one task."""

    learn: Sequence[str]
    """Of train and dev files: what an upstream run reads."""
    test: Sequence[str]
    """Of the test file."""


@dataclass(frozen=True)
class Matches:
    """Which inputs of one task (learn, then test) are near-duplicates of which tasks."""

    learn: NDArray[np.bool_]
    """[inputs, tasks]: of the task's train and dev inputs."""
    anywhere: NDArray[np.bool_]
    """[inputs, tasks]: of any of the task's inputs."""


@dataclass(frozen=True)
class _Runs:
    """Runs of a list of inputs, in order."""

    hashes: NDArray[np.uint64]
    """[runs]"""
    segment: NDArray[np.int64]
    """[runs]: number of the segment that the run is from."""
    owner: NDArray[np.int64]
    """[segments]: number of the input that the segment is from."""


class Overlap:
    """Near-duplicates among tasks; build once, ask for any pair of task sets."""

    def __init__(self, texts: Mapping[str, Texts]) -> None:
        """Index the inputs of all tasks; numbers of tasks follow the order of `texts`."""
        self.tasks = tuple(texts)
        self._words: dict[str, int] = {}
        self._learn = {name: self._runs(task.learn) for name, task in texts.items()}
        self._test = {name: self._runs(task.test) for name, task in texts.items()}
        columns = [*self._learn.values(), *self._test.values()]
        unique = [np.unique(runs.hashes) for runs in columns]
        hashes = np.concatenate(unique) if unique else np.zeros(0, np.uint64)
        column = np.repeat(np.arange(len(unique)), [len(task_hashes) for task_hashes in unique])
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._column = hashes[order], column[order]

    def matches(self, task: str) -> Matches:
        """Return which inputs of `task` are near-duplicates of which tasks (also of itself)."""
        count = len(self.tasks)
        flags = np.concatenate(
            [self._near_duplicates(self._learn[task]), self._near_duplicates(self._test[task])],
            axis=0,
        )
        return Matches(flags[:, :count], flags[:, :count] | flags[:, count:])

    def _near_duplicates(self, runs: _Runs) -> NDArray[np.bool_]:
        """Return [inputs, 2 · tasks]: near-duplicate in a task's learn part, in its test part."""
        columns = 2 * len(self.tasks)
        segments = len(runs.owner)
        low = np.searchsorted(self._hashes, runs.hashes, side="left")
        high = np.searchsorted(self._hashes, runs.hashes, side="right")
        lengths = high - low
        # every index entry that some run hits: low[i], low[i] + 1, …, high[i] - 1 for each run i
        starts = np.cumsum(lengths) - lengths
        entries = np.arange(lengths.sum()) + np.repeat(low - starts, lengths)
        cells = np.repeat(runs.segment, lengths) * columns + self._column[entries]
        hits = np.bincount(cells, minlength=segments * columns).reshape(segments, columns)
        size = np.bincount(runs.segment, minlength=segments)
        near = hits >= SHARE * size[:, None]
        inputs = int(runs.owner[-1]) + 1 if segments else 0
        flags = np.zeros((inputs, columns), dtype=np.bool_)
        np.logical_or.at(flags, runs.owner, near)
        return flags

    def _runs(self, inputs: Sequence[str]) -> _Runs:
        numbers: list[int] = []  # of the words of all segments, one after the other
        lengths: list[int] = []  # of the segments, in words
        owner: list[int] = []
        for at, text in enumerate(inputs):
            parts = [_WORD.findall(part) for part in _CUT.split(text.lower())]
            long = [part for part in parts if len(part) >= LONG]
            for words in long or [[" ".join(_WORD.findall(text.lower()))]]:
                numbers += [self._words.setdefault(word, len(self._words)) for word in words]
                lengths.append(len(words))
                owner.append(at)
        segment = np.repeat(np.arange(len(lengths)), lengths)
        # a segment of one "word", a whole short input, is its own run
        size = np.minimum(np.array(lengths, dtype=np.int64), RUN)[segment]
        position = np.arange(len(segment)) - np.repeat(
            np.cumsum(lengths) - np.array(lengths, dtype=np.int64), lengths
        )
        inside = position + size <= np.array(lengths, dtype=np.int64)[segment]
        padded = np.concatenate([np.array(numbers, np.uint64) + 1, np.zeros(RUN, np.uint64)])
        hashes = np.zeros(len(segment), np.uint64)
        for offset in range(RUN):
            part = padded[offset : offset + len(segment)] * _FACTORS[offset]
            hashes += np.where(offset < size, part, np.uint64(0))
        return _Runs(hashes[inside], segment[inside], np.array(owner, dtype=np.int64))
