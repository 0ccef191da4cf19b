"""Sequence to sequence: the prompt stands beside the input in the encoder, the decoder writes.

Shapes: as in `mpt.backbones.base`; S = L + P encoder positions, C decoder tokens given beforehand.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForSeq2SeqLM
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.integrations.sdpa_attention import (
    create_position_bias_mask,
    sdpa_attention_forward,
)
from transformers.masking_utils import sdpa_mask
from transformers.models.t5.modeling_t5 import T5LayerNorm

from mpt.backbones import tokens
from mpt.backbones.base import Backbone
from mpt.backbones.generation import BatchRead, Begun, Decoding
from mpt.backbones.rows import Batch
from mpt.errors import DataError

_SCALED_WHERE_TIED = ("umt5", "switch_transformers")
"""Model types that divide decoder states by √d exactly where their head is tied."""


class EncoderDecoder(Backbone):
    """An encoder that reads [prompt; input; padding] or [input; prompt; padding], and a decoder.

    The padding comes last in both orders, so that no position depends on it. In the released
    code's order, [input; padding; prompt], the prompt's positions do ("append_padded"). Marks
    around the input are the tokenizer's own; the decoder is given the start token and, where the
    configuration forces one, the first token of every output (mBART's language).
    """

    auto = AutoModelForSeq2SeqLM

    def __init__(self, name: str, model: Any, tokenizer: Any, position: str):
        self._encoder, self._decoder = model.get_encoder(), model.get_decoder()
        self._input_words = _encoder_words(self._encoder)
        super().__init__(name, model, tokenizer, position)
        _mend_umt5(model)
        self._before, self._after = tokens.marks(tokenizer)
        self._after = self._after or [self.end_id]
        self._prefix = [_decoder_start(name, model, tokenizer)]
        forced = getattr(model.config, "forced_bos_token_id", None)
        if forced is not None:
            self._prefix.append(int(forced))
        self._max_positions = getattr(model.config, "max_position_embeddings", None)
        self._scale = self.d_model**-0.5 if _scales_output(model.config) else None

    @property
    def _words(self) -> Any:
        return self._input_words

    @property
    def _reader(self) -> Any:
        return self._encoder

    def encode_input(self, text: str, max_tokens: int) -> list[int]:
        """Return the tokens of an input: words cut to fit between the tokenizer's marks."""
        room = max(max_tokens - len(self._before) - len(self._after), 0)
        return [*self._before, *self.word_ids(text)[:room], *self._after]

    def head(self, states: Tensor) -> Tensor:
        """Return the vocabulary logits [N, V] of decoder states [N, d]."""
        if self._scale is not None:
            states = states * self._scale
        logits = self._model.get_output_embeddings()(states)
        bias = getattr(self._model, "final_logits_bias", None)
        return self._wide(logits if bias is None else logits + bias)

    def target_states(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return the decoder states [N, d] that predict the target tokens."""
        return self._decode(*self._encode(prompts, batch), batch)

    @torch.no_grad()
    def read_targets(
        self, prompts: Tensor, batch: Batch, max_new_tokens: int
    ) -> tuple[Tensor, BatchRead]:
        """Return the decoder states [N, d], and the encoder's output to write from."""
        states, mask = self._encode(prompts, batch)
        return self._decode(states, mask, batch), _Read(states, mask)

    def _decode(self, states: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        """Return the states [N, d] that predict the targets, given the encoder's output."""
        given = self._given(len(batch))
        self._check_positions("target", given.shape[1] + batch.target_ids.shape[1] - 1)
        # Causal, and padded on the right: no position of the mask ever looks at padding.
        decoded = self._decoder(
            input_ids=torch.cat([given, batch.target_ids[:, :-1]], 1),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return decoded[:, given.shape[1] - 1 :][batch.target_mask]

    def start_decoding(self, prompts: Tensor, batch: Batch) -> Decoding:
        """Return the decoder before its first token; the encoder has run."""
        states, mask = self._encode(prompts, batch)
        return _Decoding(self._decoder, states, mask, self._given(len(batch)))

    def resume_decoding(self, begun: Sequence[Begun]) -> Decoding:
        """Return the decoder before its first token; the encoder need not run again."""
        states = pad_sequence([row.memory for row in begun], batch_first=True)
        mask = pad_sequence([row.mask for row in begun], batch_first=True)
        return _Decoding(self._decoder, states, mask, self._given(len(begun)))

    def _given(self, rows: int) -> Tensor:
        """Return the tokens [B, C] that the decoder starts from."""
        given = torch.tensor([self._prefix], device=self.device)
        return given.expand(rows, -1)

    def _encode(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the encoder's output [B, S, d] and its mask [B, S]."""
        embedded, mask = self._with_prompts(prompts, batch)
        self._check_positions("prompt and input", mask.shape[1])
        states = self._encoder(inputs_embeds=embedded, attention_mask=mask)
        return states.last_hidden_state, mask

    def _with_prompts(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return embeddings [B, S, d] with each row's prompt in its place, and the mask [B, S]."""
        words = self._words(batch.input_ids)
        # Prompts are kept in float32 (the master copy); the model reads them in its own dtype.
        own = prompts.to(words.dtype)[batch.run]
        soft = torch.ones(own.shape[:2], dtype=torch.bool, device=own.device)
        mask = torch.cat([soft, batch.input_mask], 1)
        if self.position == "prepend":
            return torch.cat([own, words], 1), mask
        joined = torch.cat([own, words], 1)
        before = batch.input_mask.sum(1)
        if self.padding_matters:
            whole = torch.full_like(before, batch.input_ids.shape[1])
            before = whole if batch.width is None else batch.width
        order = _prompt_after_input(before, own.shape[1], mask.shape[1])
        moved = joined.gather(1, order[:, :, None].expand_as(joined))
        return moved, mask.gather(1, order)


class T5(EncoderDecoder):
    """T5, v1.1, LM-adapted, Flan, mT5 and UMT5; positions are known only relatively.

    It reads ``words </s>`` whatever its tokenizer says.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, position: str):
        super().__init__(name, model, tokenizer, position)
        self._before, self._after = [], [self.end_id]
        if model.dtype == torch.float64:
            _use_double_norms(model)

    @contextlib.contextmanager
    def second_order(self) -> Iterator[None]:
        """Attention and loss that can be differentiated twice, with torch's bits and less work."""
        configs = [
            one.config
            for one in (self._encoder, self._decoder)
            if one.config._attn_implementation == "sdpa"
        ]
        with super().second_order():
            try:
                for config in configs:
                    config._attn_implementation = _PLAIN
                yield
            finally:
                for config in configs:
                    config._attn_implementation = "sdpa"


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return softmax(q kᵀ + bias) v, as torch's mathematical kernel does, to the last bit.

    That kernel asks besides, forward and in both derivatives, whether a row may look at nothing
    (−inf everywhere). What T5 masks has the lowest finite bias, so there is none. Where it is not
    known to be the same, torch's own serves.
    """
    coarse = query.dtype not in (torch.float32, torch.float64)
    if position_bias is None or scaling != 1.0 or dropout > 0 or coarse:
        others |= {"dropout": dropout, "scaling": scaling, "position_bias": position_bias}
        outcome: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, is_causal=is_causal, **others
        )
        return outcome
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = causal and attention_mask is None and query.shape[2] > 1
    bias = create_position_bias_mask(position_bias, attention_mask, causal, query, key)
    weights = (query @ key.transpose(-2, -1)).add_(bias).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), None


_PLAIN = "mpt_plain"
AttentionInterface.register(_PLAIN, plain_attention)
AttentionMaskInterface.register(_PLAIN, sdpa_mask)


class Bart(EncoderDecoder):
    """BART: learned positions, embeddings scaled where the configuration says so.

    It reads ``<s> words </s>``. Its decoder is given the start token and ``<s>``, as in BART's
    training and as its generation forces; the loss is on the words and ``</s>``.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, position: str):
        super().__init__(name, model, tokenizer, position)
        begin = int(model.config.bos_token_id)
        self._before, self._after = [begin], [self.end_id]
        self._prefix = [self._prefix[0], begin]


class _Scaled:
    """Embeddings that their encoder multiplies outside of them, where it reads words only.

    A prompt stands beside what the first layer sees, so the product is made here.
    """

    def __init__(self, module: Any, scale: float):
        self._module, self.embed_scale = module, scale

    @property
    def weight(self) -> Tensor:
        return torch.as_tensor(self._module.weight)

    def __call__(self, ids: Tensor) -> Tensor:
        return torch.as_tensor(self._module(ids) * self.embed_scale)


class _Read(BatchRead):
    """The encoder's output of a batch [B, S, d] and its mask [B, S].

    The decoder begins anew: it is short, and some decoders count places where rows of different
    beginnings would need gaps.
    """

    def __init__(self, states: Tensor, mask: Tensor):
        self._states, self._mask = states, mask

    @functools.cached_property
    def _lengths(self) -> list[int]:
        """Places of every row up to its last one that is no padding."""
        numbers = torch.arange(1, self._mask.shape[1] + 1, device=self._mask.device)
        lengths: list[int] = (self._mask * numbers).amax(1).tolist()
        return lengths

    def row(self, index: int, written: list[int]) -> Begun:
        end = self._lengths[index]
        return Begun([], self._states[index, :end].clone(), self._mask[index, :end].clone())


class _Decoding(Decoding):
    """The decoder with the keys and values of what it has written."""

    def __init__(self, decoder: Any, states: Tensor, mask: Tensor, given: Tensor):
        self._decoder, self._states, self._mask, self._given = decoder, states, mask, given
        self._cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def next_states(self, tokens: Tensor | None) -> Tensor:
        decoded = self._decoder(
            input_ids=self._given if tokens is None else tokens[:, None],
            encoder_hidden_states=self._states,
            encoder_attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return torch.as_tensor(decoded[:, -1])

    def select(self, rows: Tensor) -> None:
        self._states, self._mask = self._states[rows], self._mask[rows]
        self._cache.reorder_cache(rows)


def _encoder_words(encoder: Any) -> Any:
    """Return what embeds the encoder's words, as its first layer sees them."""
    module = encoder.get_input_embeddings()
    outside = getattr(encoder, "embed_scale", 1.0)
    if outside == 1.0 or hasattr(module, "embed_scale"):
        return module
    return _Scaled(module, float(outside))


def _scales_output(config: Any) -> bool:
    """Whether decoder states are divided by √d before the head, as T5 does where it is tied."""
    told = getattr(config, "scale_decoder_outputs", None)
    if told is None:
        told = config.model_type in _SCALED_WHERE_TIED and config.tie_word_embeddings
    return bool(told)


def _mend_umt5(model: Any) -> None:
    """Keep transformers from scaling the states of an untied UMT5.

    Its configuration sets ``tie_word_embeddings`` to true whatever the checkpoint says, and its
    forward pass then divides by √d. The checkpoints have a head of their own, trained without.
    """
    if model.config.model_type not in _SCALED_WHERE_TIED:
        return
    head, words = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    model.config.tie_word_embeddings = head is words or (
        head.device.type != "meta" and head.data_ptr() == words.data_ptr()
    )


def _decoder_start(name: str, model: Any, tokenizer: Any) -> int:
    """Return the decoder's start token as the checkpoint has it.

    mBART's configurations leave it out: there it is the tokenizer's language of the target.

    Raises:
        DataError: it is missing or no token: nothing the model says would mean anything then.
    """
    start = getattr(model.config, "decoder_start_token_id", None)
    size = model.get_input_embeddings().weight.shape[0]
    if start is None:
        start = getattr(tokenizer, "cur_lang_code_id", None)
    if not isinstance(start, int) or not 0 <= start < size:
        raise DataError(
            f"backbone {name}: decoder_start_token_id is {start!r}, but its config.json must name "
            f"a token from 0 to {size - 1}"
        )
    return start


def _prompt_after_input(lengths: Tensor, p: int, s: int) -> Tensor:
    """Return the order [B, S] that turns [prompt; input; padding] into [input; prompt; padding].

    Args:
        lengths: tokens n of every row that stand before the prompt [B].
        p: prompt tokens P.
        s: positions S.
    """
    positions = torch.arange(s, device=lengths.device).expand(len(lengths), s)
    n = lengths[:, None]
    return torch.where(
        positions < n, positions + p, torch.where(positions < n + p, positions - n, positions)
    )


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
