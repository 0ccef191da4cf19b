"""GPT-2: prompt, input and target stand in one line of text.

Shapes: as in `mpt.backbones.base`; S positions, n input tokens of a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from mpt.backbones.base import Backbone
from mpt.backbones.generation import Decoding
from mpt.backbones.input_cache import InputCache
from mpt.backbones.rows import Batch


class DecoderOnly(Backbone):
    """[prompt; input; target] or [input; prompt; target]; the loss is on the target only.

    An input ends with a line break, so that the model can tell it from the target. Training reads
    rows padded on the right: attention is causal, so no token sees padding, and positions count
    from the left. Generation pads on the left and counts positions from each row's first token.

    With an appended prompt the input's keys and values do not depend on the prompt: where
    gradients are asked for they come from `InputCache` and only prompt and target go through the
    model. Passes with dropout, or of a copy whose weights are trained, read the whole row.
    """

    auto = AutoModelForCausalLM

    def __init__(self, name: str, model: Any, tokenizer: Any, position: str):
        super().__init__(name, model, tokenizer, position)
        self._max_positions = int(model.config.max_position_embeddings)
        self._input_end = self.word_ids("\n") or [self.end_id]
        self.input_cache: InputCache | None = InputCache.for_device(self.device)

    def encode_input(self, text: str, max_tokens: int) -> list[int]:
        """Return the tokens of an input: cut to fit, then the line break."""
        room = max(max_tokens - len(self._input_end), 0)
        return [*self.word_ids(text)[:room], *self._input_end]

    @property
    def _reader(self) -> Any:
        return self._model.transformer

    def head(self, states: Tensor) -> Tensor:
        """Return the vocabulary logits [N, V] of hidden states [N, d]."""
        return self._wide(self._model.lm_head(states))

    def target_states(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return the states [N, d] that predict the target tokens."""
        p, t = prompts.shape[1], batch.target_ids.shape[1]
        self._check_positions("prompt, input and target", p + batch.input_ids.shape[1] + t - 1)
        if self._may_cache(prompts):
            return self._states_after_input(prompts, batch)[batch.target_mask]
        embedded, _ = self._joined(prompts, batch, batch.target_ids, batch.target_mask)
        states = self._transformer(embedded[:, :-1])
        first = p + batch.input_mask.sum(1) - 1  # the position before the target
        place = first[:, None] + torch.arange(t, device=first.device)
        place = place.clamp(max=states.shape[1] - 1)  # past a row's target only
        predicting = states.gather(1, place[:, :, None].expand(-1, -1, states.shape[2]))
        return predicting[batch.target_mask]

    def start_decoding(self, prompts: Tensor, batch: Batch) -> Decoding:
        """Return the model having read prompt and input, padded on the left."""
        none = batch.target_ids[:, :0]
        embedded, mask = self._joined(prompts, batch, none, none.bool(), left=True)
        return _Decoding(self, embedded, mask)

    def _may_cache(self, prompts: Tensor) -> bool:
        """Whether the input's keys and values are the same in every pass, and worth keeping."""
        return (
            self.position == "append"
            and self.input_cache is not None
            and prompts.shape[1] > 0
            and torch.is_grad_enabled()
            and prompts.requires_grad
            and not self.trainable
            and not self._model.training
        )

    def _transformer(self, embedded: Tensor, **options: Any) -> Tensor:
        states = self._model.transformer(inputs_embeds=embedded, **options).last_hidden_state
        return torch.as_tensor(states)

    def _own(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return each row's prompt [B, P, d] in the model's dtype (the master is float32)."""
        return prompts.to(self.dtype)[batch.run]

    def _joined(
        self,
        prompts: Tensor,
        batch: Batch,
        targets: Tensor,
        target_mask: Tensor,
        left: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return each row without gaps, padded on one side: embeddings [B, S, d], mask [B, S]."""
        own = self._own(prompts, batch)
        joined = torch.cat([own, self._words(batch.input_ids), self._words(targets)], 1)
        soft = torch.ones(own.shape[:2], dtype=torch.bool, device=own.device)
        # Every column gets the rank of its part; a stable sort then closes the gaps.
        ranks = (1, 2) if self.position == "prepend" else (2, 1)
        padding = 0 if left else 4
        rank = torch.cat(
            [
                torch.full_like(batch.input_ids[:, :1], ranks[0]).expand(own.shape[:2]),
                torch.where(batch.input_mask, ranks[1], padding),
                torch.where(target_mask, 3, padding),
            ],
            1,
        )
        order = rank.argsort(dim=1, stable=True)
        mask = torch.cat([soft, batch.input_mask, target_mask], 1).gather(1, order)
        return joined.gather(1, order[:, :, None].expand_as(joined)), mask

    def _states_after_input(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return the states [B, T, d] that predict the target, on the input's keys and values."""
        assert self.input_cache is not None
        keys_values, n = self.input_cache.batch(batch, self._input_keys_values)
        own = self._own(prompts, batch)
        embedded = torch.cat([own, self._words(batch.target_ids[:, :-1])], 1)
        seen = torch.ones(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(keys_values):
            cache.update(keys, values, layer)
        states = self._transformer(
            embedded,
            past_key_values=cache,
            attention_mask=torch.cat([batch.input_mask, seen], 1),
            position_ids=n[:, None] + torch.arange(embedded.shape[1], device=n.device),
            use_cache=True,
        )
        return states[:, own.shape[1] - 1 :]

    @torch.no_grad()
    def _input_keys_values(self, ids: Tensor) -> Tensor:
        """Return keys and values [layers, 2, heads, n, d/heads] of one input [n]."""
        cache: Any = DynamicCache()
        self._transformer(self._words(ids[None]), past_key_values=cache, use_cache=True)
        return torch.stack([torch.cat([layer.keys, layer.values]) for layer in cache.layers])


class _Decoding(Decoding):
    """Left-padded rows with the keys and values of all before."""

    def __init__(self, backbone: DecoderOnly, embedded: Tensor, mask: Tensor):
        self._backbone, self._embedded, self._mask = backbone, embedded, mask
        self._cache: Any = DynamicCache()

    def next_states(self, tokens: Tensor | None) -> Tensor:
        if tokens is None:
            embedded, positions = self._embedded, (self._mask.cumsum(1) - 1).clamp(min=0)
        else:
            embedded = self._backbone._words(tokens[:, None])
            positions = self._mask.sum(1, keepdim=True)
            self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], 1)
        self._backbone._check_positions("prompt, input and output", self._mask.shape[1])
        states = self._backbone._transformer(
            embedded,
            past_key_values=self._cache,
            attention_mask=self._mask,
            position_ids=positions,
            use_cache=True,
        )
        return states[:, -1]

    def select(self, rows: Tensor) -> None:
        self._mask = self._mask[rows]
        self._cache.reorder_cache(rows)
