"""The endless stream of training rows, a function of (seed, step)."""

from __future__ import annotations

from numpy.random import Generator
from transformers import PreTrainedTokenizerFast

from mpt.seeds import numpy_generator
from tools.embedded_models.recipe import Pair, Recipe
from tools.embedded_models.tokenizer import SENTINELS

_BLOCK = 4
"""Batches that are drawn together and sorted by length, so that little is padding."""


def corrupt(ids: list[int], rng: Generator, sentinels: list[int]) -> Pair:
    """Replace 1-3 spans of 1-3 tokens by sentinels (T5's objective).

    Returns:
        (source, target): the text with sentinels, and the sentinels with what they stand for.
    """
    starts = sorted(rng.permutation(max(1, len(ids) - 1))[: int(rng.integers(1, 4))].tolist())
    source: list[int] = []
    target: list[int] = []
    position = 0
    for start, sentinel in zip(starts, sentinels, strict=False):
        if start < position:
            continue
        end = min(len(ids), start + int(rng.integers(1, 4)))
        source += [*ids[position:start], sentinel]
        target += [sentinel, *ids[start:end]]
        position = end
    return source + ids[position:], target


class Stream:
    """Batches of pairs of token ids (source, target) as a function of (seed, step)."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> None:
        self.recipe = recipe
        self.tokenizer = tokenizer
        names = [f"<extra_id_{i}>" for i in range(SENTINELS)]
        self.sentinels = [tokenizer.vocab[name] for name in names if name in tokenizer.vocab]
        self._block: tuple[int, list[list[Pair]]] = (-1, [])

    def batch(self, step: int) -> list[Pair]:
        """Return the rows of a step."""
        block = step // _BLOCK
        if self._block[0] != block:
            self._block = (block, self._draw(block))
        return self._block[1][step % _BLOCK]

    def _draw(self, block: int) -> list[list[Pair]]:
        rng = numpy_generator(self.recipe.seed, "block", block)
        text = self.recipe.text_at(block * _BLOCK)
        size = self.recipe.batch_size
        if block * _BLOCK < self.recipe.recall_steps:
            return [self._recalled(rng, 2 * size, int(rng.integers(2, 7))) for _ in range(_BLOCK)]
        corrupted = round(self.recipe.span_corruption * size * _BLOCK)
        plain = self._ids([text.plain(rng) for _ in range(corrupted)])
        rows = [corrupt(ids, rng, self.sentinels) for ids in plain]
        recalled = round(self.recipe.recall_share * size * _BLOCK)
        rows += [row for _ in range(recalled) for row in self._recalled(rng, 1, 3)]
        pairs = [text.instructed(rng) for _ in range(size * _BLOCK - len(rows))]
        sources, targets = self._ids([p[0] for p in pairs]), self._ids([p[1] for p in pairs])
        rows += list(zip(sources, targets, strict=True))
        rows.sort(key=lambda row: len(row[0]))
        return [rows[i * size : (i + 1) * size] for i in rng.permutation(_BLOCK)]

    def _recalled(self, rng: Generator, rows: int, pairs: int) -> list[Pair]:
        tokens = len(self.tokenizer)
        return [self.recipe.recall(rng, pairs, tokens, self.sentinels) for _ in range(rows)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]
