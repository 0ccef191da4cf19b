"""What the rest of the library sees of a frozen language model.

Shapes: R runs, P prompt tokens, d model width, V vocabulary, B rows, L input tokens, T target
tokens, N target tokens of all rows of a batch together.

Everything is computed for a *stack* of prompts [R, P, d]: row b of a batch is read with prompt
``prompts[batch.run[b]]``. A row's numbers depend on its own tokens and prompt only, never on the
padding or on the other rows of its batch (up to rounding), which is what makes packing exact.
(With "append_padded" they depend on `Batch.width` too, and still on nothing else.)
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.activations import NewGELUActivation

from mpt.backbones import tokens
from mpt.backbones.cross_entropy import greedy_choice, token_losses
from mpt.backbones.generation import (
    GREEDY,
    BatchRead,
    Begun,
    Decoding,
    Generation,
    beam_search,
    greedy_search,
)
from mpt.backbones.rows import Batch, Row, RowCache, RowTable
from mpt.errors import UsageError
from mpt.gym.episodes import render

if TYPE_CHECKING:
    from mpt.config import TextConfig
    from mpt.gym.fewshot import Example

__all__ = ["Backbone", "Batch", "Row", "RowTable"]

_DROPOUT_RATES = ("dropout", "activation_dropout", "attention_dropout", "hidden_dropout")
_NOT_IDENTITY = ("_name_or_path", "transformers_version", "architectures", "dtype")


class Backbone(ABC):
    """A frozen language model with its tokenizer; only prompts are ever learned.

    Args:
        name: what the user called it.
        model: the Hugging Face model; it is frozen and put into evaluation mode here.
        tokenizer: its tokenizer.
        position: "prepend" ([prompt; input; padding]), "append" ([input; prompt; padding]) or
            "append_padded" ([input; padding to `Batch.width`; prompt; padding]), for an encoder.
    """

    auto: ClassVar[Any]
    """The Hugging Face class whose `from_pretrained` loads the weights."""

    def __init__(self, name: str, model: Any, tokenizer: Any, position: str):
        self.name = name
        self.position = position
        self._model = model.eval().requires_grad_(False)
        use_fused_gelu(model)
        self._tokenizer = tokenizer
        config = model.config.get_text_config()
        self.end_id = tokens.end_token(name, config, tokenizer)
        self._pad = tokens.padding_token(config, self.end_id, self._words.weight.shape[0])
        self._max_positions: int | None = None
        self._twice = False
        self._rates: list[tuple[nn.Module, str]] | None = None
        self._rows = RowCache()

    @property
    def model(self) -> nn.Module:
        """The frozen model itself."""
        return self._model

    @property
    def _words(self) -> Any:
        """The module that embeds the words beside which the prompt stands."""
        return self._model.get_input_embeddings()

    @property
    def trainable(self) -> bool:
        """Whether this is a copy whose weights are trained (see `trainable_copy`)."""
        return bool(self._words.weight.requires_grad)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return torch.device(self._words.weight.device)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of weights and activations."""
        return torch.as_tensor(self._words.weight).dtype

    @property
    def d_model(self) -> int:
        """Width d of the embeddings and of a prompt row."""
        return int(self._words.weight.shape[1])

    @property
    def vocabulary_size(self) -> int:
        """Tokens V that the output head tells apart."""
        return int(self._model.get_output_embeddings().weight.shape[0])

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over configuration, weights as loaded (dtype included) and tokenizer.

        Two copies of a checkpoint have one digest wherever they lie and however they are sharded.
        """
        weights = sorted(self._model.state_dict().items())
        return digest_of(self._model.config, weights, self._tokenizer)

    def embeddings(self) -> Tensor:
        """Return what the words enter the model as [V, d] in float32, detached.

        A BART with scaled embeddings or a Gemma multiplies the matrix by √d before its first
        layer; a prompt row stands where the product does, so the product is what is returned.
        """
        weight = self._words.weight.detach().float()
        scale = float(getattr(self._words, "embed_scale", 1.0))
        return weight if scale == 1.0 else weight * scale

    # --- text ---------------------------------------------------------------------------------

    def word_ids(self, text: str) -> list[int]:
        """Return the tokens of `text` without any end mark."""
        return tokens.words(self._tokenizer, text)

    def frequent_ids(self, count: int) -> list[int]:
        """Return the `count` lowest ordinary token ids (fewer where the vocabulary is smaller).

        Subword vocabularies are listed by falling frequency, so these are the most frequent
        pieces; special tokens and the unused end of the embedding matrix are left out.
        """
        special = set(self._tokenizer.all_special_ids)
        known = min(len(self._tokenizer), len(self.embeddings()))
        return [token for token in range(known) if token not in special][:count]

    def encode_input(self, text: str, max_tokens: int) -> list[int]:
        """Return the tokens of an input: cut to ``max_tokens - 1`` and then the end mark."""
        return self._ended(self.word_ids(text), max_tokens)

    def encode_target(self, text: str, max_tokens: int) -> list[int]:
        """Return the tokens of a target: cut to ``max_tokens - 1`` and then the end mark."""
        return self._ended(self.word_ids(text), max_tokens)

    def encode_rows(
        self, task_name: str, examples: Sequence[Example], text: TextConfig
    ) -> list[Row]:
        """Tokenise examples of a task as `mpt.gym.episodes.render` writes them.

        With the chat template the input is what a user says and the target is the answer; neither
        has the leading blank then.
        """
        return [
            self._rows.row(
                (task_name, example, text),
                functools.partial(self._encoded, task_name, example, text),
            )
            for example in examples
        ]

    def _encoded(self, task_name: str, example: Example, text: TextConfig) -> Row:
        source, target = render(task_name, example)
        encode_input = self.encode_input
        if text.template == "chat":
            source, target = source.strip(), target.strip()
            encode_input = self.encode_chat
        return (
            encode_input(source, text.max_input),
            self.encode_target(target, text.max_target),
        )

    def encode_chat(self, text: str, max_tokens: int) -> list[int]:
        """Return the tokens of an input in the tokenizer's chat template (see `tokens.chat_ids`).

        Raises:
            UsageError: the model answers no chats, or the template does not fit.
        """
        raise UsageError(
            f'backbone {self.name}: text.template is "chat", but only decoder-only models answer '
            'in a chat template; use "plain"'
        )

    def _ended(self, ids: Sequence[int], max_tokens: int) -> list[int]:
        return [*ids[: max_tokens - 1], self.end_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the tokens before the first end mark, without outer blanks.

        Outer blanks are not the model's: `render` puts one before every target.
        """
        cut = list(ids)
        if self.end_id in cut:
            cut = cut[: cut.index(self.end_id)]
        text = self._tokenizer.decode(
            cut, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.strip()

    def table(self, rows: Sequence[Row]) -> RowTable:
        """Return the rows as a table on the model's device, ready for batches."""
        return RowTable(rows, self._pad, self.device)

    def collate(
        self, rows: Sequence[Row], runs: Sequence[int], widths: Sequence[int] | None = None
    ) -> Batch:
        """Return one batch of all these rows, row i belonging to run ``runs[i]``.

        Row i is padded to ``widths[i]`` where padding matters (see `RowTable.batch`).
        """
        return self.table(rows).batch(range(len(rows)), runs, widths)

    @property
    def shares_prompts(self) -> bool:
        """Whether a pass reads a prompt once for all rows that it stands before."""
        return False

    @property
    def padding_matters(self) -> bool:
        """Whether a row's numbers depend on how far its input is padded (`Batch.width`)."""
        return self.position == "append_padded"

    # --- passes through the model -------------------------------------------------------------

    @abstractmethod
    def target_states(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return the last hidden states [N, d] that predict the target tokens.

        They are listed row by row, in the order of ``batch.target_ids[batch.target_mask]``.
        """

    @abstractmethod
    def read_targets(
        self, prompts: Tensor, batch: Batch, max_new_tokens: int
    ) -> tuple[Tensor, BatchRead | None]:
        """Return the same states, and what outputs of so many tokens can go on from, if anything.

        No gradient is kept.
        """

    @abstractmethod
    def head(self, states: Tensor) -> Tensor:
        """Return the vocabulary logits [N, V] of hidden states [N, d], at least in float32."""

    @abstractmethod
    def start_decoding(self, prompts: Tensor, batch: Batch) -> Decoding:
        """Return the model about to write the outputs of a batch."""

    @abstractmethod
    def resume_decoding(self, begun: Sequence[Begun]) -> Decoding:
        """Return the model about to write what is missing of outputs that `read_targets` began."""

    @property
    @abstractmethod
    def _reader(self) -> Any:
        """The module that reads an input: an encoder, or all of a decoder-only model."""

    @torch.no_grad()
    def input_states(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return the hidden states of the inputs, read without a prompt: [B, L, d] for each layer.

        The first are the embeddings, the last are what the whole reader makes of the inputs (its
        last norm included). Only the places of ``batch.input_mask`` mean anything.
        """
        self._check_positions("input", batch.input_ids.shape[1])
        read = self._reader(
            inputs_embeds=self._words(batch.input_ids),
            attention_mask=batch.input_mask,
            output_hidden_states=True,
        )
        return tuple(read.hidden_states)

    @torch.no_grad()
    def generate_ids(
        self, prompts: Tensor, batch: Batch, max_new_tokens: int, how: Generation = GREEDY
    ) -> list[list[int]]:
        """Return the output tokens of every row, the end mark included where it came."""
        decoding = self.start_decoding(prompts, batch)
        if how.beams > 1:
            return beam_search(decoding, self.head, self.end_id, max_new_tokens, how)
        return greedy_search(
            decoding, self.head, self.end_id, max_new_tokens, how.repetition_penalty
        )

    @torch.no_grad()
    def continue_ids(self, begun: Sequence[Begun], max_new_tokens: int) -> list[list[int]]:
        """Return the whole greedy output of every begun row, as `generate_ids` does."""
        room = max_new_tokens - min(len(row.written) for row in begun)
        new = greedy_search(self.resume_decoding(begun), self.head, self.end_id, room, 1.0)
        pairs = zip(begun, new, strict=True)
        return [[*row.written, *ids][:max_new_tokens] for row, ids in pairs]

    def generate(self, prompts: Tensor, batch: Batch, max_new_tokens: int) -> list[str]:
        """Return the greedy output text of every row (see `decode`)."""
        return [self.decode(ids) for ids in self.generate_ids(prompts, batch, max_new_tokens)]

    def row_losses(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return −log p(target | prompt, input) of every row and its number of target tokens.

        Args:
            prompts: [R, P, d].
            batch: B rows.

        Returns:
            Negative log-likelihood summed over the row's target tokens [B], and tokens [B].
        """
        per_token = token_losses(
            self.head,
            self.target_states(prompts, batch),
            batch.target_ids[batch.target_mask],
            self.vocabulary_size,
            closed_form=not (self._twice or self.trainable),
        )
        row = batch.target_mask.nonzero()[:, 0]
        nll = per_token.new_zeros(len(batch)).index_add(0, row, per_token)
        return nll, batch.target_mask.sum(1)

    def run_losses(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return every run's loss [R]: the mean over the target tokens of its own rows (Eq. 1).

        A run without rows in the batch has the loss 0.
        """
        nll, tokens = self.row_losses(prompts, batch)
        total = nll.new_zeros(prompts.shape[0]).index_add(0, batch.run, nll)
        count = nll.new_zeros(prompts.shape[0]).index_add(0, batch.run, tokens.to(nll.dtype))
        return total / count.clamp(min=1)

    @torch.no_grad()
    def greedy_pass(
        self, prompts: Tensor, batch: Batch, max_new_tokens: int = 0
    ) -> tuple[Tensor, BatchRead | None]:
        """Return `greedy_tokens`, and what `continue_ids` can go on from (None: nothing)."""
        greedy = torch.full_like(batch.target_ids, self._pad)
        states, read = self.read_targets(prompts, batch, max_new_tokens)
        greedy[batch.target_mask] = greedy_choice(self.head, states, self.vocabulary_size)
        return greedy, read

    def greedy_tokens(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return the arg-max tokens [B, T] under teacher forcing (pad id outside the mask).

        Up to and with the first position where a row differs from its target, these are exactly
        the tokens of free greedy generation, which has seen the same history there.
        """
        return self.greedy_pass(prompts, batch)[0]

    def greedy_matches(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return [B] bool: whether free greedy generation would give exactly the row's target.

        One teacher-forced pass decides it, end mark included.
        """
        wrong = (self.greedy_tokens(prompts, batch) != batch.target_ids) & batch.target_mask
        return ~wrong.any(1)

    def fixed(self, prompts: Tensor) -> contextlib.AbstractContextManager[None]:
        """Say that these very prompts [R, P, d] stay as they are inside the block.

        A model may read what depends on them alone once for all passes. Numbers are the same, up
        to rounding.
        """
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def second_order(self) -> Iterator[None]:
        """Attention and loss that can be differentiated twice (the fused kernels cannot)."""
        before, self._twice = self._twice, True
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            self._twice = before

    @contextlib.contextmanager
    def dropout(self, rate: float, seed: int) -> Iterator[None]:
        """Dropout of this rate inside the block, drawn from `seed`; nothing at rate 0.

        The global generators are put back afterwards, so that the block leaks no randomness and
        a trajectory can be resumed at any step.
        """
        if rate == 0:
            yield
            return
        cuda = [self.device] if self.device.type == "cuda" else []
        if self._rates is None:  # a model's modules stay: to look at all of them takes a while
            self._rates = _dropout_rates(self._model)
        before = [getattr(module, name) for module, name in self._rates]
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            self._model.train()
            try:
                for module, name in self._rates:
                    setattr(module, name, 0.0 if name == "layerdrop" else rate)
                yield
            finally:
                self._model.eval()
                for (module, name), old in zip(self._rates, before, strict=True):
                    setattr(module, name, old)

    def trainable_copy(self) -> Backbone:
        """Return this backbone with weights of its own, to be trained, and nothing shared.

        They are float32 at least: a bfloat16 weight would swallow most of an update.
        """
        other = copy.copy(self)
        other.__dict__.pop("digest", None)
        model = copy.deepcopy(self._model)
        if self.dtype != torch.float64:
            model = model.float()
        type(self).__init__(other, self.name, model, self._tokenizer, self.position)
        model.requires_grad_(True)
        return other

    def _check_positions(self, what: str, count: int) -> None:
        """Raise `UsageError` where a model with learned positions has too few of them."""
        if self._max_positions is not None and count > self._max_positions:
            raise UsageError(
                f"{what} are {count} tokens, but backbone {self.name} has {self._max_positions} "
                "positions; shorten the prompt, the inputs or the targets"
            )

    def _wide(self, logits: Tensor) -> Tensor:
        """Return logits at least in float32."""
        return logits if logits.dtype == torch.float64 else logits.float()

    def check_frozen(self) -> None:
        """Raise `UsageError` if any weight of the model could be trained."""
        loose = [name for name, weight in self._model.named_parameters() if weight.requires_grad]
        if loose:
            raise UsageError(f"backbone {self.name}: weight {loose[0]} is not frozen")


def _dropout_rates(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return where the rate of every dropout in `model` is: a module, and its attribute.

    Hugging Face attention and BART layers keep rates in float attributes, all else in
    `nn.Dropout` modules. Whole layers are never dropped (`layerdrop`). A model without any
    dropout of its own but that of attention (Llama, Qwen) has it there.
    """
    return [
        (module, name)
        for module in model.modules()
        for name in (("p",) if isinstance(module, nn.Dropout) else _DROPOUT_RATES) + ("layerdrop",)
        if isinstance(getattr(module, name, None), float)
    ]


def use_fused_gelu(model: nn.Module) -> None:
    """Compute the same tanh-GELU in one kernel: a third of its time, an eighth of a step's."""
    for module in model.modules():
        if isinstance(getattr(module, "act", None), NewGELUActivation):
            module.act = nn.GELU(approximate="tanh")


def digest_of(config: Any, weights: Iterable[tuple[str, Tensor]], tokenizer: Any) -> str:
    """Return the digest of a model.

    Args:
        config: the model's configuration; where it lies and who wrote it do not count.
        weights: (name, weight) of its whole state, one after the other in the order of names;
            none is kept.
        tokenizer: its tokenizer.
    """
    sha = hashlib.sha256()
    identity = {k: v for k, v in config.to_dict().items() if k not in _NOT_IDENTITY}
    sha.update(json.dumps(identity, sort_keys=True, default=str).encode())
    for name, weight in weights:
        sha.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        sha.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    sha.update(tokens.identity(tokenizer))
    return sha.hexdigest()
