"""Which class puts prompts into a checkpoint: by what its configuration says it can do."""

from __future__ import annotations

from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from mpt.backbones.base import Backbone
from mpt.backbones.decoder_only import DecoderOnly
from mpt.backbones.encoder_decoder import T5, Bart, EncoderDecoder
from mpt.errors import UsageError

FAMILIES: dict[str, type[Backbone]] = {"t5": T5, "mt5": T5, "umt5": T5, "bart": Bart}
"""Model types whose marks are known better than their tokenizers tell; all others need no row."""


def family_of(name: str, config: Any) -> type[Backbone]:
    """Return how a prompt is put into a model with this configuration.

    Every sequence-to-sequence and every causal language model of transformers has an answer;
    whether the model keeps its promises is for `mpt.backbones.check` to say.

    Raises:
        UsageError: it is neither; models that fill masks are not.
    """
    kind = config.model_type
    if kind in FAMILIES:
        return FAMILIES[kind]
    if config.is_encoder_decoder and type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        return EncoderDecoder
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not masked:
        return DecoderOnly
    raise UsageError(
        f"backbone {name}: architecture {kind!r} is not supported; take a causal model (GPT-2, "
        "Llama, Qwen, Gemma, …) or a sequence-to-sequence one (T5, BART, …)"
    )
