"""What the rest of the library sees of a frozen language model.

Shapes: R runs, P prompt tokens, d model width, V vocabulary, B rows, L input tokens, T target
tokens, N target tokens of all rows of a batch together.

Everything is computed for a *stack* of prompts [R, P, d]: row b of a batch is read with prompt
``prompts[batch.run[b]]``. A row's numbers depend on its own tokens and prompt only, never on the
padding or on the other rows of its batch (up to rounding), which is what makes packing exact.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from mpt.backbones.rows import Batch, Row, RowTable
from mpt.errors import UsageError
from mpt.gym.episodes import render

if TYPE_CHECKING:
    from mpt.config import TextConfig
    from mpt.gym.fewshot import Example

__all__ = ["Backbone", "Batch", "Row", "RowTable"]

_NOT_IDENTITY = ("_name_or_path", "transformers_version", "architectures", "dtype")


class Backbone(ABC):
    """A frozen language model with its tokenizer; only prompts are ever learned.

    Args:
        name: what the user called it.
        model: the Hugging Face model; it is frozen and put into evaluation mode here.
        tokenizer: its tokenizer.
        position: "prepend" ([prompt; input; padding]) or "append" ([input; prompt; padding]).
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, position: str):
        self.name = name
        self.position = position
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._pad = int(model.config.pad_token_id)
        self.end_id = int(model.config.eos_token_id)

    @property
    def model(self) -> nn.Module:
        """The frozen model itself."""
        return self._model

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self._model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of weights and activations."""
        return self._model.get_input_embeddings().weight.dtype

    @property
    def d_model(self) -> int:
        """Width d of the embeddings and of a prompt row."""
        return int(self._model.get_input_embeddings().weight.shape[1])

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over configuration, weights as loaded (dtype included) and tokenizer.

        Two copies of a checkpoint have one digest wherever they lie and however they are sharded.
        """
        sha = hashlib.sha256()
        config = self._model.config.to_dict()
        identity = {key: value for key, value in config.items() if key not in _NOT_IDENTITY}
        sha.update(json.dumps(identity, sort_keys=True, default=str).encode())
        for key, tensor in sorted(self._model.state_dict().items()):
            sha.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        sha.update(self._tokenizer.backend_tokenizer.to_str().encode())
        return sha.hexdigest()

    def embeddings(self) -> Tensor:
        """Return the input embeddings [V, d] in float32, detached (a copy unless float32)."""
        return self._model.get_input_embeddings().weight.detach().float()

    # --- text ---------------------------------------------------------------------------------

    def word_ids(self, text: str) -> list[int]:
        """Return the tokens of `text` without any end mark."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def frequent_ids(self, count: int) -> list[int]:
        """Return the `count` lowest ordinary token ids (fewer where the vocabulary is smaller).

        Subword vocabularies are listed by falling frequency, so these are the most frequent
        pieces; special tokens and the unused end of the embedding matrix are left out.
        """
        special = set(self._tokenizer.all_special_ids)
        known = min(len(self._tokenizer), self.embeddings().shape[0])
        return [token for token in range(known) if token not in special][:count]

    def encode_input(self, text: str, max_tokens: int) -> list[int]:
        """Return the tokens of an input: cut to ``max_tokens - 1`` and then the end mark."""
        return [*self.word_ids(text)[: max_tokens - 1], self.end_id]

    def encode_target(self, text: str, max_tokens: int) -> list[int]:
        """Return the tokens of a target: cut to ``max_tokens - 1`` and then the end mark."""
        return [*self.word_ids(text)[: max_tokens - 1], self.end_id]

    def encode_rows(
        self, task_name: str, examples: Sequence[Example], text: TextConfig
    ) -> list[Row]:
        """Tokenise examples of a task as `mpt.gym.episodes.render` writes them."""
        rows = []
        for example in examples:
            source, target = render(task_name, example)
            rows.append(
                (
                    self.encode_input(source, text.max_input),
                    self.encode_target(target, text.max_target),
                )
            )
        return rows

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

    def collate(self, rows: Sequence[Row], runs: Sequence[int]) -> Batch:
        """Return one batch of all these rows, row i belonging to run ``runs[i]``."""
        return self.table(rows).batch(range(len(rows)), runs)

    # --- passes through the model -------------------------------------------------------------

    @abstractmethod
    def target_states(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return the last hidden states [N, d] that predict the target tokens.

        They are listed row by row, in the order of ``batch.target_ids[batch.target_mask]``.
        """

    @abstractmethod
    def head(self, states: Tensor) -> Tensor:
        """Return the vocabulary logits [N, V] of hidden states [N, d], at least in float32."""

    @abstractmethod
    def generate_ids(self, prompts: Tensor, batch: Batch, max_new_tokens: int) -> list[list[int]]:
        """Return the greedy output tokens of every row, the end mark included where it came."""

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
        logits = self.head(self.target_states(prompts, batch))
        per_token = functional.cross_entropy(
            logits, batch.target_ids[batch.target_mask], reduction="none"
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
    def greedy_tokens(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return the arg-max tokens [B, T] under teacher forcing (pad id outside the mask).

        Up to and with the first position where a row differs from its target, these are exactly
        the tokens of free greedy generation, which has seen the same history there.
        """
        greedy = torch.full_like(batch.target_ids, self._pad)
        greedy[batch.target_mask] = self.head(self.target_states(prompts, batch)).argmax(-1)
        return greedy

    def greedy_matches(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Return [B] bool: whether free greedy generation would give exactly the row's target.

        One teacher-forced pass decides it, end mark included.
        """
        wrong = (self.greedy_tokens(prompts, batch) != batch.target_ids) & batch.target_mask
        return ~wrong.any(1)

    @contextlib.contextmanager
    def second_order(self) -> Iterator[None]:
        """Attention that can be differentiated twice (the fused kernels cannot)."""
        with sdpa_kernel(SDPBackend.MATH):
            yield

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
        changed = _set_dropout(self._model, rate)
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            self._model.train()
            try:
                yield
            finally:
                self._model.eval()
                for module, name, old in changed:
                    setattr(module, name, old)

    def check_frozen(self) -> None:
        """Raise `UsageError` if any weight of the model could be trained."""
        loose = [name for name, weight in self._model.named_parameters() if weight.requires_grad]
        if loose:
            raise UsageError(f"backbone {self.name}: weight {loose[0]} is not frozen")


def _set_dropout(model: nn.Module, rate: float) -> list[tuple[nn.Module, str, Any]]:
    """Set the rate of every dropout in `model`; return what was changed, with the old values.

    Hugging Face attention keeps its rate in a float attribute, all else in `nn.Dropout` modules.
    """
    changed: list[tuple[nn.Module, str, Any]] = []
    for module in model.modules():
        name = "p" if isinstance(module, nn.Dropout) else "dropout"
        if isinstance(getattr(module, name, None), float):
            changed.append((module, name, getattr(module, name)))
            setattr(module, name, rate)
    return changed
