"""What the recipes of the embedded backbones have in common: the numbers and the schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from mpt.seeds import torch_generator
from tools.embedded_models.text import Curriculum, curriculum

Pair = tuple[list[int], list[int]]
"""Token ids of a source and of its target, without marks at their ends."""


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """Every number of a training run, and the model it trains.

    A family says how its model starts and how pairs of source and target become a loss.
    """

    family: ClassVar[str]
    """Model type of the checkpoint's configuration."""
    saved: ClassVar[torch.dtype] = torch.float16
    """Dtype of the packaged weights; they are read as float32."""

    seed: int = 7
    """Root of all generators."""
    vocab_size: int = 1536
    """Pieces of the tokenizer."""
    tokenizer_examples: int = 60_000
    """Instructed examples that the tokenizer is trained on."""
    d_model: int = 128
    """Width."""
    d_ff: int = 384
    """Width of the feed-forward layer."""
    heads: int = 4
    """Attention heads."""
    recall_steps: int = 2000
    """First steps, on pairs of random tokens to be recalled (`recall`): on sentences alone look-up
    and comparison stay at chance for 14 000 steps, on dense pairs recall appears within 1000."""
    steps: int = 9500
    """Optimiser steps, `recall_steps` included."""
    batch_size: int = 64
    """Examples a step."""
    matrix_lr: float = 2e-3
    """Peak learning rate of Muon (scaled to AdamW's RMS), which trains the matrices."""
    other_lr: float = 1e-3
    """Peak learning rate of AdamW, which trains embeddings and norms."""
    recall_share: float = 0.1
    """Share of rows that stay recall after the first steps."""
    match_score: float = 5.0
    """Attention score of a token for itself at the start, in the heads that match tokens."""
    warmup: int = 200
    """Steps of linear warm-up."""
    decay_from: float = 0.5
    """Share of the steps after which both rates fall linearly to zero."""
    span_corruption: float = 0.15
    """Share of rows that are span corruption instead of instructed."""
    clip: float = 1.0
    """Largest gradient norm."""
    short_until: float = 0.5
    """Share of the steps after recall in which most stories have two sentences and look-up counts
    double."""
    bf16: bool = True
    """Whether matrix products run in bfloat16 (weights, norms and the loss stay in float32)."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""

    def rate(self, step: int) -> float:
        """Return the factor on the peak learning rates at a step (from 0)."""
        decay = (self.steps - step) / (self.steps * (1 - self.decay_from))
        return min(1.0, (step + 1) / self.warmup, decay)

    def text_at(self, step: int) -> Curriculum:
        """Return the mixture of rows at a step."""
        early = step < self.recall_steps + self.short_until * (self.steps - self.recall_steps)
        return curriculum(context=2.0 if early else 1.3, short=0.8 if early else 0.2)

    @abstractmethod
    def new_model(self) -> Any:
        """Build the model with weights drawn from the seed; no global stream moves."""

    @abstractmethod
    def recall(self, rng: Generator, pairs: int, tokens: int, sentinels: list[int]) -> Pair:
        """Draw random pairs and a question for them, over a vocabulary of `tokens` pieces."""

    @abstractmethod
    def loss(
        self, model: Any, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, step: int
    ) -> Tensor:
        """Return the mean negative log-likelihood of the targets' tokens."""

    def groups(self, model: Any) -> tuple[list[nn.Parameter], list[dict[str, Any]]]:
        """Return the matrices that Muon trains, and AdamW's groups of everything else."""
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and not self.apart(name)]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        return matrices, [{"params": rest, "lr": self.other_lr}]

    @abstractmethod
    def apart(self, name: str) -> bool:
        """Say whether a matrix of this name is an embedding, which Muon does not train."""


@dataclass(frozen=True, kw_only=True)
class AbsoluteRecipe(Recipe):
    """What models with learned positions share: they must not care where a row starts."""

    positions: int = 256
    """Positions: 20 of a prompt, 96 of an input and 24 of a target, with room."""
    shift: int = 40
    """Largest number of positions before a row: a prompt will stand there."""

    def places(self, ids: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the positions of `ids` [B, L] from 0 on, and from a random one on in each row."""
        generator = torch_generator(self.seed, "shift", step)
        rows, length = ids.shape
        places = torch.arange(length)
        return places, places + torch.randint(self.shift + 1, (rows, 1), generator=generator)


def drawn_model(build: Callable[[], Any], generator: torch.Generator) -> Any:
    """Build a model with weights drawn from the generator's seed; no global stream moves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        return build()


def random_pairs(rng: Generator, pairs: int, first: int, tokens: int) -> tuple[Pair, list[int]]:
    """Draw keys and values, all different, from the ids `first` to `tokens` − 1, and an order."""
    drawn = (first + rng.choice(tokens - first, 2 * pairs, replace=False)).tolist()
    return (drawn[:pairs], drawn[pairs:]), rng.permutation(pairs).tolist()


def pad(rows: Iterable[Sequence[int]], value: int = 0) -> Tensor:
    """Return rows of ids as one tensor [rows, longest], padded on the right."""
    lines = list(rows)
    padded = np.full((len(lines), max(map(len, lines))), value, dtype=np.int64)
    for line, row in zip(padded, lines, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(padded)


def in_turn(pairs: Pair) -> Iterator[int]:
    """Yield the keys, each followed by its value."""
    for pair in zip(*pairs, strict=True):
        yield from pair
