"""The T5 family: the prompt stands beside the input in the encoder.

Shapes: as in `mpt.backbones.base`; S = L + P encoder positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.models.t5.modeling_t5 import T5LayerNorm

from mpt.backbones.base import Backbone
from mpt.backbones.rows import Batch


class EncoderDecoder(Backbone):
    """T5, T5 v1.1 and their LM-adapted checkpoints.

    The encoder reads [prompt; input; padding] or [input; prompt; padding]. T5 knows positions
    only relatively and the padding comes last in both, so a row's numbers do not depend on it.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, position: str):
        super().__init__(name, model, tokenizer, position)
        _use_fused_gelu(model)
        if model.dtype == torch.float64:
            _use_double_norms(model)
        self._start = int(model.config.decoder_start_token_id)

    def target_states(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return the decoder states [N, d] that predict the target tokens."""
        states, mask = self._encode(prompts, batch)
        shifted = torch.roll(batch.target_ids, 1, 1)
        shifted[:, 0] = self._start
        # Causal, and padded on the right: no position of the mask ever looks at padding.
        decoded = self._model.decoder(
            input_ids=shifted,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return decoded[batch.target_mask]

    def head(self, states: Tensor) -> Tensor:
        """Return the vocabulary logits [N, V] of decoder states [N, d]."""
        if self._model.config.scale_decoder_outputs:
            states = states * self.d_model**-0.5
        logits = self._model.lm_head(states)
        return logits if logits.dtype == torch.float64 else logits.float()

    @torch.no_grad()
    def generate_ids(self, prompts: Tensor, batch: Batch, max_new_tokens: int) -> list[list[int]]:
        """Return the greedy output tokens of every row, the end mark included where it came.

        The encoder runs once; the decoder keeps keys and values and stops when all rows ended.
        """
        states, mask = self._encode(prompts, batch)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        token = torch.full((len(batch), 1), self._start, device=states.device)
        ended = torch.zeros_like(token, dtype=torch.bool)
        tokens: list[Tensor] = []
        while len(tokens) < max_new_tokens and not bool(ended.all()):
            decoded = self._model.decoder(
                input_ids=token,
                encoder_hidden_states=states,
                encoder_attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            token = self.head(decoded[:, -1]).argmax(-1, keepdim=True)
            ended |= token == self.end_id
            tokens.append(token)
        rows: list[list[int]] = torch.cat(tokens, 1).tolist()
        return [ids[: ids.index(self.end_id) + 1] if self.end_id in ids else ids for ids in rows]

    def _encode(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the encoder's output [B, S, d] and its mask [B, S]."""
        embedded, mask = self._with_prompts(prompts, batch)
        states = self._model.encoder(inputs_embeds=embedded, attention_mask=mask)
        return states.last_hidden_state, mask

    def _with_prompts(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return embeddings [B, S, d] with each row's prompt in its place, and the mask [B, S]."""
        words = self._model.get_input_embeddings()(batch.input_ids)
        # Prompts are kept in float32 (the master copy); the model reads them in its own dtype.
        own = prompts.to(words.dtype)[batch.run]
        soft = torch.ones(own.shape[:2], dtype=torch.bool, device=own.device)
        mask = torch.cat([soft, batch.input_mask], 1)
        if self.position == "prepend":
            return torch.cat([own, words], 1), mask
        joined = torch.cat([own, words], 1)
        order = _prompt_after_input(batch.input_mask.sum(1), own.shape[1], mask.shape[1])
        moved = joined.gather(1, order[:, :, None].expand_as(joined))
        return moved, mask.gather(1, order)


def _prompt_after_input(lengths: Tensor, p: int, s: int) -> Tensor:
    """Return the order [B, S] that turns [prompt; input; padding] into [input; prompt; padding].

    Args:
        lengths: input tokens n of every row [B].
        p: prompt tokens P.
        s: positions S.
    """
    place = torch.arange(s, device=lengths.device).expand(len(lengths), s)
    n = lengths[:, None]
    return torch.where(place < n, place + p, torch.where(place < n + p, place - n, place))


def _use_fused_gelu(model: nn.Module) -> None:
    """Compute the same tanh-GELU in one kernel: a third of its time, an eighth of a step's."""
    for module in model.modules():
        if isinstance(getattr(module, "act", None), NewGELUActivation):
            module.act = nn.GELU(approximate="tanh")


def _use_double_norms(model: nn.Module) -> None:
    """Let a float64 model compute its norms in float64.

    Hugging Face's `T5LayerNorm` takes the variance in float32 whatever the model's dtype, so that
    gradients bottom out at 1e-9..4e-7; float64 is here for checks that need all its digits.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, T5LayerNorm):
                norm = nn.RMSNorm(len(child.weight), child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(module, name, norm.eval())
