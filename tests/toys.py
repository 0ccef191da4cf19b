"""Toy models and tasks that tests share: small enough for milliseconds, whole enough to learn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from mpt.backbones.load import _quiet
from mpt.gym.fewshot import Example, FewShotTask


def save_toy_t5(
    path: Path, *, layers: int = 1, width: int = 16, seed: int = 0, spread: float = 1.0
) -> Path:
    """Save a random untied T5 with a byte-level tokenizer (no merges), as a checkpoint."""
    tokenizer = _byte_tokenizer()
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 5,  # like real T5s: rows that no token uses
        "d_model": width,
        "d_kv": 8,
        "d_ff": 2 * width,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
    }
    config = T5Config(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
        head = torch.randn(config.vocab_size, width) * spread * width**-0.5
        model.lm_head.weight = torch.nn.Parameter(head)
    with _quiet():
        model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    vocabulary |= {letter: 3 + place for place, letter in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def toy_task(
    name: str = "toy",
    seed: int = 13,
    *,
    labels: tuple[str, ...] = ("x", "y"),
    metric: str = "ACC",
    shots: int = 4,
    test: int = 6,
) -> FewShotTask:
    """Return a task whose answer is told by the input's first letter; inputs vary in length."""
    generator = np.random.default_rng([seed, *name.encode()])

    def example(row: int) -> Example:
        label = row % len(labels)
        tail = "".join(generator.choice(list("abc "), size=int(generator.integers(1, 9))))
        return Example("pqrstuv"[label] + tail, (labels[label],))

    splits = [
        tuple(example(row) for row in range(rows))
        for rows in (shots * len(labels), shots * len(labels), test)
    ]
    digest = hashlib.sha256(repr((name, seed, splits)).encode()).hexdigest()
    return FewShotTask(
        name=name,
        shots=shots,
        seed=seed,
        metric=metric,
        train=splits[0],
        dev=splits[1],
        test=splits[2],
        digest=digest,
    )
