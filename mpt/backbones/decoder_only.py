"""Causal models (GPT-2, Llama, Qwen, Gemma …): prompt, input and target stand in one line of text.

Shapes: as in `mpt.backbones.base`; S positions, n input tokens of a row.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from mpt.backbones import tokens
from mpt.backbones.base import Backbone
from mpt.backbones.generation import BatchRead, Begun, Decoding
from mpt.backbones.input_cache import InputCache, padded
from mpt.backbones.rows import Batch
from mpt.errors import UsageError

_CHANGING_ROPE = ("longrope", "dynamic")
"""Rotary positions that are turned otherwise once a line is longer than the model was made for."""
_POSITIONS = ("max_position_embeddings", "max_seq_len")
"""Settings that say how long a line may be."""


class DecoderOnly(Backbone):
    """[prompt; input; target] or [input; prompt; target]; the loss is on the target only.

    An input ends with a line break, so that the model can tell it from the target. Training reads
    rows padded on the right: attention is causal, so no token sees padding, and positions count
    from the left. Generation pads on the left and counts positions from each row's first token.

    With an appended prompt the input's keys and values do not depend on the prompt: they come from
    `InputCache`, in training and in evaluation, and only prompt and target go through the model.
    With a prepended one it is the prompt that is read once: for all rows of a pass that it stands
    before, and in a block of `fixed`, as while it is evaluated, for all passes. Passes with
    dropout, or of a copy whose weights are trained, read the whole row.
    """

    auto = AutoModelForCausalLM

    def __init__(self, name: str, model: Any, tokenizer: Any, position: str):
        super().__init__(name, model, tokenizer, position)
        config = model.config.get_text_config()
        self._inner = inner_model(name, model)
        self._takes_positions = "position_ids" in inspect.signature(self._inner.forward).parameters
        self._factor = _logit_factor(model)
        self._cap = getattr(config, "final_logit_softcapping", None)
        limits = (getattr(config, key, None) for key in _POSITIONS)
        self._max_positions = next((limit for limit in limits if limit is not None), None)
        self._window = _window(config)
        self._same_until = _same_rope_until(config)
        self._begin, _ = tokens.marks(tokenizer)
        self._input_end = self.word_ids("\n") or [self.end_id]
        self.input_cache: InputCache | None = InputCache.for_device(self.device)
        self._fixed: Tensor | None = None

    def encode_input(self, text: str, max_tokens: int) -> list[int]:
        """Return the tokens of an input: the tokenizer's begin mark, words, a line break."""
        room = max(max_tokens - len(self._begin) - len(self._input_end), 0)
        return [*self._begin, *self.word_ids(text)[:room], *self._input_end]

    def trainable_copy(self) -> Backbone:
        """Return this backbone with weights of its own, to be trained (see `Backbone`).

        What the self-check has found of it holds for the copy.
        """
        other = super().trainable_copy()
        assert isinstance(other, DecoderOnly)
        if self.input_cache is None:
            other.input_cache = None
        return other

    def encode_chat(self, text: str, max_tokens: int) -> list[int]:
        """Return the tokens of an input in the tokenizer's chat template."""
        return tokens.chat_ids(self.name, self._tokenizer, text, max_tokens)

    @property
    def shares_prompts(self) -> bool:
        """Whether a pass reads a prompt once for all rows that it stands before."""
        return self.position == "prepend" and self.input_cache is not None

    @property
    def _reader(self) -> Any:
        return self._inner

    def head(self, states: Tensor) -> Tensor:
        """Return the vocabulary logits [N, V] of hidden states [N, d]."""
        logits = self._wide(self._model.get_output_embeddings()(states))
        if self._factor != 1.0:
            logits = logits * self._factor
        if self._cap is not None:  # Gemma 2: −cap … cap
            logits = torch.tanh(logits / self._cap) * self._cap
        return logits

    def target_states(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return the states [N, d] that predict the target tokens."""
        return self._targets_read(prompts, batch, keep=False)[0]

    @torch.no_grad()
    def read_targets(
        self, prompts: Tensor, batch: Batch, max_new_tokens: int
    ) -> tuple[Tensor, BatchRead | None]:
        """Return the states [N, d], and keys and values where generation can go on from them.

        Rows go on behind gaps, so positions have to be told, and no window may count places. All
        rows take the steps of the one that has most to write, so there have to be positions.
        """
        places = prompts.shape[1] + batch.input_ids.shape[1] + batch.target_ids.shape[1]
        most = places + max_new_tokens
        keep = (
            max_new_tokens > 0
            and self._takes_positions
            and self._window is None
            and self.input_cache is not None
            and self._same_rope(most)
            and (self._max_positions is None or most <= self._max_positions)
        )
        return self._targets_read(prompts, batch, keep)

    def _targets_read(
        self, prompts: Tensor, batch: Batch, keep: bool
    ) -> tuple[Tensor, _Read | None]:
        """Return the states [N, d] that predict the targets and, if told, the batch as read."""
        p, t = prompts.shape[1], batch.target_ids.shape[1]
        length = p + batch.input_ids.shape[1] + t - 1
        self._check_positions("prompt, input and target", length)
        inputs = batch.input_mask.sum(1)
        if self._may_cache(prompts, length):
            cache, states = self._states_after_input(prompts, batch)
            read = _Read(cache, inputs, batch.input_ids.shape[1], p) if keep else None
            return states[batch.target_mask], read
        first = inputs - 1  # the place before the target, in what is read
        cache = self._prompts_of_rows(prompts, batch, length)
        if cache is not None:
            none = prompts.detach()[:, :0]  # words have no gradient, so no pass back to them
            embedded, _ = self._joined(none, batch, batch.target_ids, batch.target_mask)
            states = self._transformer(
                embedded[:, :-1],
                past_key_values=cache,
                position_ids=p + torch.arange(embedded.shape[1] - 1, device=first.device)[None],
                use_cache=True,
            )
        else:
            embedded, _ = self._joined(prompts, batch, batch.target_ids, batch.target_mask)
            cache = DynamicCache() if keep else None
            states = self._transformer(
                embedded[:, :-1], past_key_values=cache, use_cache=cache is not None
            )
            first = first + p
        positions = first[:, None] + torch.arange(t, device=first.device)
        positions = positions.clamp(max=states.shape[1] - 1)  # past a row's target only
        predicting = states.gather(1, positions[:, :, None].expand(-1, -1, states.shape[2]))
        read = _Read(cache, p + inputs) if keep else None
        return predicting[batch.target_mask], read

    def start_decoding(self, prompts: Tensor, batch: Batch) -> Decoding:
        """Return the model before it reads a line, or what of the line is not in the cache.

        What is not cached is padded on the left.
        """
        if self._may_cache(prompts, None):
            cache, mask = self._inputs_read(batch)
            own = self._own(prompts, batch)
            seen = torch.ones(own.shape[:2], dtype=torch.bool, device=own.device)
            return _Decoding(self, own, torch.cat([mask, seen], 1), cache)
        none = batch.target_ids[:, :0]
        if self._prompt_is_kept(prompts, None) and self._may_have_gaps(batch):
            embedded, mask = self._joined(prompts[:, :0], batch, none, none.bool(), pad_left=True)
            seen = mask.new_ones(len(batch), prompts.shape[1])
            cache = self._prompts_read(prompts, batch)
            return _Decoding(self, embedded, torch.cat([seen, mask], 1), cache)
        embedded, mask = self._joined(prompts, batch, none, none.bool(), pad_left=True)
        return _Decoding(self, embedded, mask, DynamicCache())

    def resume_decoding(self, begun: Sequence[Begun]) -> Decoding:
        """Return the model before it reads the last token that each row has written."""
        mask = pad_sequence([row.mask for row in begun], batch_first=True)
        cache = _filled(padded([row.memory for row in begun], mask.shape[1]))
        last = torch.tensor([row.written[-1:] for row in begun], device=self.device)
        seen = mask.new_ones(len(begun), 1)
        return _Decoding(self, self._words(last), torch.cat([mask, seen], 1), cache)

    @contextlib.contextmanager
    def fixed(self, prompts: Tensor) -> Iterator[None]:
        """Inside the block these prompts [R, P, d] stay: each that stands first is read once."""
        before, self._fixed = self._fixed, prompts
        self._forget_prompts()
        try:
            yield
        finally:
            self._fixed = before
            self._forget_prompts()

    def _prompts_of_rows(self, prompts: Tensor, batch: Batch, length: int) -> Any:
        """Return the model's memory of each row's prompt, read once; None: with the whole rows.

        `length` are the places of the whole batch.
        """
        if self._prompt_is_kept(prompts, length):
            return self._prompts_read(prompts, batch)
        if not self._prompt_may_be_apart(prompts, length):
            return None
        runs, of_row = batch.run.unique(return_inverse=True)
        if len(runs) == len(batch):
            return None
        cache: Any = DynamicCache()
        self._transformer(prompts[runs].to(self.dtype), past_key_values=cache, use_cache=True)
        return _filled((layer.keys[of_row], layer.values[of_row]) for layer in cache.layers)

    def _forget_prompts(self) -> None:
        if self.position == "prepend" and self.input_cache is not None:
            self.input_cache.clear()

    def _prompt_may_be_apart(self, prompts: Tensor, length: int | None) -> bool:
        """Whether the prompts' keys and values can be computed before the rest of their rows.

        Rows that are padded on the right have no gap behind their prompt: places are positions,
        and windows and ALiBi count them as they do without the cache.

        Args:
            prompts: [R, P, d].
            length: places of the whole batch; None where they are not known beforehand.
        """
        return (
            self.shares_prompts
            and prompts.shape[1] > 0
            and self._same_rope(length)
            and not self.trainable
            and not self._model.training
        )

    def _prompt_is_kept(self, prompts: Tensor, length: int | None) -> bool:
        """Whether the prompts' keys and values are the same in every pass and need no gradient."""
        graph = torch.is_grad_enabled() and prompts.requires_grad
        return prompts is self._fixed and not graph and self._prompt_may_be_apart(prompts, length)

    def _same_rope(self, length: int | None) -> bool:
        """Whether lines of this length, None: of any, turn positions as short ones do."""
        return self._same_until is None or (length is not None and length <= self._same_until)

    def _may_have_gaps(self, batch: Batch) -> bool:
        """Whether padding between prompt and input changes nothing, or there is none.

        It takes places of a window, and models without positions (ALiBi) may count it.
        """
        told = self._takes_positions and self._window is None
        return told or bool(batch.input_mask.all())

    def _may_cache(self, prompts: Tensor, length: int | None) -> bool:
        """Whether the input's keys and values are the same in every pass.

        A row shorter than the batch's longest input has a gap before its prompt. Positions can be
        told to most models; one that takes none (ALiBi) may count places, so it never caches.
        Places are also what is counted in an attention window, so nothing may reach past one.

        Args:
            prompts: [R, P, d].
            length: places of the whole batch; None where they are not known beforehand.
        """
        if self._window is not None and (length is None or length > self._window):
            return False
        return (
            self.position == "append"
            and self._takes_positions
            and self._same_rope(length)
            and self.input_cache is not None
            and prompts.shape[1] > 0
            and not self.trainable
            and not self._model.training
        )

    def _transformer(self, embedded: Tensor, **options: Any) -> Tensor:
        if not self._takes_positions:
            options.pop("position_ids", None)  # ALiBi: places are told from the mask
        states = self._inner(inputs_embeds=embedded, **options).last_hidden_state
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
        pad_left: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return each row without gaps, padded on one side: embeddings [B, S, d], mask [B, S]."""
        own = self._own(prompts, batch)
        joined = torch.cat([own, self._words(batch.input_ids), self._words(targets)], 1)
        soft = torch.ones(own.shape[:2], dtype=torch.bool, device=own.device)
        # Every column gets the rank of its part; a stable sort then closes the gaps.
        ranks = (1, 2) if self.position == "prepend" else (2, 1)
        padding = 0 if pad_left else 4
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

    def _states_after_input(self, prompts: Tensor, batch: Batch) -> tuple[Any, Tensor]:
        """Return the model's memory of input, prompt and target, and the states [B, T, d]."""
        cache, mask = self._inputs_read(batch)
        n = batch.input_mask.sum(1)
        own = self._own(prompts, batch)
        embedded = torch.cat([own, self._words(batch.target_ids[:, :-1])], 1)
        seen = torch.ones(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
        states = self._transformer(
            embedded,
            past_key_values=cache,
            attention_mask=torch.cat([mask, seen], 1),
            position_ids=n[:, None] + torch.arange(embedded.shape[1], device=n.device),
            use_cache=True,
        )
        return cache, states[:, own.shape[1] - 1 :]

    def _inputs_read(self, batch: Batch) -> tuple[Any, Tensor]:
        """Return the model's memory of the batch's inputs, and its mask [B, L]."""
        assert self.input_cache is not None
        keys_values = self.input_cache.batch(batch, self._input_keys_values)
        return _filled(keys_values), batch.input_mask

    def _prompts_read(self, prompts: Tensor, batch: Batch) -> Any:
        """Return the model's memory of each row's prompt."""
        assert self.input_cache is not None
        return _filled(self.input_cache.prompts(prompts, batch.run.tolist(), self._keys_values))

    def _input_keys_values(self, ids: Tensor) -> Tensor:
        """Return keys and values [layers, 2, heads, n, d/heads] of one input [n]."""
        return self._keys_values(self._words(ids))

    @torch.no_grad()
    def _keys_values(self, embedded: Tensor) -> Tensor:
        """Return keys and values [layers, 2, heads, n, d/heads] of a line [n, d] read alone."""
        cache: Any = DynamicCache()
        line = embedded[None].to(self.dtype)
        self._transformer(line, past_key_values=cache, use_cache=True)
        return torch.stack([torch.cat([layer.keys, layer.values]) for layer in cache.layers])


class _Read(BatchRead):
    """Keys and values of rows that were read with their targets.

    Args:
        cache: of the whole batch.
        before: of each row the places [B] from the first on that are its own.
        resumed: place where it goes on, if not right behind those.
        prompt: tokens P that it has there before its target.
    """

    def __init__(self, cache: Any, before: Tensor, resumed: int | None = None, prompt: int = 0):
        self._layers, self._before = cache.layers, before.tolist()
        self._resumed, self._prompt = resumed, prompt

    def row(self, index: int, written: list[int]) -> Begun:
        before = self._before[index]
        behind = before if self._resumed is None else self._resumed
        end = behind + self._prompt + len(written) - 1
        memory = torch.stack(
            [
                torch.stack([_without(states[index], before, behind, end) for states in pair])
                for pair in ((layer.keys, layer.values) for layer in self._layers)
            ]
        )
        return Begun(written, memory, memory.new_ones(memory.shape[3], dtype=torch.bool))


def _without(states: Tensor, before: int, behind: int, end: int) -> Tensor:
    """Return the places up to `before`, and from `behind` to `end`, of states [H, S, h]."""
    if before == behind:
        return states[:, :end]
    return torch.cat([states[:, :before], states[:, behind:end]], 1)


def _filled(keys_values: Iterable[tuple[Tensor, Tensor]]) -> Any:
    """Return a model's memory that holds these keys and values [B, H, S, h] of every layer."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(keys_values):
        cache.update(keys, values, layer)
    return cache


class _Decoding(Decoding):
    """Rows with the keys and values of all before.

    Args:
        backbone: the model.
        embedded: what it has yet to read [B, S', d].
        mask: [B, S], what is in the cache and what is yet to be read.
        cache: keys and values of the first S − S' places.
    """

    def __init__(self, backbone: DecoderOnly, embedded: Tensor, mask: Tensor, cache: Any):
        self._backbone, self._embedded, self._mask, self._cache = backbone, embedded, mask, cache

    def next_states(self, tokens: Tensor | None) -> Tensor:
        if tokens is None:
            embedded = self._embedded
            positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -embedded.shape[1] :]
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


def inner_model(name: str, model: Any) -> Any:
    """Return the part of a causal model that makes hidden states of embeddings.

    Raises:
        UsageError: there is no such part, or no output head after it.
    """
    inner = model.base_model
    if inner is model or model.get_output_embeddings() is None:
        raise UsageError(
            f"backbone {name}: {type(model).__name__} has no inner model with an output head "
            "after it; take a causal or sequence-to-sequence language model"
        )
    return inner


def _window(config: Any) -> int | None:
    """Return how many places before it a token sees; None: all.

    Configurations call it `sliding_window`, `attention_chunk_size`, `window_size` and otherwise.
    """
    sizes = [
        size
        for name, size in config.to_dict().items()
        if ("window" in name or name == "attention_chunk_size") and "layer" not in name
    ]
    return min((s for s in sizes if isinstance(s, int) and not isinstance(s, bool)), default=None)


def _same_rope_until(config: Any) -> int | None:
    """Return the length of a line from which on rotary positions are turned otherwise."""
    told = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [told, *(one for one in told.values() if isinstance(one, dict))]
    if not any(one.get("rope_type") in _CHANGING_ROPE for one in kinds):
        return None
    lengths = [one.get("original_max_position_embeddings") for one in kinds]
    lengths += [getattr(config, "original_max_position_embeddings", None)]
    lengths += [getattr(config, "max_position_embeddings", None)]
    return min((length for length in lengths if isinstance(length, int)), default=0)


def _logit_factor(model: Any) -> float:
    """Return what the logits of some architectures are multiplied by."""
    config, kind = model.config.get_text_config(), model.config.model_type
    if kind.startswith("cohere"):
        return float(config.logit_scale)
    if kind.startswith("granite"):
        return 1 / float(config.logits_scaling)
    if kind.startswith("hyperclovax"):
        return float(config.logits_scaling)
    return 1.0
