"""A head start for models with learned absolute positions: heads that look at a place, or match.

Widths: d of the model, w of a head. The last w of the d numbers of an embedding are kept for
positions: there a word's embedding starts near 0 and a position's is a row of `sinusoids`; in the
other d - w it is the other way round. So a head can start by reading one part only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_SMALL = 0.02
"""Standard deviation of what starts near 0."""


def _angles(width: int) -> Tensor:
    # Up to half a turn a position, denser towards slow ones: the sum of the cosines is then at
    # most 0.36 of its peak anywhere within 200 positions (16 angles).
    count = width // 2
    return math.pi * ((torch.arange(count) + 0.5) / count) ** 1.5


def sinusoids(count: int, width: int) -> Tensor:
    """Return positions as points on circles [count, width], root mean square 1."""
    turned = torch.arange(count)[:, None] * _angles(width)
    return math.sqrt(2) * torch.cat([turned.cos(), turned.sin()], 1)


def rotation(offset: int, width: int) -> Tensor:
    """Return the matrix [w, w] that takes a position's sinusoids to those `offset` further on."""
    cos, sin = (torch.diag(f(offset * _angles(width))) for f in (torch.cos, torch.sin))
    return torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)])


def start_embeddings(
    words: Tensor, positions: Sequence[Tensor], width: int, generator: torch.Generator
) -> None:
    """Draw words [V, d] of root mean square 1, and positions [n, d] in the last numbers."""
    d = words.shape[1]
    words.normal_(0.0, (d / (d - width)) ** 0.5, generator=generator)
    words[:, d - width :].normal_(0.0, _SMALL, generator=generator)
    for table in positions:
        table.normal_(0.0, _SMALL, generator=generator)
        table[:, d - width :] += sinusoids(len(table), width)


@dataclass(frozen=True)
class Heads:
    """One attention layer's matrices [d, d]; q, k and v have a head's w rows, o its w columns."""

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    width: int

    def rows(self, head: int) -> slice:
        """Return where a head's rows lie."""
        return slice(head * self.width, (head + 1) * self.width)

    def looks_at(self, head: int, offsets: Sequence[int], score: float) -> None:
        """Let a head look at the places `offsets` from its own, at a score of about `score`."""
        rows, w = self.rows(head), self.width
        scale = math.sqrt(score * math.sqrt(w) / w)  # |position|² is w, attention divides by √w
        self.q[rows], self.k[rows] = 0.0, 0.0
        turns = torch.stack([rotation(offset, w) for offset in offsets]).sum(0)
        self.q[rows, -w:] = scale * turns
        self.k[rows, -w:] = scale * torch.eye(w)

    def matches(self, head: int, score: float, aside: float, generator: torch.Generator) -> None:
        """Let a head look at its own word elsewhere; its own place scores `aside` less."""
        w = self.width
        std = math.sqrt(score * math.sqrt(w) / (w * self.q.shape[1]))
        shared = torch.empty(self._words, w).T.normal_(0.0, std, generator=generator)
        self._compares(head, shared, shared)
        self.looks_away(head, aside, generator)

    def looks_away(self, head: int, score: float, generator: torch.Generator) -> None:
        """Take `score` from a head's own place, and about nothing from the others."""
        rows, w = self.rows(head), self.width
        away = math.sqrt(score * math.sqrt(w) / w) * _orthogonal(w, w, generator)
        self.q[rows, -w:] += away
        self.k[rows, -w:] -= away

    def copies(self, head: int, gain: float, generator: torch.Generator) -> None:
        """Let a head add the words it looks at, projected to w dimensions, times `gain`."""
        self.moves(head, gain, *[_orthogonal(self.width, self._words, generator)] * 2)

    def moves(self, head: int, gain: float, source: Tensor, target: Tensor) -> None:
        """Let a head read words by `source` [w, d - w] and write them by `target`ᵀ."""
        rows, w = self.rows(head), self.width
        self.v[rows], self.o[:, rows] = 0.0, 0.0
        self.v[rows, :-w] = source
        self.o[:-w, rows] = gain * target.T

    def follows(self, head: int, score: float, source: Tensor, target: Tensor) -> None:
        """Let a head look where `target` [w, d - w] reads what `source` reads at its own place.

        With two of `subspaces` that is where an earlier head has moved its word to, by `moves`.
        """
        w = self.width
        scale = math.sqrt(score * math.sqrt(w) / w)
        self._compares(head, scale * source, scale * target)

    def _compares(self, head: int, query: Tensor, key: Tensor) -> None:
        rows, w = self.rows(head), self.width
        self.q[rows], self.k[rows] = 0.0, 0.0
        self.q[rows, :-w] = query
        self.k[rows, :-w] = key

    @property
    def _words(self) -> int:
        return self.q.shape[1] - self.width


def subspaces(count: int, width: int, words: int, generator: torch.Generator) -> list[Tensor]:
    """Return matrices [width, words] of orthonormal rows, orthogonal to each other if they fit."""
    rows = _orthogonal(min(count * width, words), words, generator)
    return [rows[max(0, min(i * width, len(rows) - width)) :][:width] for i in range(count)]


def _orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(columns, rows, generator=generator))[0].T
