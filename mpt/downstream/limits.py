"""How much goes through the model at once, and what happens when memory runs out.

The memory of a step lies in its largest pass, not in the number of runs: a prompt and its
optimiser state take a few hundred KB. So a pass that does not fit is cut into smaller ones, and no
run has to leave.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mpt.backbones.base import Backbone, Row
from mpt.downstream.out_of_memory import row_too_long
from mpt.downstream.probe import Probe, enough, pass_cost, power_of_two
from mpt.errors import DataError, UsageError

PASSES_PER_STEP = 8
"""Full passes that a step of all runs side by side should have."""
MOST_RUNS = 64
"""More runs side by side than this save nothing, and a lost interval costs more."""


@dataclass(frozen=True, kw_only=True)
class PackLimits:
    """What is packed. The bits of a run depend on it (never more than rounding): store it."""

    runs: int
    """Most runs side by side."""
    tokens: int
    """Most padded tokens of a training pass (prompt, input and target)."""
    pass_cost: int
    """Fixed cost of one more pass, in tokens; what padding is weighed against."""
    source: str
    """Where the numbers come from."""
    evaluation_tokens: int | None = None
    """Most padded tokens of an evaluation pass, which keeps no graph; None: as in training."""

    def __post_init__(self) -> None:
        for name, least in (("runs", 1), ("tokens", 1), ("pass_cost", 0), ("evaluation", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(
                    f"PackLimits: {name} is {value!r}, but must be a whole number ≥ {least}"
                )

    @property
    def evaluation(self) -> int:
        """Most padded tokens of an evaluation pass."""
        return self.tokens if self.evaluation_tokens is None else self.evaluation_tokens

    def to_dict(self) -> dict[str, Any]:
        """Return the limits as JSON has them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PackLimits:
        """Return the limits that gave these values.

        Raises:
            DataError: a value is missing, unknown or no limit.
        """
        try:
            return cls(**values)
        except (TypeError, UsageError) as error:
            raise DataError(f"pack limits are {values!r}: {error}") from None

    def shrunk(self, *, tokens: int | None = None, evaluation: int | None = None) -> PackLimits:
        """Return the limits after memory has run out; `source` says so."""
        changed: dict[str, Any] = {}
        source = self.source
        if tokens is not None and tokens < self.tokens:
            changed["tokens"] = tokens
            source += f"; out of memory in training: tokens {self.tokens} → {tokens}"
        if evaluation is not None and evaluation < self.evaluation:
            changed["evaluation_tokens"] = evaluation
            source += f"; out of memory in evaluation: tokens {self.evaluation} → {evaluation}"
        return dataclasses.replace(self, source=source, **changed)


def default_limits(device: torch.device | str) -> PackLimits:
    """Return limits that are the same on every machine with this kind of device.

    On a CPU little depends on them. CPU seconds of a step of the embedded search's queue (25 runs
    of 5 tasks, batch 8, one thread), medians of 8 interleaved rounds, against the default: passes
    of 2048 tokens × 1.01, of 1024 × 1.04; a `pass_cost` of 32, 128 and 256 × 1.02, 1.01 and 1.02.
    Evaluation: 1024 and 2048 tokens × 0.99, 8192 × 1.05. The numbers for CUDA are cautious guesses
    (a launch-bound pass of T5-large costs as much as some 8000 tokens): measure there.
    """
    if torch.device(device).type == "cpu":
        return PackLimits(
            runs=32,
            tokens=4096,
            pass_cost=64,
            source="default for a CPU",
        )
    return PackLimits(
        runs=32,
        tokens=2**15,
        pass_cost=2**13,
        source="default for CUDA (not measured)",
        evaluation_tokens=2**16,
    )


def measure_limits(
    backbone: Backbone, rows: Sequence[Row], prompt_length: int, batch_size: int = 8
) -> PackLimits:
    """Return limits from short probes on this machine; a second probe may well differ.

    Memory: passes of two sizes give the bytes of a row; a pass may take `MEMORY_SHARE` of what is
    free. Speed: the rows of a pass are doubled until tokens per second rise by less than 5 %; the
    smallest and the largest pass give the fixed cost of one. Runs: as many as fill
    `PASSES_PER_STEP` passes, so that rows of like length find each other. All are rounded down to
    powers of two.

    Args:
        backbone: the frozen model, where it is to run.
        rows: tokenised rows like those to be trained on.
        prompt_length: P.
        batch_size: rows of a run's step.

    Raises:
        UsageError: there are no rows, or a single row does not fit into memory.
    """
    if not rows:
        raise UsageError("rows are empty, but limits are measured on at least one row")
    probe = Probe(backbone, max(rows, key=lambda row: len(row[0]) + len(row[1])), prompt_length)
    fits = probe.rows_that_fit()
    if fits < 1:
        raise row_too_long(probe.width)
    seconds = probe.seconds(fits)
    fast = enough(seconds)
    tokens = power_of_two(min(fast, fits) * probe.width)
    mean = prompt_length + sum(len(one) + len(other) for one, other in rows) / len(rows)
    return PackLimits(
        runs=min(MOST_RUNS, power_of_two(PASSES_PER_STEP * tokens / (batch_size * mean))),
        tokens=tokens,
        pass_cost=pass_cost(seconds, probe.width),
        source=(
            f"measured on {backbone.device.type}: rows of {probe.width} tokens, {fits} fit into "
            f"memory, {fast} are as fast as more"
        ),
    )
