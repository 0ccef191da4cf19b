"""When memory runs out: telling it from other errors, and what is tried instead."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from mpt.errors import UsageError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_WORDS = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or on a CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)


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
        raise row_too_long(padded)
    tokens //= 2
    while tokens >= padded:
        tokens //= 2
    return max(1, tokens)


def row_too_long(tokens: int) -> UsageError:
    """Return the error that a single row does not fit."""
    return UsageError(
        f"a pass of one row of {tokens} tokens (prompt included) does not fit into memory; "
        "shorten the prompt, max_input or max_target, or take a larger device"
    )
