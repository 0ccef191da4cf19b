"""A name → a frozen backbone: a packaged one, a local path or a Hub id."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import logging as hub_logging
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as hf_logging

from mpt.backbones.base import Backbone
from mpt.backbones.decoder_only import DecoderOnly
from mpt.backbones.encoder_decoder import T5, Bart, EncoderDecoder
from mpt.config import EMBEDDED_BACKBONES, POSITIONS
from mpt.errors import DataError, UsageError

PACKAGED_WEIGHTS = Path(__file__).parent / "weights"
"""Checkpoint of the packaged T5; those of the other families lie beside it (`packaged`)."""

FAMILIES: dict[str, type[Backbone]] = {"t5": T5, "bart": Bart, "gpt2": DecoderOnly}
"""Model type of a checkpoint's configuration → how a prompt is put into it."""


def load_backbone(
    name: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    position: str = "prepend",
) -> Backbone:
    """Load a checkpoint through `from_pretrained`: safetensors only, no remote code, frozen.

    Args:
        name: one of `EMBEDDED_BACKBONES`, the path of a saved checkpoint, or a Hub id.
        device: where the weights go.
        dtype: dtype of weights and activations; prompts stay float32 with any of them
            (float64 in float64). float16 is refused.
        position: one of `POSITIONS`, see `Backbone`.

    Raises:
        UsageError: there is no such checkpoint here or on the Hub, its architecture is not
            supported, or dtype or position is not.
        DataError: the checkpoint is there but cannot be read, or lost its untied embeddings.
    """
    if position not in POSITIONS:
        raise UsageError(f"position is {position!r}, but must be one of {', '.join(POSITIONS)}")
    if dtype == torch.float16:
        raise UsageError(
            "dtype is float16, but T5 activations overflow in it (65504 is its largest number) "
            "and prompt gradients underflow; use bfloat16 or float32"
        )
    source = pretrained_source(name)
    config = read_pretrained("configuration", name, AutoConfig, source)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UsageError(
            f"backbone {name}: architecture {config.model_type!r} is not supported; "
            f"take one of: {', '.join(sorted(FAMILIES))}"
        )
    if position == "append_padded" and not issubclass(family, EncoderDecoder):
        raise UsageError(
            f'position is "append_padded", but backbone {name} has no encoder, whose input alone '
            'may be padded in the middle; take "append"'
        )
    tokenizer = read_pretrained("tokenizer", name, AutoTokenizer, source)
    model = read_pretrained(
        "weights", name, family.auto, source, dtype=dtype, use_safetensors=True
    )
    _check_untied(name, model)
    backbone = family(name, model.to(device), tokenizer, position)
    backbone.check_frozen()
    return backbone


def pretrained_source(name: str) -> str:
    """Return what `from_pretrained` is given for a name."""
    if name in EMBEDDED_BACKBONES:
        family, folder = packaged(name)
        if not (folder / "config.json").is_file():
            raise DataError(
                f"{folder}: the weights of backbone {name} are missing; reinstall, or make them "
                f"with `python -m tools.embedded_models.train --family {family} --out DIR`"
            )
        return str(folder)
    path = Path(name).expanduser()
    if path.exists():
        if not (path / "config.json").is_file():
            raise DataError(f"backbone {name}: no config.json there, so it is no checkpoint")
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UsageError(f"backbone {name}: this path does not exist")
    return name


def packaged(name: str) -> tuple[str, Path]:
    """Return the family of one of `EMBEDDED_BACKBONES` and the folder of its checkpoint."""
    family = name.removeprefix("embedded").removeprefix("-")
    if not family:
        family = "t5"
    return family, PACKAGED_WEIGHTS / family


def read_pretrained(what: str, name: str, auto: Any, source: str, **options: Any) -> Any:
    """Call ``auto.from_pretrained`` and turn every failure into one line with its cure."""
    here = Path(source).exists()
    reason = ""
    # The cache comes first: offline nothing waits for a Hub, and a name goes on meaning one thing.
    for local_only in (True,) if here else (True, False):
        try:
            with quiet():
                return auto.from_pretrained(
                    source, trust_remote_code=False, local_files_only=local_only, **options
                )
        except Exception as error:  # loaders raise anything, OSError to safetensors' own errors
            reason = " ".join(str(error).split())[:120]
    if here:
        raise DataError(f"backbone {name}: its {what} cannot be read: {reason}")
    raise UsageError(
        f"backbone {name}: no such path, and its {what} is neither cached nor to be had from the "
        f"Hub (offline, misspelt, or without safetensors?): {reason}"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings of transformers: what matters is checked and raised here."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    hub_logging.set_verbosity(hub_logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def _check_untied(name: str, model: Any) -> None:
    """Check that an untied checkpoint's output head is not its embeddings.

    transformers 5 sets ``tie_word_embeddings`` of every T5 to true and ties silently where a
    checkpoint lost its head; what the checkpoint said lives on in ``scale_decoder_outputs``,
    which is false for the untied ones (T5 v1.1 and after) only.
    """
    head, embeddings = model.lm_head.weight, model.get_input_embeddings().weight
    tied = getattr(model.config, "scale_decoder_outputs", model.config.tie_word_embeddings)
    if not tied and head.data_ptr() == embeddings.data_ptr():
        raise DataError(
            f"backbone {name}: its configuration says tie_word_embeddings=false, but the output "
            "head came out tied to the embeddings; lm_head.weight must be in the checkpoint"
        )
