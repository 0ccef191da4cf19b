"""Will it fit? What a pass through a backbone holds in memory, before any weight is loaded.

The model is built without storage (PyTorch's meta device) and run on shapes alone, so that the
count is of the tensors the real pass would keep for its backward pass, not of a formula::

    python -m mpt.backbones.memory google/t5-xl-lm-adapt --rows 8 --input 512 --target 64
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    BartConfig,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
    T5Config,
)

from mpt.backbones.base import use_fused_gelu
from mpt.backbones.cross_entropy import LOGITS_AT_ONCE
from mpt.backbones.decoder_only import inner_model
from mpt.backbones.families import family_of
from mpt.backbones.load import pretrained_source, quiet, read_pretrained
from mpt.errors import MptError, UsageError

GIB = 2**30
_HEAD_APART = ("t5", "mt5", "umt5")
"""Model types whose configuration calls the head tied whatever the checkpoint says."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one training pass."""

    weights: int
    """All weights (frozen: no gradients, no optimiser state)."""
    activations: int
    """What the backward pass needs, without the attention matrices; logits of one chunk among
    it."""
    attention: int
    """Attention matrices [.., queries, keys]. Fused attention never makes them; exact second
    order, the math backend and eager attention do."""

    @property
    def fused(self) -> int:
        """Bytes with fused attention: first-order methods, prompt tuning, finite differences."""
        return self.weights + self.activations

    @property
    def total(self) -> int:
        """Bytes with every attention matrix kept: the safe side."""
        return self.fused + self.attention


def _t5(d: int, heads: int, ff: int) -> T5Config:
    shape: dict[str, Any] = {
        "vocab_size": 32128,
        "d_model": d,
        "d_kv": 64,
        "d_ff": ff,
        "num_layers": 12 if d == 768 else 24,
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }
    return T5Config(**shape)


def _qwen(d: int, layers: int, heads: int, ff: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=151936,
        hidden_size=d,
        intermediate_size=ff,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )


PUBLISHED: Mapping[str, Any] = {
    "google/t5-base-lm-adapt": _t5(768, 12, 2048),
    "google/t5-large-lm-adapt": _t5(1024, 16, 2816),
    "google/t5-xl-lm-adapt": _t5(2048, 32, 5120),
    "facebook/bart-large": BartConfig(vocab_size=50265),
    "openai-community/gpt2-large": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
    "Qwen/Qwen2.5-0.5B": _qwen(896, 24, 14, 4864),
    "Qwen/Qwen2.5-1.5B": _qwen(1536, 28, 12, 8960),
    "meta-llama/Llama-3.2-1B": LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
    ),
}
"""Shapes of the paper's backbones and of three causal models of today, as their model cards give
them: no download is needed."""


def estimate(
    name: str,
    *,
    rows: int,
    prompt: int = 100,
    inputs: int = 512,
    targets: int = 64,
    dtype: torch.dtype = torch.bfloat16,
) -> Memory:
    """Return what a training pass of `rows` rows of full length holds.

    Not counted: what a single layer needs while it runs, cached inputs (`InputCache`), the prompts
    (400 KB each) and the driver's own few hundred MB: leave a tenth of the device free.

    Args:
        name: a name of `PUBLISHED`, "embedded", "smollm2", a local path or a Hub id.
        rows: rows in the pass (of all packed runs together).
        prompt: prompt tokens P.
        inputs: input tokens of every row.
        targets: target tokens of every row.
        dtype: of weights and activations.
    """
    return estimate_config(
        name,
        config_of(name),
        rows=rows,
        prompt=prompt,
        inputs=inputs,
        targets=targets,
        dtype=dtype,
    )


def config_of(name: str) -> Any:
    """Return the configuration of a backbone, without a download where it is in `PUBLISHED`."""
    config = PUBLISHED.get(name)
    if config is None:
        config = read_pretrained("configuration", name, AutoConfig, pretrained_source(name))
    return config


def width_of(name: str) -> int:
    """Return the width d of a backbone's embeddings."""
    return int(config_of(name).get_text_config().hidden_size)


def estimate_config(
    name: str,
    config: Any,
    *,
    rows: int,
    prompt: int,
    inputs: int,
    targets: int,
    dtype: torch.dtype,
) -> Memory:
    """Return what `estimate` returns, for a model that is known by its configuration.

    Raises:
        UsageError: the architecture is not supported, or cannot be run on shapes alone.
    """
    model = shaped(name, config, dtype)
    if config.model_type in _HEAD_APART and not getattr(config, "scale_decoder_outputs", False):
        # An untied checkpoint's head is a matrix of its own; from_config ties it regardless.
        head = torch.empty_like(model.lm_head.weight)
        model.lm_head.weight = torch.nn.Parameter(head, requires_grad=False)
    weights = {id(weight): weight.nbytes for weight in model.parameters()}
    saved, matrices = _run(name, model, rows, prompt + inputs, targets)
    vocabulary = config.get_text_config().vocab_size
    logits = 3 * 4 * min(rows * targets * vocabulary, LOGITS_AT_ONCE)
    return Memory(weights=sum(weights.values()), activations=saved + logits, attention=matrices)


