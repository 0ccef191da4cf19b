"""Floating-point operations of one prompt-tuning pass, from the model's configuration.

Only matrix products count, 2·m·k·n each; a frozen model's backward pass makes gradients of
activations alone, so every product of a token with a weight matrix costs as much again, and the
two products of attention cost twice again::

    forward + backward = 2 · (products with weights) + 3 · (products inside attention)

What fused kernels compute again in the backward pass does not count (model FLOPs, as in "MFU").
Nothing that comes before the first prompt dependence is differentiated: in an encoder-decoder the
first decoder layer's self-attention and the query of its cross-attention have no backward pass.

Shapes: d model width, k = heads · head width, f feed-forward width (m matrices: 3 where gated,
else 2), S encoder positions (or positions in all), T decoder positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mpt.backbones import Backbone, Batch


@dataclass(frozen=True)
class Shape:
    """What the FLOPs of a model follow from."""

    d: int
    k: int
    f: int
    m: int
    layers: int
    """Encoder layers, or all layers of a decoder-only model."""
    decoder_layers: int
    """0 for a decoder-only model."""
    vocabulary: int


def shape_of(backbone: Backbone) -> Shape:
    """Return the shape of a T5, BART or GPT-2."""
    c: Any = backbone.model.config
    if c.model_type == "t5":
        gated = 3 if c.is_gated_act else 2
        k, f, layers, decoder = c.num_heads * c.d_kv, c.d_ff, c.num_layers, c.num_decoder_layers
    elif c.model_type == "bart":
        k, f, gated = c.d_model, c.encoder_ffn_dim, 2
        layers, decoder = c.encoder_layers, c.decoder_layers
    else:
        k, f, gated = c.n_embd, c.n_inner or 4 * c.n_embd, 2
        layers, decoder = c.n_layer, 0
    return Shape(backbone.d_model, k, f, gated, layers, decoder, backbone.vocabulary_size)


def step_flops(shape: Shape, rows: int, s: int, t: int, tokens: int) -> int:
    """Return the FLOPs of forward and backward pass of one padded batch.

    Args:
        shape: the model's.
        rows: B rows of the batch.
        s: positions of the encoder (prompt and longest input), or of a decoder-only model.
        t: positions of the decoder; not read for a decoder-only model.
        tokens: target tokens of all rows, the ones the head sees.
    """
    d, k, feed = shape.d, shape.k, shape.m * shape.d * shape.f
    weights = 2 * rows * s * shape.layers * (4 * d * k + feed)
    inside = rows * shape.layers * 4 * s * s * k
    without_backward = 0
    if shape.decoder_layers:
        # self-attention 4dk and cross-attention's query and output 2dk a decoder position;
        # cross-attention's key and value 2dk an encoder position
        weights += 2 * rows * shape.decoder_layers * (t * (6 * d * k + feed) + s * 2 * d * k)
        inside += rows * shape.decoder_layers * 4 * (t * t + t * s) * k
        # the first decoder layer: self-attention whole, the query, and the query's gradient
        without_backward = rows * (2 * t * 5 * d * k + 8 * t * t * k + 2 * t * s * k)
    weights += 2 * tokens * d * shape.vocabulary
    return 2 * weights + 3 * inside - without_backward


def shared_flops(shape: Shape, runs: int, p: int, rows: int, s: int, tokens: int) -> int:
    """Return the FLOPs of a training pass of a decoder-only model that reads prompts once.

    Words have no gradient, so none goes through the query, key and value of a row's places in the
    first layer; of the prompts' last layer only keys and values are used (GPT-2 makes them and
    queries in one product).

    Args:
        shape: the model's.
        runs: prompts.
        p: their places.
        rows: rows behind them.
        s: places of a row, its prompt left out.
        tokens: target tokens of all rows.
    """
    d, k, layers = shape.d, shape.k, shape.layers
    layer = 4 * d * k + shape.m * d * shape.f
    prompts = 2 * runs * p * (layers * layer + (layers - 1) * layer + 3 * d * k)
    prompts += runs * 4 * p * p * k * (layers + 2 * (layers - 1))
    own = 2 * rows * s * (2 * layers * layer - 3 * d * k)
    inside = rows * 4 * s * (p + s) * k
    own += 3 * layers * inside - inside // 2  # the first layer's query
    return prompts + own + 2 * 2 * tokens * d * shape.vocabulary


def batch_flops(backbone: Backbone, prompts: Tensor, batch: Batch) -> int:
    """Return the FLOPs of a batch as it stands, padding included."""
    p, s = prompts.shape[1], batch.input_ids.shape[1]
    t, tokens = batch.target_ids.shape[1], int(batch.target_mask.sum())
    shape = shape_of(backbone)
    runs = len(batch.run.unique())
    if backbone.shares_prompts and runs < len(batch):
        return shared_flops(shape, runs, p, len(batch), s + t - 1, tokens)
    if not shape.decoder_layers:
        return step_flops(shape, len(batch), p + s + t - 1, 0, tokens)
    config: Any = backbone.model.config
    given = 1 if config.model_type == "t5" else 2  # BART's decoder starts from two
    return step_flops(shape, len(batch), p + s, t + given - 1, tokens)
