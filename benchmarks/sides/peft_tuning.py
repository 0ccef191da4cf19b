"""Prompt tuning as its users write it, one run at a time: the reference of the benchmarks.

A model as Hugging Face loads it, wrapped by PEFT's prompt tuning, its own loss, transformers'
Adafactor and the model's own `generate`; every batch is padded by itself. Nothing here is ours but
the tokens that it is given.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from peft import PromptTuningConfig, get_peft_model
from torch import Tensor
from transformers.optimization import Adafactor

Row = tuple[list[int], list[int]]
"""Token ids of (input, target), end marks included."""
IGNORED = -100
"""Label that Hugging Face's losses leave out."""
ADAFACTOR = {
    "scale_parameter": False,
    "relative_step": False,
    "warmup_init": False,
    "weight_decay": 1e-5,
}


class PeftTuner:
    """A frozen model with a soft prompt in front of its inputs, and the optimiser of the prompt.

    Args:
        model: a Hugging Face model; PEFT freezes it.
        length: P, tokens of the prompt.
        pad: id that fills the padding.
        left_padded: generate from the inputs of a decoder-only model as tutorials do, whatever
            their lengths: padded on the left. The model then reads the padding as places, so that
            its outputs are not always those of an input by itself.
    """

    def __init__(self, model: Any, length: int, pad: int, *, left_padded: bool = False):
        self._pad, self._left_padded = pad, left_padded
        self._seq2seq = bool(model.config.is_encoder_decoder)
        # PEFT's default for an encoder-decoder gives the decoder a prompt of its own.
        config = PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM" if self._seq2seq else "CAUSAL_LM",
            num_virtual_tokens=length,
            num_transformer_submodules=1,
        )
        with warnings.catch_warnings():  # PEFT reads a name that transformers has renamed
            warnings.simplefilter("ignore", FutureWarning)
            self.model: Any = get_peft_model(model, config).eval()
        encoder: Any = self.model.prompt_encoder
        self.prompt: torch.nn.Parameter = encoder["default"].embedding.weight
        if model.dtype == torch.float64:
            self.prompt.data = self.prompt.data.double()
        self.optimiser: Any = None

    @torch.no_grad()
    def start(self, prompt: Tensor, lr: float) -> None:
        """Start a run from a prompt [P, d], which is copied, at this learning rate."""
        self.prompt.data.copy_(prompt)
        self.optimiser = Adafactor([self.prompt], lr=lr, **ADAFACTOR)

    def step(self, rows: Sequence[Row]) -> float:
        """Take one step on these rows; return their mean loss a target token before it."""
        loss = self.loss(rows)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def loss(self, rows: Sequence[Row], model: Any = None) -> Tensor:
        """Return the mean loss a target token (of a patched copy of the model, where given)."""
        call = self.model if model is None else model
        return torch.as_tensor(call(**self._batch(rows)).loss)

    def _batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        if self._seq2seq:
            sources, labels = [source for source, _ in rows], [target for _, target in rows]
        else:  # one line of text; the input has no loss
            sources = [source + target for source, target in rows]
            labels = [[IGNORED] * len(source) + target for source, target in rows]
        return {**self._inputs(sources), "labels": self._padded(labels, IGNORED)}

    @torch.no_grad()
    def generate(
        self, sources: Sequence[list[int]], max_new_tokens: int, batch_size: int
    ) -> list[list[int]]:
        """Return the greedy output of each input, start token excluded."""
        by_source: list[list[int]] = [[] for _ in sources]
        for places in self._batches(sources, batch_size):
            with warnings.catch_warnings():  # PEFT warns that it ignores the places of tokens
                warnings.simplefilter("ignore", UserWarning)
                outputs = self.model.generate(
                    **self._inputs(
                        [sources[index] for index in places], on_left=self._left_padded
                    ),
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    num_beams=1,
                )
            # First comes an encoder-decoder's start token, or a decoder-only model's padded input.
            first = 1 if self._seq2seq else max(len(sources[index]) for index in places)
            for index, ids in zip(places, outputs.tolist(), strict=True):
                by_source[index] = ids[first:]
        return by_source

    def _batches(self, sources: Sequence[list[int]], batch_size: int) -> list[list[int]]:
        """Return which inputs are generated together.

        Padding stands between prompt and output of a decoder-only model, and PEFT counts it as
        places: there only inputs of one length go together, if padding on the left is not wanted.
        """
        together = self._seq2seq or self._left_padded
        groups: dict[int, list[int]] = {}
        for index, source in enumerate(sources):
            groups.setdefault(0 if together else len(source), []).append(index)
        return [
            group[first : first + batch_size]
            for group in groups.values()
            for first in range(0, len(group), batch_size)
        ]

    def _inputs(self, sources: Sequence[list[int]], *, on_left: bool = False) -> dict[str, Tensor]:
        return {
            "input_ids": self._padded(sources, self._pad, on_left=on_left),
            "attention_mask": self._padded(
                [[1] * len(source) for source in sources], 0, on_left=on_left
            ),
        }

    def _padded(
        self, sequences: Sequence[list[int]], fill: int, *, on_left: bool = False
    ) -> Tensor:
        longest = max(map(len, sequences))
        fills = [[fill] * (longest - len(ids)) for ids in sequences]
        pairs = zip(sequences, fills, strict=True)
        rows = [other + ids if on_left else ids + other for ids, other in pairs]
        return torch.tensor(rows, device=self.model.device)
