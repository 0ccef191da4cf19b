"""The embedded GPT-2: learned positions that start as sinusoids, and a circuit that recalls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.random import Generator
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from mpt.seeds import torch_generator
from tools.embedded_models.recipe import (
    AbsoluteRecipe,
    Pair,
    drawn_model,
    in_turn,
    pad,
    random_pairs,
)
from tools.embedded_models.start import Heads, start_embeddings, subspaces
from tools.embedded_models.tokenizer import SPECIALS


@dataclass(frozen=True, kw_only=True)
class GPT2Recipe(AbsoluteRecipe):
    """GPT-2 without dropout."""

    family: ClassVar[str] = "gpt2"

    steps: int = 9000
    """Optimiser steps, `recall_steps` included."""
    layers: int = 5
    """Layers."""

    def new_model(self) -> Any:
        """Build the model with weights drawn from the seed; no global stream moves."""
        generator = torch_generator(self.seed, "weights")
        config = GPT2Config(
            vocab_size=self.vocab_size,
            n_positions=self.positions,
            n_embd=self.d_model,
            n_inner=self.d_ff,
            n_layer=self.layers,
            n_head=self.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            initializer_range=self.d_model**-0.5,
            bos_token_id=1,
            eos_token_id=1,
            pad_token_id=0,
        )
        model = drawn_model(lambda: GPT2LMHeadModel(config), generator)
        with torch.no_grad():
            self._start(model.transformer, generator)
        return model

    def _start(self, reader: Any, generator: torch.Generator) -> None:
        """Let the first layer look back and the others match, and follow what it has moved."""
        d, width = self.d_model, self.d_model // self.heads
        start_embeddings(reader.wte.weight, [reader.wpe.weight], width, generator)
        reader.ln_f.weight.fill_(d**-0.5)  # logits of unit variance, as in T5
        moved = [subspaces(2, width, d - width, generator) for _ in range(self.heads // 2)]
        for number, block in enumerate(reader.h):
            q, k, v = block.attn.c_attn.weight.T.split(d)
            heads = Heads(q, k, v, block.attn.c_proj.weight.T, width)
            for head in range(self.heads):
                heads.copies(head, 1.0, generator)
                if number == 0 and head < len(moved):
                    heads.looks_at(head, [-1], 12.0)
                    heads.moves(head, 1.0, *moved[head])
                elif number == 1 and head < len(moved):
                    heads.follows(head, 2 * self.match_score, *moved[head])
                elif head < self.heads - 1:
                    heads.matches(head, self.match_score, 3.0, generator)
                else:
                    heads.looks_at(head, [-1, -2, -3], 6.0)

    def recall(self, rng: Generator, pairs: int, tokens: int, sentinels: list[int]) -> Pair:
        """Draw random key-value pairs, and the same in another order.

        A sentinel that stands behind its key, as T5 has it, takes a causal model one step more.

        Returns:
            (source, target): `k1 v1 … kn vn`; `ki vi kj vj …`.
        """
        drawn, order = random_pairs(rng, pairs, len(SPECIALS), tokens)
        again = ([drawn[0][i] for i in order], [drawn[1][i] for i in order])
        return list(in_turn(drawn)), list(in_turn(again))

    def loss(
        self, model: Any, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, step: int
    ) -> Tensor:
        """Return the loss of the targets in `words line-break target </s>`."""
        between = tokenizer("\n", add_special_tokens=False)["input_ids"]
        ends = [[*target, tokenizer.eos_token_id] for _, target in pairs]
        begins = [[*source, *between] for source, _ in pairs]
        ids = pad(begin + end for begin, end in zip(begins, ends, strict=True))
        labels = pad(
            ([-100] * (len(begin) - 1) + end for begin, end in zip(begins, ends, strict=True)),
            -100,
        )
        ids = ids[:, : labels.shape[1]]  # what is last in every row predicts nothing
        _, shifted = self.places(ids, step)
        states = model.transformer(
            input_ids=ids, position_ids=shifted, use_cache=False
        ).last_hidden_state
        asked = labels != -100
        return torch.nn.functional.cross_entropy(
            model.lm_head(states[asked]).float(), labels[asked]
        )

    def apart(self, name: str) -> bool:
        """Say whether a matrix of this name is an embedding, which Muon does not train."""
        return "wte" in name or "wpe" in name
