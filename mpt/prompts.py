"""The soft prompt φ ∈ R^{P×d}: how it starts, its digest, and its file."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mpt.backbones.base import Backbone
from mpt.errors import DataError, UsageError

FREQUENT = 5000
"""Vocabulary rows are drawn from this many most frequent tokens (fewer if there are fewer)."""


def init_upstream(
    backbone: Backbone, source_tasks: Sequence[str], length: int, rng: np.random.Generator
) -> Tensor:
    """Return the prompt [P, d] that upstream learning starts from (recipe row 6).

    Row i is the mean embedding of the tokens of source task i's name; the rows left over are
    embeddings of frequent tokens. Where there are more tasks than rows, the first P count.

    Args:
        backbone: gives tokens and embeddings.
        source_tasks: task names in the order of the partition; a repeated name counts once.
        length: P.
        rng: draws the frequent tokens.
    """
    names = list(dict.fromkeys(source_tasks))[:length]
    embeddings = backbone.embeddings().cpu()
    rows = [_name_embedding(backbone, embeddings, name) for name in names]
    rows += list(_frequent_rows(backbone, embeddings, length - len(rows), rng))
    return torch.stack(rows)


def init_downstream(
    backbone: Backbone, task: str, length: int, rng: np.random.Generator
) -> Tensor:
    """Return the prompt [P, d] of plain prompt tuning: one row from the task's own name."""
    return init_upstream(backbone, [task], length, rng)


def _name_embedding(backbone: Backbone, embeddings: Tensor, name: str) -> Tensor:
    """Return the mean embedding [d] of the tokens of a task name, split on "_" and "-"."""
    words = [word for word in re.split("[_-]", name) if word]
    tokens = [token for word in words for token in backbone.word_ids(word)]
    if not tokens:
        raise UsageError(f"task name is {name!r}, but must hold at least one letter or digit")
    return embeddings[tokens].mean(0)


def _frequent_rows(
    backbone: Backbone, embeddings: Tensor, count: int, rng: np.random.Generator
) -> Tensor:
    """Return embeddings [count, d] of frequent tokens, distinct as far as there are enough."""
    tokens = backbone.frequent_ids(FREQUENT)
    chosen = rng.choice(tokens, size=count, replace=count > len(tokens))
    return embeddings[torch.from_numpy(chosen)]


def prompt_digest(prompt: Tensor) -> str:
    """Return the SHA-256 over a prompt's dtype, shape and bytes."""
    flat = prompt.detach().cpu().contiguous()
    sha = hashlib.sha256(f"{flat.dtype} {tuple(flat.shape)}".encode())
    sha.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def prompt_bytes(prompt: Tensor, metadata: dict[str, str]) -> bytes:
    """Return a prompt and its metadata as safetensors."""
    return save({"prompt": prompt.detach().cpu().contiguous()}, metadata)


def prompt_from_bytes(data: bytes, name: str) -> tuple[Tensor, dict[str, str]]:
    """Return the prompt [P, d] of `prompt_bytes` and its metadata.

    Raises:
        DataError: the bytes hold no prompt; `name` says where they are from.
    """
    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: no readable prompt ({reason}); make it anew") from None
    if list(tensors) != ["prompt"]:
        raise DataError(f"{name}: holds {sorted(tensors)}, but must hold one 'prompt'")
    prompt = tensors["prompt"]
    if prompt.dim() != 2 or not prompt.is_floating_point():
        raise DataError(
            f"{name}: prompt is {prompt.dtype} {tuple(prompt.shape)}, but must be float [P, d]"
        )
    return prompt, metadata


def load_prompt(path: Path) -> tuple[Tensor, dict[str, str]]:
    """Return the prompt [P, d] of a file and its metadata; see `prompt_from_bytes`.

    Raises:
        DataError: the file is absent, torn, or holds no prompt.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise DataError(f"{path}: no readable prompt file ({reason}); make it anew") from None
    return prompt_from_bytes(data, str(path))
