"""What a backbone is, whether it passes the self-check, and what suits it.

``describe(name)`` loads the model; ``lines(description)`` is what a command prints.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mpt.backbones.base import Backbone, Row
from mpt.backbones.check import Finding, findings, settle_cache
from mpt.backbones.decoder_only import DecoderOnly
from mpt.backbones.load import load_backbone
from mpt.backbones.memory import GIB, Memory, estimate_config
from mpt.errors import UsageError

WORTH = 1.2
"""bfloat16 is suggested where a whole step is at least this many times as fast as in float32."""
AGREE = 0.99
"""And where the prompt's gradients in the two have at least this cosine. On SmolLM2 those of
bfloat16 are 2.5–3.2 % off (cosines ≥ .9995; 8 rows each of three real tasks)."""
_TOKENS = 256
_ROUNDS = 5
_STEP = (20, 48, 4)
"""Prompt, input and target tokens of the step that is timed, at the most."""


@dataclass(frozen=True, kw_only=True)
class Narrow:
    """What bfloat16 brings on one device, measured there."""

    block: float
    """Seconds in float32 / seconds in bfloat16 of a block's matrices, forward and back."""
    step: float | None = None
    """The same of a whole step of the model; None where it was not timed, because matrices alone
    gain too little or the model cannot be used."""
    cosine: float | None = None
    """Of the prompt's gradients in that step."""

    @property
    def suggested(self) -> str:
        """The suggested number format."""
        if self.step is None or self.cosine is None:
            return "float32"
        return "bfloat16" if self.step >= WORTH and self.cosine >= AGREE else "float32"

    def text(self, device: str) -> str:
        """Return what was measured, in words."""
        block = f"in bfloat16 a block of its width is {self.block:.2f} × as fast on this {device}"
        if self.step is None:
            return block
        step = f"a whole step {self.step:.2f} ×, with gradients of cosine {self.cosine:.4f}"
        return f"{block}, {step}"


@dataclass(frozen=True, kw_only=True)
class Description:
    """Facts about a backbone on one device."""

    name: str
    """What the user called it."""
    architecture: str
    """Model type of its configuration."""
    kind: str
    """"causal" or "sequence to sequence"."""
    weights: int
    """Number of weights, tied ones once."""
    d_model: int
    """Width of the embeddings and of a prompt token."""
    vocabulary: int
    """Tokens that the head tells apart."""
    positions: int | None
    """Most tokens of a line; None where there is no limit."""
    embedding_std: float
    """Standard deviation of the embeddings' entries: learning rates are steps in this unit."""
    chat: bool
    """Whether the tokenizer has a chat template."""
    caches_inputs: bool
    """Whether inputs are read once where the prompt is appended."""
    findings: tuple[Finding, ...]
    """The self-check."""
    refusal: str
    """Why the self-check could not be made; empty where it was."""
    memory: Mapping[str, Memory]
    """Precision → memory of a step of `rows` rows; empty where it cannot be counted."""
    rows: int
    """Rows of that step."""
    tokens: tuple[int, int, int]
    """Prompt, input and target tokens of each of its rows."""
    narrow: Narrow
    """What bfloat16 brings."""
    device: str
    """Where it was measured."""

    @property
    def passes(self) -> bool:
        """Whether prompts can be tuned on it."""
        return not self.refusal and all(finding.passed for finding in self.findings)

    @property
    def position(self) -> str:
        """The suggested place of the prompt."""
        return "append" if self.caches_inputs else "prepend"

    @property
    def precision(self) -> str:
        """The suggested number format."""
        return self.narrow.suggested


def describe(
    name: str,
    *,
    device: str = "cpu",
    rows: int = 8,
    prompt: int = 100,
    inputs: int = 256,
    targets: int = 16,
) -> Description:
    """Load a backbone in float32 and return what can be said of it.

    Args:
        name: as in `load_backbone`.
        device: where it is checked and speed is measured.
        rows: rows of the step whose memory is counted.
        prompt: its prompt tokens.
        inputs: input tokens of each row; fewer where the model has too few positions.
        targets: target tokens of each row.

    Raises:
        UsageError: there is no such backbone, or no way to put a prompt into it.
        DataError: it is there but cannot be read.
    """
    backbone = load_backbone(name, device=device, position="append", check=False)
    model: Any = backbone.model
    settle_cache(backbone)
    refusal = ""
    checks: tuple[Finding, ...] = ()
    try:
        checks = tuple(findings(backbone))
    except UsageError as error:
        refusal = str(error)
    limit = backbone._max_positions
    if limit is not None:
        inputs = max(1, min(inputs, limit - prompt - targets))
    causal = isinstance(backbone, DecoderOnly)
    embeddings = backbone.embeddings()
    return Description(
        name=name,
        architecture=str(model.config.model_type),
        kind="causal" if causal else "sequence to sequence",
        weights=sum(weight.numel() for weight in model.parameters()),
        d_model=backbone.d_model,
        vocabulary=backbone.vocabulary_size,
        positions=limit,
        embedding_std=float(embeddings.std()),
        chat=causal and bool(getattr(backbone._tokenizer, "chat_template", None)),
        caches_inputs=_caches(backbone),
        findings=checks,
        refusal=refusal,
        memory=_memory(name, model, rows, prompt, inputs, targets),
        rows=rows,
        tokens=(prompt, inputs, targets),
        narrow=_narrow(backbone, rows, prompt, inputs, targets, usable=not refusal),
        device=device,
    )


