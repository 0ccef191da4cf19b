"""T5s with random weights, for measurements: cost does not depend on what the weights are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from transformers.utils import logging

from mpt.backbones import Backbone, load_backbone
from mpt.backbones.encoder_decoder import T5

SHAPES = {
    "t5-tiny-random": {"d_model": 256, "d_ff": 512, "layers": 4, "heads": 4, "vocabulary": 8000},
    "t5-small-random": {
        "d_model": 512,
        "d_ff": 1024,
        "layers": 8,
        "heads": 6,
        "vocabulary": 32128,
    },
    "t5-base-random": {
        "d_model": 768,
        "d_ff": 2048,
        "layers": 12,
        "heads": 12,
        "vocabulary": 32128,
    },
    "t5-large-random": {
        "d_model": 1024,
        "d_ff": 2816,
        "layers": 24,
        "heads": 16,
        "vocabulary": 32128,
    },
}
"""Name → shape; from "small" on those of T5 v1.1 and its LM-adapted checkpoints."""


def open_backbone(name: str, device: str, dtype: torch.dtype = torch.float32) -> Backbone:
    """Return the random T5 of a name of `SHAPES`, made in memory, or else a loaded backbone."""
    if name not in SHAPES:
        return load_backbone(name, device=device, dtype=dtype)
    with torch.device(device):
        model = _random_t5(name, dtype)
    return T5(name, model, _tokenizer(SHAPES[name]["vocabulary"]), "prepend")


def save_random(name: str, folder: str | Path, tokenizer: Any = None) -> None:
    """Save a random T5 of a name of `SHAPES` as a checkpoint, with a tokenizer.

    Args:
        name: of the shape.
        folder: where to.
        tokenizer: what reads texts, of at most as many tokens as the model has; None: the
            tokenizer of as many numbered words, which knows no other word.
    """
    logging.disable_progress_bar()
    _random_t5(name, torch.float32).save_pretrained(folder)
    own = _tokenizer(SHAPES[name]["vocabulary"]) if tokenizer is None else tokenizer
    own.save_pretrained(folder)


def _random_t5(name: str, dtype: torch.dtype) -> T5ForConditionalGeneration:
    shape = SHAPES[name]
    settings: dict[str, Any] = {
        "vocab_size": shape["vocabulary"],
        "d_model": shape["d_model"],
        "d_kv": 64,
        "d_ff": shape["d_ff"],
        "num_layers": shape["layers"],
        "num_decoder_layers": shape["layers"],
        "num_heads": shape["heads"],
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(0)
    model = T5ForConditionalGeneration._from_config(T5Config(**settings), dtype=dtype)
    # A model made from a configuration has its head tied to the embeddings; T5 v1.1 has not.
    head = torch.randn_like(model.lm_head.weight) * shape["d_model"] ** -0.5
    model.lm_head.weight = nn.Parameter(head)
    return model


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer that has as many words as the model has tokens, and no more."""
    words = ["<pad>", "</s>", "<unk>", *(f"w{n}" for n in range(vocabulary - 3))]
    places = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(places, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
