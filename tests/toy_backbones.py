"""Toy checkpoints of every family, one row each, for the suites that all backbones must pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from toys import byte_tokenizer, save_toy_t5
from transformers import BartConfig, BartForConditionalGeneration, GPT2Config, GPT2LMHeadModel

from mpt.backbones.load import quiet

POSITIONS = 64
"""Learned positions of the toy BART and GPT-2."""


def save_toy_bart(path: Path, *, seed: int = 0, tied: bool = True, scaled: bool = True) -> Path:
    """Save a random BART whose embeddings are scaled by √d, unlike those of bart-large."""
    tokenizer = byte_tokenizer()
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 1,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": POSITIONS,
        "scale_embedding": scaled,
        "tie_word_embeddings": tied,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": len(tokenizer),
        "decoder_start_token_id": 1,
        "forced_bos_token_id": None,
        "forced_eos_token_id": None,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BartForConditionalGeneration(BartConfig(**settings))
        _enlarge(model)
        model.final_logits_bias.normal_(std=0.1)
        for layer in model.model.decoder.layers:  # the decoder listens to the encoder
            layer.encoder_attn.out_proj.weight.data *= 8
    return _save(model, tokenizer, path)


def save_toy_gpt2(path: Path, *, seed: int = 0, tied: bool = True) -> Path:
    """Save a random GPT-2 without a padding token, as the real one."""
    tokenizer = byte_tokenizer()
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": POSITIONS,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "tie_word_embeddings": tied,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(GPT2Config(**settings))
        _enlarge(model)
    return _save(model, tokenizer, path)


def _enlarge(model: Any) -> None:
    """Draw weights of usual size: with the initial 0.02 every output is almost the same."""
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)


def _save(model: Any, tokenizer: Any, path: Path) -> Path:
    with quiet():
        model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _t5(path: Path, *, tied: bool = False) -> Path:
    return save_toy_t5(path, tied=tied)


FAMILIES: Mapping[str, Callable[..., Path]] = {
    "t5": _t5,
    "bart": save_toy_bart,
    "gpt2": save_toy_gpt2,
}
"""Family → writer of a toy checkpoint (`path`, `tied`). A new family is a row here."""

HEADS: Mapping[str, tuple[str, str]] = {
    "t5": ("shared.weight", "lm_head.weight"),
    "bart": ("model.encoder.embed_tokens.weight", "lm_head.weight"),
    "gpt2": ("transformer.wte.weight", "lm_head.weight"),
}
"""Family → names of its input embeddings and of its output head in a checkpoint."""
