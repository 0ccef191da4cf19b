"""Reading a TOML file whose every key must be known; errors name file and key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpt.errors import DataError, UsageError
from mpt.rules import at_least


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        UsageError: there is no such file.
        DataError: it is not TOML in UTF-8; the text names the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such file; install the project from its folder (pip install -e .)"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a TOML file in UTF-8: {error}") from None


def table_of(value: Any, path: Path, where: str) -> Mapping[str, Any]:
    """Return `value` if it is a table, else raise `DataError`."""
    if not isinstance(value, dict):
        raise DataError(f"{path}: [{where}] is {value!r}, but must be a table")
    return value


def only_keys(
    table: Mapping[str, Any],
    known: Sequence[str],
    path: Path,
    where: str,
    needed: Sequence[str] = (),
) -> None:
    """Refuse a table with an unknown key, or without one that it needs."""
    for key in table:
        if key not in known:
            raise DataError(
                f"{path}: [{where}] has the unknown key {key!r}; known are {', '.join(known)}"
            )
    for key in needed:
        if key not in table:
            raise DataError(f"{path}: [{where}] lacks {key!r}; give it")


def whole_of(table: Mapping[str, Any], key: str, path: Path, where: str, low: int = 1) -> int:
    """Return the whole number ≥ `low` at a key of a table, else raise `DataError`."""
    (holds, rule), value = at_least(low), table.get(key)
    if not holds(value):
        raise DataError(f"{path}: [{where}] {key} is {value!r}, but must be {rule}")
    return int(table[key])
