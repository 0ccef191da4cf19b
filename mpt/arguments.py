"""What every command line of the project shares: errors as one line, and numbers."""

from __future__ import annotations

import argparse
import math
from typing import Any, NoReturn

from mpt.errors import UsageError


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