def shaped(name: str, config: Any, dtype: torch.dtype) -> Any:
    """Return a frozen model without storage, on the meta device."""
    with torch.device("meta"), quiet():
        model = family_of(name, config).auto.from_config(config, dtype=dtype)
    model.eval().requires_grad_(False)
    use_fused_gelu(model)
    return model


def _run(name: str, model: Any, rows: int, s: int, t: int) -> tuple[int, int]:
    """Return `_saved` with the kind of mask that the model takes on shapes alone."""
    reason = ""
    for flat in (False, True):
        try:
            return _saved(name, model, rows, s, t, flat)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
    raise UsageError(
        f"backbone {name}: memory of architecture {model.config.model_type!r} cannot be counted "
        f"without its weights: {reason}"
    )


def _saved(name: str, model: Any, rows: int, s: int, t: int, flat: bool) -> tuple[int, int]:
    """Return bytes kept for the backward pass: (all but attention matrices, these).

    Args:
        name: what the user called the model.
        model: the model, on the meta device.
        rows: rows of the pass.
        s: tokens of prompt and input.
        t: target tokens.
        flat: whether the mask has two dimensions (models that tell positions from it), else four.
    """
    s, t = _apart(model, s, t)
    known = {weight.untyped_storage()._cdata for weight in model.parameters()}
    bytes_of: dict[int, tuple[bool, int, Tensor]] = {}
    lengths = {s, t, s + t}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in known:  # a view of what is kept anyway costs nothing
            matrix = tensor.dim() >= 3 and all(n in lengths for n in tensor.shape[-2:])
            bytes_of.setdefault(storage, (matrix, tensor.untyped_storage().nbytes(), tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run_shapes(name, model, rows, s, t, flat)
    matrices = sum(size for matrix, size, _ in bytes_of.values() if matrix)
    return sum(size for _, size, _ in bytes_of.values()) - matrices, matrices


def run_shapes(name: str, model: Any, rows: int, s: int, t: int, flat: bool) -> Tensor:
    """Run a model without its head on shapes; return its last states [rows, positions, d].

    The arguments are those of `_saved`; the embeddings of prompt and input want a gradient.
    """
    dtype, d = model.dtype, model.get_input_embeddings().weight.shape[1]
    encoder_decoder = model.config.is_encoder_decoder
    words = torch.empty(rows, s if encoder_decoder else s + t, d, dtype=dtype, device="meta")
    words.requires_grad_()
    # A mask of four dimensions is taken as it is; making one would look at values.
    width = t if encoder_decoder else s + t
    mask = torch.zeros(rows, 1, width, width, dtype=dtype, device="meta")
    if encoder_decoder:
        states = model.get_encoder()(inputs_embeds=words).last_hidden_state
        return model.get_decoder()(
            input_ids=torch.zeros(rows, t, dtype=torch.long, device="meta"),
            attention_mask=mask,
            encoder_hidden_states=states,
            use_cache=False,
        ).last_hidden_state
    if flat:
        mask = torch.ones(rows, width, dtype=torch.long, device="meta")
    inner = inner_model(name, model)
    given: dict[str, Any] = {"attention_mask": mask, "use_cache": False}
    if "position_ids" in inspect.signature(inner.forward).parameters:
        given["position_ids"] = torch.arange(width, device="meta")[None]
    return inner(inputs_embeds=words, **given).last_hidden_state


def _apart(model: Any, s: int, t: int) -> tuple[int, int]:
    """Return the lengths, a few tokens longer where one equals a width of the model.

    An attention matrix is known by its shape, which no other tensor may share.
    """
    config = model.config.get_text_config()
    widths = {n for weight in model.parameters() for n in weight.shape}
    head = getattr(config, "d_kv", 0) or getattr(config, "head_dim", 0)
    widths.add(head or config.hidden_size // config.num_attention_heads)
    while s in widths:
        s += 1
    while t in widths or s + t in widths:
        t += 1
    return s, t


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the estimate for one backbone; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mpt.backbones.memory", description=__doc__)
    parser.add_argument("backbone", help=f"{', '.join(PUBLISHED)}, a path or a Hub id")
    parser.add_argument("--rows", type=int, default=8, help="rows in a pass")
    parser.add_argument("--prompt", type=int, default=100, help="prompt tokens")
    parser.add_argument("--input", type=int, default=512, help="input tokens of a row")
    parser.add_argument("--target", type=int, default=64, help="target tokens of a row")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    given = parser.parse_args(arguments)
    for flag in ("rows", "prompt", "input", "target"):
        if getattr(given, flag) < 1:
            parser.error(f"--{flag} is {getattr(given, flag)}, but must be ≥ 1")
    try:
        memory = estimate(
            given.backbone,
            rows=given.rows,
            prompt=given.prompt,
            inputs=given.input,
            targets=given.target,
            dtype=getattr(torch, given.dtype),
        )
    except MptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for label, size in (
        ("weights", memory.weights),
        ("activations", memory.activations),
        ("fused attention, in all", memory.fused),
        ("attention matrices", memory.attention),
        ("unfused attention, in all", memory.total),
    ):
        print(f"{label:26s} {size / GIB:7.2f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
