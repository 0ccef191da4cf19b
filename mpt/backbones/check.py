"""Does a model do what this library relies on? Five short passes and a number for each.

The checks need no knowledge of the architecture: rows are made of the tokenizer's own tokens, and
the model's paths are held against each other. `load_backbone` runs them on every model that is not
packaged; anyone may run them on a model of their own::

    from mpt.backbones.check import findings
    for finding in findings(backbone):
        print(finding)

Losses are per target token; their differences are relative to 1 + loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mpt.backbones.base import Backbone, Batch, Row
from mpt.backbones.decoder_only import DecoderOnly
from mpt.backbones.generation import Decoding
from mpt.errors import UsageError

LIMITS = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 0.02}
"""Largest difference of two paths, by the model's dtype. Measured: 2e-7 in float32 and 4e-4 in
bfloat16 over 20 tiny architectures, 3e-7 and 3e-3 on a real one of 30 layers; a tiny GPT-2 that
counts its positions wrong is off by 0.07."""
_SLOPES = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 0.06}
"""Largest difference of two gradients relative to their norm. Measured over 15 tiny causal
architectures: 8e-7 in float32 and .01 in bfloat16; on SmolLM2 in bfloat16 .03. Keys of one layer
without a gradient make .1 and more."""
P = 3
_LENGTHS = ((9, 4), (2, 4), (5, 4))
"""(input, target) tokens of the rows: two of them are padded."""
_PADDING = 3
"""Padding tokens between an input and its prompt, where a prompt stands behind the padding."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check and the number it found."""

    name: str
    """What should hold."""
    value: float
    """What was measured."""
    limit: float
    """Bound of the value."""
    least: bool = False
    """Whether the value must be at least the limit; else at most."""

    @property
    def passed(self) -> bool:
        """Whether the value keeps the limit (one that is not a number does not)."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.least else "≤"
        verdict = "" if self.passed else "  FAILED"
        return f"{self.name}: {self.value:.2g} (must be {sign} {self.limit:g}){verdict}"


def require(backbone: Backbone) -> None:
    """Check a model that is about to be used; leave its cache out where it is not exact.

    Raises:
        UsageError: a check failed, or the model cannot even be called this way.
    """
    settle_cache(backbone)
    for finding in findings(backbone):
        if not finding.passed:
            raise UsageError(
                f"backbone {backbone.name} ({_architecture(backbone)}) fails its "
                f"self-check: {finding}; prompts cannot be tuned on it"
            )


def findings(backbone: Backbone) -> Iterator[Finding]:
    """Run the checks one by one.

    Raises:
        UsageError: the model raises an error where it is called as its kind is called.
    """
    limit = LIMITS[backbone.dtype]
    checks = (
        ("the model's own way of reading words equals ours", _own_path),
        ("a row alone equals the row in a padded batch", _padding),
        ("the training path equals the generation path", _generation),
    )
    for name, check in checks:
        yield Finding(name=name, value=_number(backbone, check), limit=limit)
    dead = _number(backbone, _without_gradient)
    yield Finding(name="prompt tokens without a gradient, weights with one", value=dead, limit=0)
    moved = _number(backbone, _other_prompt)
    least = 1e-12 if backbone.dtype == torch.float64 else 1e-7
    name = "another prompt changes the output"
    yield Finding(name=name, value=moved, limit=least, least=True)


def settle_cache(backbone: Backbone) -> None:
    """Give up the cache of inputs, or of prompts that stand first, where it is not exact.

    Losses with their slopes, and what is generated with a prompt from the cache or after a
    teacher-forced pass, have to be those of reading the whole row. Some models keep something else
    than keys and values of one shape, or count places where they were told positions (rows in the
    cache have a gap).
    """
    if not isinstance(backbone, DecoderOnly):
        return
    cache = backbone.input_cache
    prompts, batch = _prompts(backbone)[:1], _batch(backbone)
    try:
        with torch.no_grad(), backbone.fixed(prompts):
            cached = [_losses(backbone, prompts, batch), _continued(backbone, prompts, batch)]
            none = prompts[:, :0]  # as in fine-tuning: whole rows, gone on with
            bare = _apart(_continued(backbone, none, batch), _losses(backbone, none, batch))
            if backbone.position == "prepend":
                cached.append(_written(backbone, prompts, batch))
        slope = _slope(backbone, prompts, batch)
        backbone.input_cache = None
        with torch.no_grad():
            plain = _losses(backbone, prompts, batch)
        other = _slope(backbone, prompts, batch)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        backbone.input_cache = None
        return
    limit = LIMITS[backbone.dtype]
    exact = all(_apart(losses, plain) <= limit for losses in cached)
    exact &= bare <= limit and bool(
        (slope - other).norm() <= _SLOPES[backbone.dtype] * other.norm()
    )
    if cache is not None and exact:
        cache.clear()
        backbone.input_cache = cache


def _number(backbone: Backbone, check: Any) -> float:
    try:
        return float(check(backbone))
    except UsageError:
        raise
    except Exception as error:  # models raise anything where they are called in a way not theirs
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise UsageError(
            f"backbone {backbone.name} ({_architecture(backbone)}) cannot be called with "
            f"embeddings and a mask: {reason}; take another model"
        ) from None
    finally:
        cache = getattr(backbone, "input_cache", None)
        if cache is not None:
            cache.clear()


def _architecture(backbone: Backbone) -> str:
    model: Any = backbone.model
    return str(model.config.model_type)


def _tokens(backbone: Backbone) -> list[int]:
    """Return ordinary tokens, at least as many as the rows and prompts need."""
    known = backbone.frequent_ids(400)[-200:]  # the first are often single bytes without a sense
    return known * (1 + 60 // len(known))


def _rows(backbone: Backbone) -> list[Row]:
    ids = iter(_tokens(backbone))
    return [
        ([next(ids) for _ in range(n)], [*(next(ids) for _ in range(t - 1)), backbone.end_id])
        for n, t in _LENGTHS
    ]


def _collate(backbone: Backbone, rows: Sequence[Row], run: int = 0) -> Batch:
    """Return one batch of rows; padding that a prompt stands behind is a part of its row."""
    widths = [len(words) + _PADDING for words, _ in rows] if backbone.padding_matters else None
    return backbone.collate(rows, [run] * len(rows), widths)


def _batch(backbone: Backbone) -> Batch:
    return _collate(backbone, _rows(backbone))


@torch.no_grad()
def _prompts(backbone: Backbone) -> Tensor:
    """Return two prompts [2, P, d] of word embeddings, as the model's first layer sees them."""
    ids = torch.tensor(_tokens(backbone)[-2 * P :], device=backbone.device)
    wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
    return torch.as_tensor(backbone._words(ids)).detach().to(wide).view(2, P, -1)


