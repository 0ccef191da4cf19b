r"""The small language of a task row: paths into a raw row, filters, and templates.

``{a.b|nl|strip}`` is the value at path ``a.b`` of a row, passed through the filters from left to
right. A path enters structs by name and lists by number; a list of structs is entered item by
item, so that ``output.answer`` works on both forms in which the Hub stores a sequence of structs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]


class RowError(Exception):
    """A raw row breaks a rule; the text is the rule. The caller knows task, split and row."""


class Missing(RowError):
    """A path leads nowhere."""


def get(row: Row, path: str) -> Any:
    """Return the value at a dotted path.

    Raises:
        Missing: a field on the way is absent.
    """
    value: Any = row
    for part in path.split("."):
        value = _step(value, part, path)
    return value


def _step(value: Any, part: str, path: str) -> Any:
    if isinstance(value, Mapping) and part in value:
        return value[part]
    if isinstance(value, list) and part.isdigit():
        if int(part) < len(value):
            return value[int(part)]
    elif isinstance(value, list):
        return [_step(item, part, path) for item in value]
    raise Missing(f"field {path!r} is missing")


def _each_newline(replacement: str) -> Callable[[str], str]:
    return lambda text: text.replace("\n", replacement)


def _clean(text: str) -> str:
    return " ".join(text.replace("\\n", " ").split())


_CONTROLS = str.maketrans("\n\t\r", "   ")

TEXT_FILTERS: Mapping[str, Callable[[str], str]] = {
    "nl": _each_newline(" "),
    "nlmark": _each_newline(" [n] "),
    "ws3": lambda text: text.translate(_CONTROLS),
    "strip": str.strip,
    "lower": str.lower,
    "nospace": lambda text: text.replace(" ", ""),
    "litnl": lambda text: text.replace("\\n", " "),
    "comma": lambda text: text.replace("_comma_", ","),
    "unquote": lambda text: text.strip("'"),
    "maskfix": lambda text: text.replace("<mask>", "[MASK]"),
    "tidy": lambda text: " ".join(text.split()),
    "clean": _clean,
}
"""Filters of one text; on a list they apply to each item."""

LIST_FILTERS: Mapping[str, Callable[[Any], Any]] = {
    "sp": " ".join,
    "csv": ", ".join,
    "sep": " [SEP] ".join,
    "unique": lambda items: list(dict.fromkeys(items)),
    "nonempty": lambda items: [item for item in items if item],
    "sorted": sorted,
    "keys": list,
}
"""Filters of a list of texts ("keys": of a struct with any field names)."""


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [leaf for item in value for leaf in _flat(item)]


def apply(name: str, value: Any) -> Any:
    """Pass a value through one filter.

    Raises:
        RowError: the value is not of the type that the filter takes.
    """
    if name == "flat":
        return _flat(value)
    if name == "whole":
        if not isinstance(value, (int, float)) or value != int(value):
            raise RowError(f"{value!r} must be a whole number")
        return int(value)
    if name in LIST_FILTERS:
        kind = dict if name == "keys" else list
        if not isinstance(value, kind) or not all(isinstance(item, str) for item in value):
            raise RowError(f"{_short(value)} must be a list of texts")
        return LIST_FILTERS[name](value)
    if isinstance(value, list):
        return [apply(name, item) for item in value]
    if not isinstance(value, str):
        raise RowError(f"{_short(value)} must be text")
    return TEXT_FILTERS[name](value)


FILTERS = frozenset({*TEXT_FILTERS, *LIST_FILTERS, "flat", "whole"})
"""Every name that may follow a ``|``."""


class Expression:
    """A path with filters: ``a.b|nl|strip``."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.path, *self.filters = text.split("|")
        unknown = [name for name in self.filters if name not in FILTERS]
        if unknown:
            raise ValueError(f"unknown filter {unknown[0]!r} in {text!r}")

    def __repr__(self) -> str:  # a task's row is hashed through its repr
        return f"Expression({self.text!r})"

    @property
    def field(self) -> str:
        """The row's field that the path starts with."""
        return self.path.split(".")[0]

    def __call__(self, row: Row) -> Any:
        """Return the filtered value.

        Raises:
            RowError: the field is missing or has the wrong type.
        """
        value = get(row, self.path)
        try:
            for name in self.filters:
                value = apply(name, value)
        except RowError as error:
            raise RowError(f"field {self.path!r}: {error}") from error
        return value


class Template:
    """Text with expressions in braces."""

    def __init__(self, text: str) -> None:
        pieces = re.split(r"\{([^{}]+)\}", text)
        self._literals = pieces[0::2]
        self.expressions = [Expression(piece) for piece in pieces[1::2]]

    def __call__(self, row: Row) -> str:
        """Fill the template in; numbers are written as Python writes them.

        Raises:
            RowError: a field is missing, null, or neither text nor number.
        """
        out = [self._literals[0]]
        for expression, literal in zip(self.expressions, self._literals[1:], strict=True):
            value = expression(row)
            if not isinstance(value, (str, int, float)):
                raise RowError(f"field {expression.path!r} is {_short(value)}, but must be text")
            out += (str(value), literal)
        return "".join(out)


def _short(value: Any) -> str:
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
