"""A name → a frozen backbone: a packaged one, a local path or a Hub id."""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants, snapshot_download
from transformers import AutoConfig, AutoTokenizer

from mpt.backbones.base import Backbone
from mpt.backbones.check import require
from mpt.backbones.convert import from_bins, from_gguf, gguf_file, packaged_smollm2, quiet
from mpt.backbones.encoder_decoder import EncoderDecoder
from mpt.backbones.families import FAMILIES, family_of
from mpt.config import EMBEDDED_BACKBONES, POSITIONS, SMOLLM2, near_backbone
from mpt.errors import DataError, UsageError

__all__ = [
    "FAMILIES",
    "PACKAGED_WEIGHTS",
    "load_backbone",
    "packaged",
    "pretrained_source",
    "quiet",
    "read_pretrained",
]

PACKAGED_WEIGHTS = Path(__file__).parent / "weights"
"""Checkpoint of the packaged T5; those of the other families lie beside it (`packaged`)."""

_HUB_SECONDS = 3.0
"""How long the Hub may take to answer a knock before it counts as out of reach."""


def load_backbone(
    name: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    position: str = "prepend",
    check: bool = True,
) -> Backbone:
    """Load a checkpoint through `from_pretrained`: no remote code, no pickled code, frozen.

    Weights that are not safetensors (``.bin``, GGUF) are rewritten once into the cache. A model
    that is not packaged is checked for a second or a few (see `mpt.backbones.check`).

    Args:
        name: one of `EMBEDDED_BACKBONES`, "smollm2", the path of a saved checkpoint or of a GGUF
            file, or a Hub id; ``id@revision`` names a branch, tag or commit of it.
        device: where the weights go.
        dtype: dtype of weights and activations; prompts stay float32 with any of them
            (float64 in float64). float16 is refused.
        position: one of `POSITIONS`, see `Backbone`.
        check: whether to run the self-check.

    Raises:
        UsageError: there is no such checkpoint here or on the Hub, its architecture is not
            supported or fails the self-check, or dtype or position is not.
        DataError: the checkpoint is there but cannot be read, or lacks weights.
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
    family = family_of(name, config)
    if position == "append_padded" and not issubclass(family, EncoderDecoder):
        raise UsageError(
            f'position is "append_padded", but backbone {name} has no encoder, whose input alone '
            'may be padded in the middle; take "append"'
        )
    tokenizer = read_pretrained("tokenizer", name, AutoTokenizer, source)
    model = _weights(name, family, source, dtype)
    backbone = family(name, model.to(device), tokenizer, position)
    backbone.check_frozen()
    if check and name not in EMBEDDED_BACKBONES:
        require(backbone)
    return backbone


def _weights(name: str, family: type[Backbone], source: str, dtype: torch.dtype) -> Any:
    """Return the model with every weight that the checkpoint must hold."""
    options = {"dtype": dtype, "output_loading_info": True, "use_safetensors": True}
    here = Path(source)
    if bins := only_bins(here) if here.exists() else _hub_bins(source, (True,)):
        source = str(from_bins(name, bins))
    try:
        model, info = read_pretrained("weights", name, family.auto, source, **options)
    except UsageError:  # of the Hub, and without safetensors
        bins = None if here.exists() else _hub_bins(source, _attempts())
        if bins is None:
            raise
        source = str(from_bins(name, bins))
        model, info = read_pretrained("weights", name, family.auto, source, **options)
    _check_untied(name, model)
    if missing := sorted(info["missing_keys"]):
        raise DataError(
            f"backbone {name}: {len(missing)} weights are missing in the checkpoint, {missing[0]} "
            "the first; they would be random: is it a checkpoint of the whole language model?"
        )
    return model


def only_bins(folder: Path) -> Path | None:
    """Return a folder whose weights are ``pytorch_model*.bin`` only, else None."""
    if any(folder.glob("*.safetensors")) or not any(folder.glob("pytorch_model*.bin")):
        return None
    return folder


def _hub_bins(source: str, attempts: Iterable[bool]) -> Path | None:
    """Return the snapshot of a Hub checkpoint with its ``.bin`` files, if it has no others.

    Args:
        source: ``id`` or ``id@revision``.
        attempts: for each attempt whether it looks into the cache only, else files are fetched.
    """
    model, revision = hub_id(source)
    for local_only in attempts:
        try:
            with quiet():
                snapshot = snapshot_download(
                    model,
                    revision=revision,
                    allow_patterns=["*.json", "*.model", "*.txt", "*.jinja", "pytorch_model*.bin"],
                    local_files_only=local_only,
                )
        except Exception:  # not cached, no such model, no Hub: the weights' reader has said which
            continue
        if bins := only_bins(Path(snapshot)):
            return bins
    return None


def pretrained_source(name: str) -> str:
    """Return what `from_pretrained` is given for a name: a folder, or a Hub id.

    GGUF is converted first, so that a folder is always one of safetensors or ``.bin``.
    """
    if name == SMOLLM2:
        return str(from_gguf(name, packaged_smollm2()))
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
        if file := gguf_file(path):
            return str(from_gguf(name, file))
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


def hub_id(source: str) -> tuple[str, str | None]:
    """Return the model and the revision of ``id`` or ``id@revision``."""
    model, _, revision = source.partition("@")
    return model, revision or None


def read_pretrained(what: str, name: str, auto: Any, source: str, **options: Any) -> Any:
    """Call ``auto.from_pretrained`` and turn every failure into one line with its cure."""
    here = Path(source).exists()
    reason = "the Hub does not answer"
    checkpoint = source
    if not here:
        checkpoint, revision = hub_id(source)
        options |= {} if revision is None else {"revision": revision}
    # The cache comes first: offline nothing waits for a Hub, and a name goes on meaning one thing.
    for local_only in (True,) if here else _attempts():
        try:
            with quiet():
                return auto.from_pretrained(
                    checkpoint, trust_remote_code=False, local_files_only=local_only, **options
                )
        except Exception as error:  # loaders raise anything, OSError to safetensors' own errors
            reason = " ".join(str(error).split())[:120]
    if here:
        raise DataError(f"backbone {name}: its {what} cannot be read: {reason}")
    near = near_backbone(name)
    meant = "" if near is None else f"; the nearest known name is {near}"
    raise UsageError(
        f"backbone {name}: no such path, and its {what} is neither cached nor to be had from the "
        f"Hub (offline, misspelt, or without safetensors?){meant}: {reason}"
    )


def _attempts() -> Iterator[bool]:
    """Yield for each attempt at a Hub checkpoint whether it may look into the cache only."""
    yield True
    if _hub_answers():
        yield False


def _hub_answers() -> bool:
    """Whether a knock at the Hub is answered; without, its client retries for half a minute.

    Behind a proxy a knock says nothing: there the client has to find out.
    """
    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE", "0") not in ("", "0"):
        return False
    return bool(getproxies()) or _knock(int(time.monotonic()) // 60)


@functools.lru_cache(maxsize=1)
def _knock(minute: int) -> bool:
    """Try to reach the Hub, at most once a minute."""
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), _HUB_SECONDS).close()
    except OSError:
        return False
    return True


def _check_untied(name: str, model: Any) -> None:
    """Check that an untied checkpoint's output head is not its embeddings.

    transformers 5 sets ``tie_word_embeddings`` of every T5 to true and ties silently where a
    checkpoint lost its head; what the checkpoint said lives on in ``scale_decoder_outputs``,
    which is false for the untied ones (T5 v1.1 and after) only.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    config = model.config.get_text_config()
    tied = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
    if not tied and head is not None and head.weight.data_ptr() == embeddings.weight.data_ptr():
        raise DataError(
            f"backbone {name}: its configuration says tie_word_embeddings=false, but the output "
            "head came out tied to the embeddings; lm_head.weight must be in the checkpoint"
        )