def _losses(backbone: Backbone, prompts: Tensor, batch: Batch) -> Tensor:
    nll, count = backbone.row_losses(prompts, batch)
    return nll.detach() / count


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference relative to 1 + loss; not a number where a loss is none."""
    return float(((one - other).abs() / (1 + other.abs())).max())


@torch.no_grad()
def _own_path(backbone: Backbone) -> float:
    """A prompt of words against the model's own forward pass over the same words."""
    rows, soft = _rows(backbone), _tokens(backbone)[-2 * P :][:P]
    ours = _losses(backbone, _prompts(backbone)[:1], _batch(backbone))
    model: Any = backbone.model
    theirs = []
    for words, target in rows:
        padding = _PADDING if backbone.padding_matters else 0
        apart = [*words, *[backbone.end_id] * padding, *soft]
        text = [*soft, *words] if backbone.position == "prepend" else apart
        given = {"input_ids": [text]}
        if padding:
            seen = [1] * len(words) + [0] * padding + [1] * len(soft)
            given["attention_mask"] = [seen]
        start = len(text) - 1
        if isinstance(backbone, DecoderOnly):
            given["input_ids"][0] += target[:-1]
        else:
            prefix: list[int] = getattr(backbone, "_prefix")  # noqa: B009  (encoder-decoders)
            given["decoder_input_ids"] = [[*prefix, *target[:-1]]]
            start = len(prefix) - 1
        inputs = {key: torch.tensor(ids, device=backbone.device) for key, ids in given.items()}
        logits = model(**inputs, use_cache=False).logits[0, start:]
        wide = logits if logits.dtype == torch.float64 else logits.float()
        wanted = torch.tensor(target, device=backbone.device)
        theirs.append(torch.nn.functional.cross_entropy(wide, wanted))
    return _apart(ours, torch.stack(theirs))


