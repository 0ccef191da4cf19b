"""Tiny random models of many architectures, built from their configurations: no download."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from toys import byte_tokenizer

from mpt.backbones.load import quiet

_SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_GROUPED = _SMALL | {"num_key_value_heads": 2, "head_dim": 4}
_GEMMA2 = _GROUPED | {"query_pre_attn_scalar": 4, "sliding_window": 8}
_T5: dict[str, Any] = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
_BART: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
}
_GPT: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}

CAUSAL: Mapping[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", _GPT),
    "llama-grouped": ("Llama", _GROUPED),
    "llama-tied": ("Llama", _GROUPED | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2", _SMALL | {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", _GROUPED),
    "mistral-window": ("Mistral", _GROUPED | {"sliding_window": 8}),
    "gemma": ("Gemma", _GROUPED),
    "gemma2-capped": ("Gemma2", _GEMMA2 | {"final_logit_softcapping": 3.0}),
    "gpt-neox": ("GPTNeoX", _SMALL),
    "opt": ("OPT", _SMALL | {"ffn_dim": 32, "word_embed_proj_dim": 8}),
    "phi": ("Phi", _SMALL),
    "bloom": ("Bloom", {"hidden_size": 16, "n_layer": 2, "n_head": 2}),
    "mpt": ("Mpt", {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 64}),
    "cohere": ("Cohere", _SMALL | {"num_key_value_heads": 2, "logit_scale": 0.25}),
    "granite": ("Granite", _SMALL | {"logits_scaling": 4.0, "embedding_multiplier": 3.0}),
}
"""Name → (class prefix in transformers, its settings)."""

SEQ2SEQ: Mapping[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", _T5),
    "t5-v1.1": ("T5", _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mt5": ("MT5", _T5),
    "umt5": ("UMT5", _T5),
    "bart": ("Bart", _BART | {"scale_embedding": True}),
    "mbart": ("MBart", _BART | {"scale_embedding": True, "forced_bos_token_id": 7}),
    "pegasus": ("Pegasus", _BART | {"scale_embedding": True}),
}

ARCHITECTURES: Mapping[str, tuple[str, dict[str, Any]]] = {**CAUSAL, **SEQ2SEQ}


def build(name: str, *, seed: int = 0) -> Any:
    """Return a random model whose weights are large enough for every path to matter."""
    prefix, settings = ARCHITECTURES[name]
    shape = {"vocab_size": len(byte_tokenizer()), "pad_token_id": 0, "eos_token_id": 1}
    config = getattr(transformers, f"{prefix}Config")(**(shape | {"bos_token_id": 2} | settings))
    task = "ForConditionalGeneration" if name in SEQ2SEQ else "ForCausalLM"
    kind = getattr(transformers, prefix + ("LMHeadModel" if name == "gpt2" else task))
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        model = kind(config)
        untied = name in ("t5-v1.1", "mt5", "umt5")
        if untied:
            head = torch.empty_like(model.lm_head.weight)
            model.lm_head.weight = torch.nn.Parameter(head)
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    return model


def save(name: str, path: Path, *, seed: int = 0, **options: Any) -> Path:
    """Save a random model of this architecture with a byte-level tokenizer."""
    with quiet():
        build(name, seed=seed).save_pretrained(path, **options)
    byte_tokenizer().save_pretrained(path)
    return path
