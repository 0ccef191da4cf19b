"""Settings as frozen, keyword-only dataclasses; every check is made at construction, all at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpt.errors import UsageError

DATA_SEEDS = (13, 21, 42, 87, 100)
METHODS = ("maml",)


def _check(owner: object, **rules: tuple[Callable[[Any], bool], str]) -> None:
    """Raise one `UsageError` that names every field of `owner` that breaks its rule."""
    broken = []
    for field, (holds, rule) in rules.items():
        value = getattr(owner, field)
        try:
            fine = holds(value)
        except TypeError:
            fine = False
        if not fine:
            broken.append(f"{field} is {value!r}, but must be {rule}")
    if broken:
        raise UsageError(f"{type(owner).__name__}: " + "; ".join(broken))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _at_least(low: int) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: _is_int(value) and value >= low), f"a whole number ≥ {low}"


_POSITIVE = ((lambda value: _is_number(value) and value > 0), "a finite number > 0")
_RATE = ((lambda value: _is_number(value) and 0 <= value < 1), "a number in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """The soft prompt φ ∈ R^{P×d}."""

    length: int = 100
    """P, virtual tokens."""
    position: str = "prepend"
    """Where φ stands: "prepend" (paper) or "append" (released code), padding-invariantly both."""

    def __post_init__(self) -> None:
        _check(
            self,
            length=_at_least(1),
            position=((lambda p: p in ("prepend", "append")), '"prepend" or "append"'),
        )


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How an example becomes token ids (PROTOCOL rows 7, 8)."""

    max_input: int = 512
    """Tokens of the input, end mark included; longer inputs are truncated."""
    max_target: int = 64
    """Tokens of the target, end mark included; longer targets are truncated."""

    def __post_init__(self) -> None:
        _check(self, max_input=_at_least(2), max_target=_at_least(2))


@dataclass(frozen=True, kw_only=True)
class UpstreamConfig:
    """One trajectory of upstream learning; its total number of steps is not a part of it (rungs)."""

    method: str = "maml"
    """Row of `mpt.upstream`: which outer gradient."""
    inner_lr: float = 3e-5
    """α, learning rate of the inner SGD steps."""
    outer_lr: float = 0.5
    """β, learning rate of the outer Adafactor."""
    inner_steps: int = 1
    """k, inner SGD steps per episode."""
    batch_size: int = 2
    """Examples in the support batch and in the query batch."""
    items_per_step: int = 2
    """(task, data seed) items whose gradients are summed in one outer step."""
    dropout: float = 0.0
    """Dropout rate of the backbone while training upstream (released code: 0.1)."""

    def __post_init__(self) -> None:
        _check(
            self,
            method=((lambda m: m in METHODS), f"one of {', '.join(METHODS)}"),
            inner_lr=_POSITIVE,
            outer_lr=_POSITIVE,
            inner_steps=_at_least(1),
            batch_size=_at_least(1),
            items_per_step=_at_least(1),
            dropout=_RATE,
        )


@dataclass(frozen=True, kw_only=True)
class DownstreamConfig:
    """Prompt tuning on one target task (PROTOCOL §2); learning rates are tried one run each."""

    lrs: tuple[float, ...] = (0.5, 0.4, 0.3, 0.2)
    """Adafactor learning rates; ties on dev keep the earlier one."""
    batch_size: int = 8
    """Examples per step."""
    steps: int = 3000
    """Optimiser steps."""
    eval_every: int = 50
    """Steps between dev evaluations; the state after the last step is always evaluated."""
    select: str = "best"
    """Which prompt is tested: "best" on dev (first on ties) or "last"."""
    dropout: float = 0.0
    """Dropout rate of the backbone while tuning."""
    max_test: int | None = 1000
    """Test rows used, from the first on (PROTOCOL row 23); None: all."""
    max_dev: int | None = None
    """Dev rows used, from the first on; None: all."""
    max_generated: int = 64
    """Longest generated output in tokens."""

    def __post_init__(self) -> None:
        optional = (lambda n: n is None or (_is_int(n) and n >= 1)), "a whole number ≥ 1 or None"
        _check(
            self,
            lrs=(
                (lambda v: len(v) > 0 and len(set(v)) == len(v) and all(map(_POSITIVE[0], v))),
                "distinct finite numbers > 0, at least one",
            ),
            batch_size=_at_least(1),
            steps=_at_least(1),
            eval_every=_at_least(1),
            select=((lambda s: s in ("best", "last")), '"best" or "last"'),
            dropout=_RATE,
            max_test=optional,
            max_dev=optional,
            max_generated=_at_least(1),
        )


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Everything but the searched point: what is learned from, what is scored, and how."""

    backbone: str = "embedded"
    """"embedded", a Hub id or a local path."""
    gym: str = "embedded"
    """"embedded" or a directory of few-shot files."""
    partition: str = "random_to_random"
    """One of the ten partitions; its source tasks are learned from."""
    data_seeds: tuple[int, ...] = DATA_SEEDS
    """Few-shot samples per task; both upstream items and downstream leaves run over them."""
    train_seed: int = 42
    """Root of every generator."""
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    """The soft prompt."""
    text: TextConfig = dataclasses.field(default_factory=TextConfig)
    """Lengths."""
    downstream: DownstreamConfig = dataclasses.field(default_factory=DownstreamConfig)
    """Prompt tuning on the validation tasks."""

    def __post_init__(self) -> None:
        _check(
            self,
            data_seeds=(
                (lambda v: len(v) > 0 and len(set(v)) == len(v) and all(map(_is_int, v))),
                "distinct whole numbers, at least one",
            ),
            train_seed=_at_least(0),
        )