def _padding(backbone: Backbone) -> float:
    """Rows alone against the same rows in one batch, on the path that training takes."""
    with torch.enable_grad():
        prompts = _prompts(backbone)[:1].requires_grad_()
        together = _losses(backbone, prompts, _batch(backbone))
        alone = [_losses(backbone, prompts, _collate(backbone, [row])) for row in _rows(backbone)]
    return _apart(together, torch.cat(alone))


@torch.no_grad()
def _generation(backbone: Backbone) -> float:
    """The targets' probabilities while they are written, token by token, against the loss."""
    prompts, batch = _prompts(backbone)[:1], _batch(backbone)
    return _apart(_written(backbone, prompts, batch), _losses(backbone, prompts, batch))


@torch.no_grad()
def _written(backbone: Backbone, prompts: Tensor, batch: Batch) -> Tensor:
    """Return the rows' losses on the path of generation, which is given the targets' tokens."""
    written = _tokens_written(backbone, backbone.start_decoding(prompts, batch), batch.target_ids)
    return written.sum(1) / batch.target_mask.sum(1)


def _slope(backbone: Backbone, prompts: Tensor, batch: Batch) -> Tensor:
    """Return the gradient [1, P, d] of the rows' loss."""
    leaf = prompts.clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(backbone.run_losses(leaf, batch).sum(), leaf)
    return slope


@torch.no_grad()
def _continued(backbone: Backbone, prompts: Tensor, batch: Batch) -> Tensor:
    """Return the rows' losses where generation goes on after the targets' first two tokens."""
    targets = batch.target_ids  # all of one length
    states, read = backbone.read_targets(prompts, batch, targets.shape[1])
    if read is None:
        return _losses(backbone, prompts, batch)
    log_p = backbone.head(states).log_softmax(-1).gather(1, targets.reshape(-1, 1))
    known = -log_p.view_as(targets)[:, :2]
    rows = [read.row(row, ids) for row, ids in enumerate(targets[:, :2].tolist())]
    written = _tokens_written(backbone, backbone.resume_decoding(rows), targets[:, 2:])
    return torch.cat([known, written], 1).mean(1)


def _tokens_written(backbone: Backbone, decoding: Decoding, tokens: Tensor) -> Tensor:
    """Return the loss of each of these tokens [B, n] where the model is made to write them."""
    losses: list[Tensor] = []
    token: Tensor | None = None
    for step in range(tokens.shape[1]):
        log_p = backbone.head(decoding.next_states(token)).log_softmax(-1)
        token = tokens[:, step]
        losses.append(-log_p.gather(1, token[:, None])[:, 0])
    return torch.stack(losses, 1).double()


def _without_gradient(backbone: Backbone) -> float:
    """Prompt tokens whose gradient is zero or not finite, and weights that would be trained."""
    size = _slope(backbone, _prompts(backbone)[:1], _batch(backbone)).abs().sum(2)
    dead = int((~(size.isfinite() & (size > 0))).sum())
    return dead + sum(weight.requires_grad for weight in backbone.model.parameters())


@torch.no_grad()
def _other_prompt(backbone: Backbone) -> float:
    """How far the losses move when the prompt is another."""
    prompts, rows = _prompts(backbone), _rows(backbone)
    one = _losses(backbone, prompts, _collate(backbone, rows))
    other = _losses(backbone, prompts, _collate(backbone, rows, run=1))
    return _apart(one, other)
