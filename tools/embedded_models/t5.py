"""The embedded T5: relative positions that start as windows, heads that start by matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.random import Generator
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from mpt.seeds import torch_generator
from tools.embedded_models.recipe import (
    Pair,
    Recipe,
    drawn_model,
    in_turn,
    pad,
    random_pairs,
)
from tools.embedded_models.tokenizer import SPECIALS

_POSITIONS = "relative_attention_bias"
"""What the names of the position biases hold."""


def recall_by_sentinels(rng: Generator, pairs: int, tokens: int, sentinels: list[int]) -> Pair:
    """Draw random key-value pairs, then the keys again with sentinels in place of the values.

    Returns:
        (source, target): `k1 v1 … kn vn ki <0> kj <1> …`; the sentinels with the values.
    """
    drawn, order = random_pairs(rng, pairs, len(SPECIALS), tokens)
    source = list(in_turn(drawn))
    target = []
    for sentinel, i in zip(sentinels, order, strict=False):
        source += [drawn[0][i], sentinel]
        target += [sentinel, drawn[1][i]]
    return source, target


@dataclass(frozen=True, kw_only=True)
class T5Recipe(Recipe):
    """T5 with gated GELU, tied embeddings, no dropout."""

    family: ClassVar[str] = "t5"
    saved: ClassVar[torch.dtype] = torch.float32

    d_kv: int = 32
    """Width of a head."""
    encoder_layers: int = 3
    """Encoder layers."""
    decoder_layers: int = 2
    """Decoder layers."""
    position_lr: float = 2e-2
    """Peak learning rate of AdamW for the relative position biases: they must reach several units
    before a head looks at one place, and at 1e-3 copying takes more than ten times longer."""

    def model_config(self) -> T5Config:
        """Return the architecture."""
        config = T5Config(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            d_kv=self.d_kv,
            d_ff=self.d_ff,
            num_layers=self.encoder_layers,
            num_decoder_layers=self.decoder_layers,
            num_heads=self.heads,
            relative_attention_num_buckets=32,
            relative_attention_max_distance=64,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
        config.decoder_start_token_id = 0
        return config

    def new_model(self) -> T5ForConditionalGeneration:
        """Build the model with weights drawn from the seed; no global stream moves."""
        generator = torch_generator(self.seed, "weights")
        model = drawn_model(lambda: T5ForConditionalGeneration(self.model_config()), generator)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if _POSITIONS in name:
                    _start_positions(weight, self, generator)
            for attention in (m for m in model.modules() if isinstance(m, T5Attention)):
                _start_attention(attention, self, generator)
        assert isinstance(model, T5ForConditionalGeneration)
        return model

    def recall(self, rng: Generator, pairs: int, tokens: int, sentinels: list[int]) -> Pair:
        """See `recall_by_sentinels`."""
        return recall_by_sentinels(rng, pairs, tokens, sentinels)

    def loss(
        self, model: Any, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, step: int
    ) -> Tensor:
        """Return the loss of `words </s>` → `target </s>`."""
        end = tokenizer.eos_token_id
        inputs = pad([*source, end] for source, _ in pairs)
        labels = pad(([*target, end] for _, target in pairs), -100)
        loss: Tensor = model(input_ids=inputs, attention_mask=inputs != 0, labels=labels).loss
        return loss

    def groups(self, model: Any) -> tuple[list[nn.Parameter], list[dict[str, Any]]]:
        """Give the position biases a learning rate of their own."""
        matrices, (other,) = super().groups(model)
        positions = [p for name, p in model.named_parameters() if _POSITIONS in name]
        chosen = {id(p) for p in positions}
        other["params"] = [p for p in other["params"] if id(p) not in chosen]
        return matrices, [other, {"params": positions, "lr": self.position_lr}]

    def apart(self, name: str) -> bool:
        """Say whether a matrix of this name is an embedding, which Muon does not train."""
        return "shared" in name or _POSITIONS in name


def _start_attention(attention: T5Attention, recipe: T5Recipe, generator: torch.Generator) -> None:
    """Let heads start as what small models take long to find: matching and copying.

    The first half of the heads share query and key matrices, so that equal tokens attract each
    other; all heads' output matrix is twice the transposed value matrix, so that what a head looks
    at is added nearly unchanged (after Trockman and Kolter, "Mimetic initialization", 2023).
    """
    d, width = recipe.d_model, recipe.d_kv
    for head in range(recipe.heads):
        rows = slice(head * width, (head + 1) * width)
        if head < recipe.heads // 2:
            std = (recipe.match_score / (d * width)) ** 0.5
            attention.q.weight[rows].normal_(0.0, std, generator=generator)
            attention.k.weight[rows] = attention.q.weight[rows]
        attention.o.weight[:, rows] = 2 * attention.v.weight[rows].T


def _start_positions(bias: torch.Tensor, recipe: T5Recipe, generator: torch.Generator) -> None:
    """Let matching heads look away from the token itself, the others at its neighbours.

    `bias` is [buckets, heads]: bucket 0 is the token itself, 1-4 the tokens just before it, and
    half of the buckets later those after it (in the encoder).
    """
    half, after = recipe.heads // 2, len(bias) // 2
    bias.normal_(0.0, 0.5, generator=generator)
    bias[0, :half] = -8.0
    bias[0, half:] -= 2.0
    bias[1:5, half] += 3.0
    bias[after + 1 : after + 5, -1] += 3.0
