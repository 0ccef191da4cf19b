"""What tells one model from another: SHA-256 over configuration, weights and tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from mpt.backbones import tokens

if TYPE_CHECKING:
    from torch import Tensor

_NOT_IDENTITY = ("_name_or_path", "transformers_version", "architectures", "dtype")


def digest_of(config: Any, weights: Iterable[tuple[str, Tensor]], tokenizer: Any) -> str:
    """Return the digest of a model.

    Args:
        config: the model's configuration; where it lies and who wrote it do not count.
        weights: (name, weight) of its whole state, one after the other in the order of names;
            none is kept.
        tokenizer: its tokenizer.
    """
    sha = hashlib.sha256()
    identity = {k: v for k, v in config.to_dict().items() if k not in _NOT_IDENTITY}
    sha.update(json.dumps(identity, sort_keys=True, default=str).encode())
    for name, weight in weights:
        sha.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        sha.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    sha.update(tokens.identity(tokenizer))
    return sha.hexdigest()
