"""Prompt tuning as it is usually written, one run at a time: the reference of the benchmarks.

A Hugging Face model as it is loaded, its own loss, its own Adafactor and its own `generate`; every
batch is padded by itself. Nothing here uses the packs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.optimization import Adafactor

from mpt.backbones import Row
from mpt.seeds import numpy_generator

IGNORED = -100
"""Label that Hugging Face's losses leave out."""


class PlainRun:
    """One run.

    Args:
        model: Hugging Face model, its weights frozen.
        prompt: where the run starts [P, d]; it is copied.
        lr: Adafactor learning rate.
        pad: id that fills the padding.
    """

    def __init__(self, model: Any, prompt: Tensor, lr: float, pad: int):
        self._model, self._pad = model, pad
        wide = torch.float64 if model.dtype == torch.float64 else torch.float32
        self.prompt = torch.nn.Parameter(prompt.to(model.device, wide, copy=True))
        settings: dict[str, Any] = {
            "scale_parameter": False,
            "relative_step": False,
            "warmup_init": False,
            "weight_decay": 1e-5,
        }
        self._optimiser = Adafactor([self.prompt], lr=lr, **settings)

    def step(self, rows: Sequence[Row]) -> float:
        """Take one step on these rows; return their mean loss a target token before it."""
        loss = self.loss(rows)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())

    def loss(self, rows: Sequence[Row]) -> Tensor:
        """Return the mean loss a target token."""
        if self._model.config.is_encoder_decoder:
            sources, labels = [row[0] for row in rows], [row[1] for row in rows]
        else:  # one line of text; prompt and input have no loss
            before = [IGNORED] * len(self.prompt)
            sources = [source + target for source, target in rows]
            labels = [before + [IGNORED] * len(source) + target for source, target in rows]
        embedded, mask = self._read(sources)
        found = self._padded(labels, IGNORED)
        return torch.as_tensor(
            self._model(inputs_embeds=embedded, attention_mask=mask, labels=found).loss
        )

    @torch.no_grad()
    def generate(self, sources: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Return the greedy output of an encoder-decoder for each input, start token excluded."""
        embedded, mask = self._read(sources)
        outputs = self._model.generate(
            inputs_embeds=embedded,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
        )
        return [row[1:] for row in outputs.tolist()]

    def _read(self, sources: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Return [prompt; input; padding] as embeddings [B, P + L, d], and its mask."""
        words = self._model.get_input_embeddings()(self._padded(sources, self._pad))
        soft = self.prompt.to(words.dtype).expand(len(sources), -1, -1)
        mask = self._padded([[1] * (len(self.prompt) + len(source)) for source in sources], 0)
        return torch.cat([soft, words], 1), mask

    def _padded(self, sequences: Sequence[list[int]], fill: int) -> Tensor:
        longest = max(map(len, sequences))
        rows = [ids + [fill] * (longest - len(ids)) for ids in sequences]
        return torch.tensor(rows, device=self._model.device)


def batch_rows(
    rows: Sequence[Row], batch_size: int, step: int, root: int, task: str, seed: int
) -> list[Row]:
    """Return the train rows of a step (from 1): shuffled epochs, the last batch as it comes.

    The generator is that of every downstream run of the study, so that numbers can be compared.
    """
    epoch, place = divmod(step - 1, math.ceil(len(rows) / batch_size))
    order = numpy_generator(root, "order", task, seed, epoch).permutation(len(rows)).tolist()
    return [rows[n] for n in order[place * batch_size : (place + 1) * batch_size]]


def texts(
    run: PlainRun,
    rows: Sequence[Row],
    batch_size: int,
    max_new_tokens: int,
    decode: Callable[[Sequence[int]], str],
) -> list[str]:
    """Return the generated text of every row, in batches in the order of the file."""
    found: list[str] = []
    for first in range(0, len(rows), batch_size):
        part = [row[0] for row in rows[first : first + batch_size]]
        found += [decode(ids) for ids in run.generate(part, max_new_tokens)]
    return found
