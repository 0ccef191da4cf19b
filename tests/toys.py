"""Toy models and tasks that tests share: small enough for milliseconds, whole enough to learn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from mpt.backbones import Row, load_backbone
from mpt.backbones.load import quiet
from mpt.config import TextConfig
from mpt.gym.fewshot import Example, FewShotTask


def save_toy_t5(
    path: Path, *, layers: int = 1, width: int = 16, seed: int = 0, tied: bool = False
) -> Path:
    """Save a random T5 (untied: v1.1 style) with a byte-level tokenizer, as a checkpoint."""
    tokenizer = byte_tokenizer()
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 5,  # like real T5s: rows that no token uses
        "d_model": width,
        "d_kv": 8,
        "d_ff": 2 * width,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": tied,
        "decoder_start_token_id": 0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(T5Config(**settings))
        if not tied:
            head = torch.randn(settings["vocab_size"], width)
            model.lm_head.weight = torch.nn.Parameter(head)
    return _save(model, tokenizer, path)


def save_trained_toy_t5(path: Path, *, steps: int = 200) -> Path:
    """Save a toy T5 that answers toy tasks, but cannot know which first letter means which label.

    It has seen every input with both labels, so it guesses; a prompt can tell it. (Measured:
    training loss 0.23 without a prompt, 0.11 after 200 steps of prompt tuning.)
    """
    backbone = load_backbone(str(save_toy_t5(path, width=32)))
    model: Any = backbone.model.requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(steps):
        rows: list[Row] = []
        for task in range(16):
            labels = ("x", "y") if task % 2 else ("y", "x")
            toy = toy_task("toy", 100 * step + task, labels=labels, shots=1, test=1)
            rows += backbone.encode_rows("toy", toy.train, TextConfig())
        batch = backbone.collate(rows, [0] * len(rows))
        loss = model(
            input_ids=batch.input_ids, attention_mask=batch.input_mask, labels=batch.target_ids
        ).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return _save(model, byte_tokenizer(), path)


def _save(model: T5ForConditionalGeneration, tokenizer: Any, path: Path) -> Path:
    with quiet():
        model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def byte_tokenizer() -> PreTrainedTokenizerFast:
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
