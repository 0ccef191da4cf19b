"""A checkpoint of which only shapes, tokenizer and digest are known: what a key needs, no more.

The driver of a search names trajectories and runs by the digest of the weights as a worker loads
them, and the baseline's runs by their starting prompts too, which are made of the embeddings of
words. The digest is made from the files, one weight at a time, in the number format of the
baseline and in that of upstream learning or fine-tuning where it is another: a driver holds no
copy of the model beside those of its workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from mpt.backbones.base import Backbone, digest_of
from mpt.backbones.convert import from_bins
from mpt.backbones.families import family_of
from mpt.backbones.load import hub_id, only_bins, pretrained_source, read_pretrained


def weightless(
    name: str, dtype: torch.dtype, position: str, *, words: bool = False
) -> Backbone | None:
    """Return a backbone on the device "meta" with the digest that it has when it is loaded.

    Anything that is computed with it fails.

    Args:
        name: see `load_backbone`.
        dtype: number format of the weights.
        position: one of `POSITIONS`.
        words: whether the embeddings of words are loaded, on the CPU: prompts can be made then.

    Returns:
        None where the files do not tell: they are not here, or their weights have other names than
        the model's; or where embeddings are more than a matrix and a number.
    """
    source = pretrained_source(name)
    files = _files(name, source)
    if files is None:
        return None
    config = read_pretrained("configuration", name, AutoConfig, source)
    family = family_of(name, config)
    tokenizer = read_pretrained("tokenizer", name, AutoTokenizer, source)
    with torch.device("meta"):
        model: Any = family.auto.from_config(config, dtype=dtype)
    state = model.state_dict()
    places = _places(model, state, files)
    if places is None:
        return None
    backbone = family(name, model, tokenizer, position)
    weights = _weights(state, places, dtype)
    backbone.__dict__["digest"] = digest_of(model.config, weights, tokenizer)
    if words and not _load_words(backbone, state, places, dtype):
        return None
    return backbone


def _load_words(
    backbone: Backbone,
    state: Mapping[str, Tensor],
    places: Mapping[str, tuple[Path, str]],
    dtype: torch.dtype,
) -> bool:
    """Put the embeddings of words into a backbone; return whether they are all there then."""
    old = backbone._words.weight
    name = next((n for n, one in backbone.model.named_parameters() if one is old), None)
    if name is None:
        return False
    [(_, weight)] = _weights({name: state[name]}, places, dtype)
    new = torch.nn.Parameter(weight, requires_grad=False)
    for module in backbone.model.modules():
        if not isinstance(module, torch.nn.Embedding) or module.weight is not old:
            continue
        module.weight = new
        scale, number = (
            getattr(module, key, None) for key in ("embed_scale", "scalar_embed_scale")
        )
        if isinstance(scale, Tensor) and number is not None:  # Gemma
            module.embed_scale = torch.full((), number, dtype=scale.dtype)
    scale = getattr(backbone._words, "embed_scale", None)
    return not (backbone._words.weight.is_meta or (isinstance(scale, Tensor) and scale.is_meta))


def _files(name: str, source: str) -> Mapping[str, Path] | None:
    """Return weight → file of safetensors that holds it; None where there are no such files."""
    folder = Path(source)
    if not folder.exists():
        model, revision = hub_id(source)
        try:
            folder = Path(snapshot_download(model, revision=revision, local_files_only=True))
        except Exception:  # not fetched yet
            return None
    if bins := only_bins(folder):
        folder = from_bins(name, bins)
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.is_file():
        with safe_open(single, framework="pt") as file:
            return dict.fromkeys(file.keys(), single)
    if not index.is_file():
        return None
    table = json.loads(index.read_text("utf-8"))["weight_map"]
    files = {key: folder / part for key, part in table.items()}
    return files if all(path.is_file() for path in files.values()) else None


def _places(
    model: Any, state: Mapping[str, Tensor], files: Mapping[str, Path]
) -> Mapping[str, tuple[Path, str]] | None:
    """Return weight of the model → file and name there; None where one is not found.

    A weight stands there under its own name, without the prefix of the whole model, or under the
    name of one that is tied to it.
    """
    prefix = f"{model.base_model_prefix}."
    tied: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(weight), []).append(name)
    alike = {name: names for names in tied.values() for name in names}
    places: dict[str, tuple[Path, str]] = {}
    for name in state:
        own = [name, *alike.get(name, ())]
        known = [key for one in own for key in (one, one.removeprefix(prefix)) if key in files]
        if not known:
            return None
        places[name] = (files[known[0]], known[0])
    return places


def _weights(
    state: Mapping[str, Tensor], places: Mapping[str, tuple[Path, str]], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight as it is loaded, in the order of names; each file is closed again."""
    for name in sorted(state):
        path, key = places[name]
        with safe_open(path, framework="pt") as file:
            weight = file.get_tensor(key)
        yield name, weight.to(dtype) if weight.is_floating_point() else weight
