"""What every command line of the project shares: errors as one line, numbers and lists."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mpt.errors import UsageError


def unfinished(command: Sequence[str]) -> str:
    """Say what a signal has ended, of any command; a search that has begun says more by itself.

    Args:
        command: words of the call, without flags.
    """
    return f"{' '.join(command)} has not finished; run it again: what is stored stays done"


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line; no abbreviated flags."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise one line instead of printing the usage."""
        raise UsageError(f"{message} (see --help)")


def number(text: str) -> float:
    """Parse a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be a number")
    return value


def whole(low: int) -> Callable[[str], int]:
    """Return a parser of whole numbers ≥ `low`."""

    def parse(text: str) -> int:
        with contextlib.suppress(ValueError):
            if int(text) >= low:
                return int(text)
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be a whole number ≥ {low}")

    return parse


def names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of different names."""
    words = tuple(word.strip() for word in text.split(","))
    if not all(words) or len(set(words)) < len(words):
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be different names, like a,b")
    return words


def rates(text: str) -> tuple[float, ...]:
    """Parse comma-separated numbers > 0."""
    return tuple(number(word) for word in text.split(","))


def seeds(text: str) -> tuple[int, ...]:
    """Parse comma-separated whole numbers ≥ 0."""
    return tuple(whole(0)(word) for word in text.split(","))


def absolute_path(text: str | Path) -> Path:
    """Parse a local path; ``~`` is the home directory."""
    return Path(text).expanduser().absolute()
