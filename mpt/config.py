"""Settings as frozen, keyword-only dataclasses; all checks are made at once, at construction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpt.errors import UsageError

DATA_SEEDS = (13, 21, 42, 87, 100)
METHODS = ("maml", "fomaml", "reptile", "multitask")
EMBEDDED_BACKBONES = ("embedded", "embedded-bart", "embedded-gpt2")
"""The packaged backbones: a T5, a BART and a GPT-2; they share studies, spaces and settings."""
TEMPLATES = ("plain", "chat")
PRECISIONS = ("float32", "bfloat16", "float16")
SECOND_ORDER = ("auto", "finite_difference", "exact", "higher", "unrolled")


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
    template: str = "plain"
    """"plain" text to text (paper), or "chat": the template that the tokenizer brings along."""

    def __post_init__(self) -> None:
        _check(
            self,
            max_input=_at_least(2),
            max_target=_at_least(2),
            template=((lambda t: t in TEMPLATES), '"plain" or "chat"'),
        )


@dataclass(frozen=True, kw_only=True)
class UpstreamConfig:
    """One trajectory of upstream learning; its number of steps is not a part of it (rungs)."""

    method: str = "maml"
    """Row of `mpt.upstream`: which outer gradient."""
    inner_lr: float = 3e-5
    """α, learning rate of the inner SGD steps."""
    outer_lr: float = 0.5
    """β, learning rate of the outer Adafactor."""
    inner_steps: int = 1
    """k, inner SGD steps per episode; multitask learning has none and ignores it."""
    batch_size: int = 2
    """Examples in the support batch and in the query batch, or in a multitask batch."""
    items_per_step: int = 2
    """Episodes whose gradients are put together in one outer step: (task, data seed) items, or
    batches of multitask learning."""
    dropout: float = 0.0
    """Dropout rate of the backbone while training upstream (released code: 0.1)."""
    second_order: str = "auto"
    """How MAML computes its second-order term, see `mpt.upstream.second_order`; "auto" chooses by
    the backbone's dtype and size. The other methods have no such term."""
    reptile_difference: str = "accumulated"
    """How Reptile forms φ − φ_k: "accumulated" in a tensor of its own, or "subtracted" as the
    released code does (PROTOCOL row 15: in float32 nothing but rounding is left of it)."""
    activation_checkpointing: bool = False
    """Recompute activations in first-order passes: less memory, one more forward pass each."""

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
            second_order=((lambda m: m in SECOND_ORDER), f"one of {', '.join(SECOND_ORDER)}"),
            reptile_difference=(
                (lambda m: m in ("accumulated", "subtracted")),
                '"accumulated" or "subtracted"',
            ),
            activation_checkpointing=((lambda on: isinstance(on, bool)), "true or false"),
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
    max_epochs: int | None = None
    """Most epochs over the train rows: a run on few rows ends earlier (PROTOCOL row 12). None: no
    cap."""
    eval_every: int = 50
    """Steps between dev evaluations; the state after the last step is always evaluated."""
    select: str = "best"
    """Which prompt is tested: "best" on dev (first on ties) or "last"."""
    patience: int | None = None
    """Evaluations in a row without a better dev score after which a run ends. None: never."""
    catch_up: float | None = None
    """A run ends when its best dev score is more than this (a fraction) below that of another
    learning rate of its family after the same step, or when an earlier rate has the highest score
    there is (see `mpt.downstream.stopping`). None: never."""
    catch_up_after: int = 4
    """Evaluations of a run before `catch_up` compares its score."""
    dropout: float = 0.0
    """Dropout rate of the backbone while tuning."""
    max_test: int | None = 1000
    """Test rows used, from the first on (PROTOCOL row 23); None: all."""
    max_dev: int | None = None
    """Dev rows used, from the first on; None: all."""
    max_generated: int = 64
    """Longest generated output in tokens."""
    beams: int = 1
    """Beams of generation; 1 is greedy (paper). The released code searches with 4 and stops early.
    With more than 1, or with a repetition penalty, every output is really generated."""
    repetition_penalty: float = 1.0
    """Scores of tokens already generated are divided by it if positive and else multiplied; 1 is
    none, the released code has 2.5."""
    length_penalty: float = 1.0
    """Beams are compared by log-probability / length^length_penalty."""

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
            max_epochs=optional,
            eval_every=_at_least(1),
            patience=optional,
            catch_up=(
                (lambda v: v is None or (_is_number(v) and v >= 0)),
                "a finite number ≥ 0 or None",
            ),
            catch_up_after=_at_least(1),
            select=((lambda s: s in ("best", "last")), '"best" or "last"'),
            dropout=_RATE,
            max_test=optional,
            max_dev=optional,
            max_generated=_at_least(1),
            beams=_at_least(1),
            repetition_penalty=_POSITIVE,
            length_penalty=((lambda v: _is_number(v) and v >= 0), "a finite number ≥ 0"),
        )

    def steps_on(self, rows: int) -> int:
        """Return the steps of a run on a task of this many train rows."""
        if self.max_epochs is None:
            return self.steps
        return min(self.steps, self.max_epochs * math.ceil(rows / self.batch_size))


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Everything but the searched point: what is learned from, what is scored, and how."""

    backbone: str = "embedded"
    """One of `EMBEDDED_BACKBONES`, a Hub id or a local path."""
    gym: str = "embedded"
    """"embedded" or a directory of few-shot files."""
    partition: str = "random_to_random"
    """One of the ten partitions; its source tasks are learned from."""
    data_seeds: tuple[int, ...] = DATA_SEEDS
    """Few-shot samples per task; both upstream items and downstream leaves run over them."""
    train_seed: int = 42
    """Root of every generator."""
    precision: str = "float32"
    """Number format of the backbone's weights and activations; `load_backbone` refuses "float16".
    Prompts and optimisers are float32 with any of them."""
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    """The soft prompt."""
    text: TextConfig = dataclasses.field(default_factory=TextConfig)
    """Lengths downstream."""
    upstream_lengths: TextConfig | None = None
    """Lengths upstream where they differ (PROTOCOL row 8); None: those downstream."""
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
            precision=((lambda p: p in PRECISIONS), f"one of {', '.join(PRECISIONS)}"),
        )

    @property
    def upstream_text(self) -> TextConfig:
        """Lengths upstream."""
        return self.text if self.upstream_lengths is None else self.upstream_lengths