def lines(about: Description) -> list[str]:
    """Return a description as lines of text."""
    positions = "no limit" if about.positions is None else f"{about.positions}"
    chat = "with a chat template" if about.chat else "without a chat template"
    text_lines = [
        f"{about.name}: {about.architecture}, {about.kind}, {about.weights / 1e6:.1f} M weights",
        f"width {about.d_model}, vocabulary {about.vocabulary}, positions {positions}, {chat}, "
        f"embeddings' std {about.embedding_std:.3g}",
        *(f"check  {finding}" for finding in about.findings),
    ]
    if about.refusal:
        text_lines.append(f"check  {about.refusal}")
    text_lines.append(f"check  {'passed' if about.passes else 'FAILED: it cannot be used'}")
    p, n, t = about.tokens
    for precision, memory in about.memory.items():
        text_lines.append(
            f"memory of a step in {precision}: {memory.fused / GIB:.2f} GiB ({about.rows} rows of "
            f"{p} + {n} + {t} tokens; {memory.weights / GIB:.2f} GiB of it weights; exact second "
            f"order {memory.total / GIB:.2f} GiB)"
        )
    why = "its inputs are read once" if about.caches_inputs else "inputs cannot be cached"
    text_lines.append(f"suggested position   {about.position} ({why})")
    text_lines.append(
        f"suggested precision  {about.precision} ({about.narrow.text(about.device)})"
    )
    return text_lines


def _caches(backbone: Backbone) -> bool:
    return (
        isinstance(backbone, DecoderOnly)
        and backbone.input_cache is not None
        and backbone._takes_positions
    )


def _memory(
    name: str, model: Any, rows: int, prompt: int, inputs: int, targets: int
) -> dict[str, Memory]:
    by_precision = {}
    for precision in ("float32", "bfloat16"):
        try:
            by_precision[precision] = estimate_config(
                name,
                model.config,
                rows=rows,
                prompt=prompt,
                inputs=inputs,
                targets=targets,
                dtype=getattr(torch, precision),
            )
        except UsageError:  # a mask that no meta tensor can stand for: nothing is said
            return {}
    return by_precision


def _narrow(
    backbone: Backbone, rows: int, prompt: int, inputs: int, targets: int, *, usable: bool
) -> Narrow:
    """Measure what bfloat16 brings: a block first, and a whole step where that gains enough."""
    block = bfloat16_speed_up(backbone.d_model, backbone.device)
    if block < WORTH or not usable:
        return Narrow(block=block)
    sizes = (prompt, inputs, targets)
    p, n, t = (min(asked, most) for asked, most in zip(sizes, _STEP, strict=True))
    step, cosine = step_speed_up(backbone, rows=rows, prompt=p, inputs=n, targets=t)
    return Narrow(block=block, step=step, cosine=cosine)


def step_speed_up(
    backbone: Backbone, *, rows: int, prompt: int, inputs: int, targets: int
) -> tuple[float, float]:
    """Return how many times as fast a training step is in bfloat16, and how alike its gradients.

    The first is seconds in float32 / seconds in bfloat16, the second the cosine between the
    prompt's gradients in the two. Medians of `_ROUNDS` interleaved rounds; where inputs are read
    once, they have been. The weights are there twice for that time, once at half the size.

    Args:
        backbone: in float32.
        rows: rows of the step, of random tokens.
        prompt: prompt tokens.
        inputs: input tokens of each row.
        targets: target tokens of each row.
    """
    narrow = type(backbone)(
        backbone.name,
        copy.deepcopy(backbone.model).to(torch.bfloat16),
        backbone._tokenizer,
        backbone.position,
    )
    if isinstance(narrow, DecoderOnly) and not _caches(backbone):
        narrow.input_cache = None
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> list[int]:
        return torch.randint(backbone.vocabulary_size, (count,), generator=generator).tolist()

    drawn_rows = [(drawn(inputs), drawn(targets)) for _ in range(rows)]
    start = backbone.embeddings()[drawn(prompt)].detach().float()[None]
    gradients: list[Tensor] = []
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS + 1):
        gradients.clear()
        for model, times in zip((backbone, narrow), seconds, strict=True):
            began = time.perf_counter()
            gradients.append(_gradient(model, start, drawn_rows))
            times.append(time.perf_counter() - began)
    one, other = (gradient.flatten() for gradient in gradients)
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=0)
    full, half = (statistics.median(times[1:]) for times in seconds)
    return full / half, float(cosine)


def _gradient(backbone: Backbone, start: Tensor, rows: Sequence[Row]) -> Tensor:
    """Return the gradient [1, P, d] of a step; it is there when this returns."""
    with torch.enable_grad():
        prompts = start.clone().requires_grad_()
        loss = backbone.run_losses(prompts, backbone.collate(rows, [0] * len(rows))).sum()
        (slope,) = torch.autograd.grad(loss, prompts)
    return slope.cpu()


def bfloat16_speed_up(d: int, device: torch.device) -> float:
    """Return seconds in float32 / seconds in bfloat16 of a block's matrices, forward and back.

    Medians of `_ROUNDS` interleaved rounds on matrices [d, 4d] and [4d, d] of `_TOKENS` tokens.
    """
    blocks = {}
    for dtype in (torch.float32, torch.bfloat16):
        generator = torch.Generator().manual_seed(0)
        up, down, states = (
            torch.randn(shape, generator=generator).to(device, dtype)
            for shape in ((d, 4 * d), (4 * d, d), (_TOKENS, d))
        )
        blocks[dtype] = (up, down, states.requires_grad_())
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in blocks}
    for _ in range(_ROUNDS + 1):
        for dtype, (up, down, states) in blocks.items():
            started = time.perf_counter()
            with torch.enable_grad():
                loss = (torch.nn.functional.gelu(states @ up) @ down).float().square().mean()
                torch.autograd.grad(loss, states)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[dtype].append(time.perf_counter() - started)
    wide, narrow = (statistics.median(seconds[dtype][1:]) for dtype in blocks)
    return wide / narrow
