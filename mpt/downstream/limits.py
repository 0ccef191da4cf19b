"""How much goes through the model at once, and what happens when memory runs out.

The memory of a step lies in its largest pass, not in the number of runs: a prompt and its
optimiser state take a few hundred KB. So a pass that does not fit is cut into smaller ones, and no
run has to leave.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch

from mpt.errors import DataError, UsageError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")


@dataclass(frozen=True, kw_only=True)
class PackLimits:
    """What is packed. The bits of a leaf depend on it (never more than rounding): store it."""

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
        source = self.source
        if tokens is not None and tokens < self.tokens:
            source += f"; out of memory in training: tokens {self.tokens} → {tokens}"
        if evaluation is not None and evaluation < self.evaluation:
            source += f"; out of memory in evaluation: tokens {self.evaluation} → {evaluation}"
        return dataclasses.replace(
            self,
            tokens=self.tokens if tokens is None else tokens,
            evaluation_tokens=self.evaluation_tokens if evaluation is None else evaluation,
            source=source,
        )


def default_limits(device: torch.device | str) -> PackLimits:
    """Return limits that are the same on every machine with this kind of device.

    On a CPU larger passes leave the cache and are slower. The numbers for CUDA are cautious
    guesses (a launch-bound pass of T5-large costs as much as some 8000 tokens): measure there.
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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or on a CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


def attempt(run: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
    """Return what a pass gives, or None where memory runs out: nothing of it is held then."""
    try:
        return run(*args, **kwargs)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def halved(tokens: int, *, rows: int, padded: int) -> int:
    """Return a limit halved until it forbids the pass that did not fit.

    Args:
        tokens: the limit.
        rows: rows of the pass.
        padded: its padded tokens.

    Raises:
        UsageError: the pass was of one row: nothing smaller is left.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if rows <= 1:
        raise UsageError(
            f"a pass of one row of {padded} tokens (prompt included) does not fit into memory; "
            "shorten the prompt, max_input or max_target, or take a larger device"
        )
    tokens //= 2
    while tokens >= padded:
        tokens //= 2
    return max(1, tokens)
