"""Reading a TOML file whose every key must be known; errors name file and key."""

from __future__ import annotations

import copy
import difflib
import functools
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpt.errors import DataError, UsageError
from mpt.rules import Rule, at_least, broken


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        UsageError: there is no such file.
        DataError: it is not TOML in UTF-8 (the text names the line), or cannot be read.
    """
    return parse_toml(read_toml_text(path), path)


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Return the tables that stand in a text; `path` is for messages only (see `read_toml`)."""
    try:
        return copy.deepcopy(_tables(text))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: not a TOML file in UTF-8: {error}") from None


@functools.lru_cache(maxsize=32)  # for every cell of a study the same few files are read
def _tables(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def read_toml_text(path: Path) -> str:
    """Return what stands in a TOML file; errors are those of `read_toml`."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a TOML file in UTF-8: {error}") from None
    except OSError as error:
        if not os.path.lexists(path):
            raise UsageError(
                f"{path}: no such file; install the project from its folder (pip install -e .)"
            ) from None
        reason = os.strerror(error.errno or 0)
        raise DataError(
            f"{path}: cannot be read ({reason}), but must be a TOML file; mend or remove it"
        ) from None


def table_of(value: Any, path: Path, where: str) -> Mapping[str, Any]:
    """Return `value` if it is a table, else raise `DataError`."""
    if not isinstance(value, dict):
        raise DataError(f"{path}: [{where}] is {value!r}, but must be a table")
    return value


def tables_of(value: Any, path: Path, where: str) -> dict[str, Mapping[str, Any]]:
    """Return name → table of a table of tables, else raise `DataError`."""
    rows = table_of(value, path, where)
    return {name: table_of(row, path, f"{where}.{name}") for name, row in rows.items()}


def only_keys(
    table: Mapping[str, Any],
    known: Sequence[str],
    path: Path,
    where: str,
    needed: Sequence[str] = (),
) -> None:
    """Refuse a table with unknown keys, or without some that it needs; all of them are named.

    Args:
        table: the table.
        known: the keys that it may have.
        path: the file, for errors.
        where: the table's name; empty for the whole file.
        needed: the keys that it must have.

    Raises:
        DataError: beside an unknown key stands the known one that is nearest to it.
    """
    unknown = [
        f"has the unknown key {key!r}{_near(key, known)}" for key in table if key not in known
    ]
    lacks = [f"lacks {key!r}" for key in needed if key not in table]
    if not (unknown or lacks):
        return
    cure = f"known are {', '.join(known)}" if unknown else "give it"
    table_name = f"[{where}] " if where else ""
    raise DataError(f"{path}: {table_name}{', '.join((*unknown, *lacks))}; {cure}")


def _near(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def check_values(
    table: Mapping[str, Any], path: Path, where: str, rules: Mapping[str, Rule]
) -> None:
    """Raise one `DataError` that names every value of a table that breaks its rule."""
    if faults := broken(table, rules):
        raise DataError(f"{path}: [{where}] {faults}")


def whole_of(table: Mapping[str, Any], key: str, path: Path, where: str, low: int = 1) -> int:
    """Return the whole number ≥ `low` at a key of a table, else raise `DataError`."""
    check_values(table, path, where, {key: at_least(low)})
    return int(table[key])


def names_of(value: Any, path: Path, where: str) -> tuple[str, ...]:
    """Return different names as they stand in a list, else raise `DataError`.

    Args:
        value: what stands in the file.
        path: the file.
        where: table and key, for errors.
    """
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise DataError(f"{path}: {where} is {value!r}, but must be a list of task names")
    for name in value:
        if value.count(name) > 1:
            raise DataError(f"{path}: {where} names {name!r} twice; take one away")
    return tuple(value)
