"""The embedded BART: learned positions that start as sinusoids, heads that look aside or match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.random import Generator
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from mpt.seeds import torch_generator
from tools.embedded_models.recipe import AbsoluteRecipe, Pair, drawn_model, pad
from tools.embedded_models.start import Heads, start_embeddings, subspaces
from tools.embedded_models.t5 import recall_by_sentinels
from tools.embedded_models.tokenizer import SPECIALS


@dataclass(frozen=True, kw_only=True)
class BartRecipe(AbsoluteRecipe):
    """BART without dropout."""

    family: ClassVar[str] = "bart"

    recall_steps: int = 800
    """Fewer than T5, which does not start with a circuit for them."""
    steps: int = 8000
    """Optimiser steps, `recall_steps` included."""
    encoder_layers: int = 3
    """Encoder layers."""
    decoder_layers: int = 2
    """Decoder layers."""
    copy_gain: float = 0.5
    """What a head adds of a word at the start; more would drown the words in norms after sums."""

    def __post_init__(self) -> None:
        if self.heads < 4:
            raise ValueError(f"heads is {self.heads}, but the start gives four of them a task")

    def new_model(self) -> Any:
        """Build the model with weights drawn from the seed; no global stream moves."""
        generator = torch_generator(self.seed, "weights")
        config = BartConfig(
            vocab_size=self.vocab_size,
            max_position_embeddings=self.positions,
            d_model=self.d_model,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            encoder_ffn_dim=self.d_ff,
            decoder_ffn_dim=self.d_ff,
            encoder_attention_heads=self.heads,
            decoder_attention_heads=self.heads,
            dropout=0.0,
            init_std=self.d_model**-0.5,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=len(SPECIALS) - 1,  # `train_tokenizer` puts <s> there
            decoder_start_token_id=1,
            forced_eos_token_id=None,
        )
        model = drawn_model(lambda: BartForConditionalGeneration(config), generator)
        with torch.no_grad():
            self._start(model.model, generator)
        return model

    def _start(self, model: Any, generator: torch.Generator) -> None:
        """Let heads match words, look at their neighbours, and recall a pair in three steps.

        The first layer writes down which word follows, a later one passes that on from an equal
        word, the next one from the word before: so a mark behind the second mention of a key
        knows the value, and the decoder looks for the mark. Norms after sums make what stands
        there fainter by layer, so scores start higher.
        """
        d, width = self.d_model, self.d_model // self.heads
        both = (model.encoder, model.decoder)
        tables = [part.embed_positions.weight for part in both]
        start_embeddings(model.shared.weight, tables, width, generator)
        model.decoder.layers[-1].final_layer_norm.weight.fill_(d**-0.5)
        word, following, known = subspaces(3, width, d - width, generator)
        for part in both:
            for number, layer in enumerate(part.layers):
                layer.fc2.weight.normal_(0.0, 0.5 * self.d_ff**-0.5, generator=generator)
                heads = self._heads(layer.self_attn, generator)
                scale = 1.8**number
                heads.follows(0, 8.0 * scale, word, word)
                heads.looks_away(0, 3.0 * scale, generator)
                heads.matches(1, self.match_score * scale, 3.0 * scale, generator)
                heads.looks_at(2, [-1], 8.0 * scale)
                if part is model.encoder:
                    heads.looks_at(3, [1], 8.0 * scale)
                    if number == 0:
                        heads.moves(3, 1.0, word, following)
                    else:
                        heads.moves(0, 1.0, following, known)
                        heads.moves(2, 1.0, known, known)
                else:
                    heads.looks_at(3, [-1, -2, -3], 8.0 * scale)
                    heads = self._heads(layer.encoder_attn, generator)
                    heads.follows(0, 8.0 * scale * 3, word, word)
                    heads.moves(0, 2.0, known, word)
                    heads.matches(1, self.match_score * scale, 0.0, generator)

    def _heads(self, attention: Any, generator: torch.Generator) -> Heads:
        """Return an attention layer whose heads copy what they look at."""
        q, k, v, o = (
            part.weight
            for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
        )
        heads = Heads(q, k, v, o, self.d_model // self.heads)
        for head in range(self.heads):
            heads.copies(head, self.copy_gain, generator)
        return heads

    def recall(self, rng: Generator, pairs: int, tokens: int, sentinels: list[int]) -> Pair:
        """See `recall_by_sentinels`."""
        return recall_by_sentinels(rng, pairs, tokens, sentinels)

    def loss(
        self, model: Any, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, step: int
    ) -> Tensor:
        """Return the loss of `<s> words </s>` → `target </s>`; the decoder is given `</s> <s>`."""
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        inputs = pad([begin, *source, end] for source, _ in pairs)
        given = pad([end, begin, *target] for _, target in pairs)
        labels = pad(([-100, *target, end] for _, target in pairs), -100)
        places, shifted = self.places(inputs, step)
        table = model.model.encoder.embed_positions
        # The encoder adds the positions from 0 on itself and can be given no others.
        moved = table.weight[shifted + table.offset] - table.weight[places + table.offset]
        states = model.model(
            inputs_embeds=model.model.shared(inputs) + moved,
            attention_mask=inputs != 0,
            decoder_input_ids=given,
            use_cache=False,
        ).last_hidden_state
        asked = labels != -100
        return torch.nn.functional.cross_entropy(
            model.lm_head(states[asked]).float() + model.final_logits_bias, labels[asked]
        )

    def apart(self, name: str) -> bool:
        """Say whether a matrix of this name is an embedding, which Muon does not train."""
        return "shared" in name or "embed_positions" in name
