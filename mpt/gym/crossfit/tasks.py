"""The rows of ``tasks.toml`` as checked values; the comment at its top explains every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mpt.gym
from mpt.errors import DataError
from mpt.gym.crossfit.special import CODE
from mpt.gym.crossfit.template import Expression, Template
from mpt.keys import tupled
from mpt.toml_file import only_keys, read_toml, table_of

GONE = "gone"
"""`TaskRow.revision` of a data set that the Hub no longer has."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Which raw splits are read, and which of their lines are the train pool and the test."""

    train: str | None = None
    test: str | None = None
    keep_test: float = 1.0
    pool: str | None = None
    train_until: float = 0.0
    test_from: float = 0.0
    train_rows: tuple[int, int] | None = None
    test_rows: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.pool is None) == (self.train is None or self.test is None):
            raise ValueError("splits needs either train and test, or pool")

    @property
    def names(self) -> tuple[str, ...]:
        """The raw splits that are read, the one of the train pool first."""
        if self.pool is not None:
            return (self.pool,)
        assert self.train is not None
        assert self.test is not None
        return (self.train, self.test)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows with an equal value at `by` become one row; fields in `collect` become lists."""

    by: str
    collect: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Answer options, and how each is written."""

    texts: str | tuple[str, ...]
    letters: str | None = None
    each: str = " ({letter}) {text}"
    shuffle: bool = False

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """One expression of a list, or one an option."""
        texts = (self.texts,) if isinstance(self.texts, str) else self.texts
        return tuple(map(Expression, texts))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Which option is right: the one with this letter, or at this index (from `first` on)."""

    letter: str | None = None
    index: str | None = None
    first: int = 0
    others: str = "error"

    def __post_init__(self) -> None:
        if (self.letter is None) == (self.index is None):
            raise ValueError("answer needs either letter or index")
        if self.others not in ("error", "missing"):
            raise ValueError(f'others is {self.others!r}, but must be "error" or "missing"')

    @property
    def field(self) -> str:
        """The field that says which option is right."""
        return self.letter or self.index or ""


@dataclass(frozen=True, kw_only=True)
class Label:
    """Words of the class ids `first`, `first` + 1, … at `field`."""

    field: str
    words: tuple[str, ...]
    first: int = 0


@dataclass(frozen=True)
class Drop:
    """Rows left out: those whose value at `field` passes the test `kind` with `value`."""

    field: Expression
    kind: str
    value: Any


DROP_KINDS = frozenset(
    ("is", "is_not", "above", "below", "starts", "contains", "empty", "missing", "fractional")
)


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One task: where its rows are, what becomes of each, how they are sampled."""

    name: str
    splits: Splits
    input: str
    sampler: str
    shots: int
    metric: str
    family: str
    group_of_family: str
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    url: str | None = None
    hub_note: str | None = None
    group: Group | None = None
    code: str | None = None
    choices: Choices | None = None
    answer: Answer | None = None
    drop: tuple[Drop, ...] = ()
    pair: tuple[str, str] | None = None
    input_then: str | None = None
    output: str | None = None
    label: Label | None = None
    label_today: Label | None = None
    references: str | None = None
    merge_equal_inputs: bool = False
    short: tuple[str, ...] = ()
    hash_ordered: bool = False
    reference: str | None = None
    licence: str | None = None
    deviations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.hub is None) == (self.url is None):
            raise ValueError("needs either hub or url")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision belong together")
        if (self.output, self.label, self.references).count(None) != 2:
            raise ValueError("needs one of output, label, references")
        if self.sampler not in ("per_label", "flat"):
            raise ValueError(f'sampler is {self.sampler!r}, but must be "per_label" or "flat"')
        if self.code is not None and self.code not in CODE:
            raise ValueError(f"code {self.code!r} is not in mpt/gym/crossfit/special.py")

    @property
    def per_label(self) -> bool:
        """Whether `shots` counts examples of each class."""
        return self.sampler == "per_label"

    @property
    def made(self) -> frozenset[str]:
        """Names that templates may use and that no raw row has (or that hide a raw field)."""
        names = {"first", "second", "which"} if self.pair else set()
        names |= set(CODE[self.code].adds) if self.code else set()
        names |= {"choices"} if self.choices else set()
        return frozenset(names | ({"answer"} if self.answer else set()))

    @property
    def fields(self) -> tuple[str, ...]:
        """The raw fields that the row reads, sorted; a Hub source loads only these columns."""
        used = [*Template(self.input).expressions, *(rule.field for rule in self.drop)]
        used += Template(self.output).expressions if self.output else []
        used += [Expression(self.references)] if self.references else []
        used += [Expression(label.field) for label in self.labels]
        read = {expression.field for expression in used} - self.made
        read |= set(self.pair or ())
        read |= set(CODE[self.code].reads) if self.code else set()
        if self.choices:
            read |= {expression.field for expression in self.choices.expressions}
            read |= {self.choices.letters.split(".")[0]} if self.choices.letters else set()
        if self.answer:
            read.add(self.answer.field.split(".")[0])
        if self.group:
            read |= {self.group.by.split(".")[0], *self.group.collect}
        return tuple(sorted(read))

    @property
    def labels(self) -> tuple[Label, ...]:
        """The label columns that a row may have: the published one, then today's."""
        return tuple(label for label in (self.label, self.label_today) if label is not None)


@cache
def load_rows() -> Mapping[str, TaskRow]:
    """Read the 160 rows of the package: task name → row.

    Raises:
        DataError: the file is malformed; the message names task and key.
    """
    return MappingProxyType(read_rows(Path(mpt.gym.__file__).parent / "tasks.toml"))


def read_rows(path: Path) -> dict[str, TaskRow]:
    """Read a ``tasks.toml``; see `load_rows`."""
    tables = read_toml(path)
    return {name: _row(name, table_of(table, path, name), path) for name, table in tables.items()}


_PARTS = {
    "splits": Splits,
    "group": Group,
    "choices": Choices,
    "answer": Answer,
    "label": Label,
    "label_today": Label,
}


def _row(name: str, table: Mapping[str, Any], path: Path) -> TaskRow:
    only_keys(table, [one.name for one in fields(TaskRow) if one.name != "name"], path, name)
    values: dict[str, Any] = {}
    key = ""
    try:
        for key, value in table.items():
            if key in _PARTS:
                values[key] = _part(_PARTS[key], value, path, f"{name}.{key}")
            elif key == "drop":
                values[key] = tuple(map(_drop, value))
            else:
                values[key] = tupled(value)
        key = "the row"
        row = TaskRow(name=name, **values)
        row.fields  # compiles every template: an unknown filter is met here  # noqa: B018
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: [{name}] {key}: {error}") from error
    return row


def _part(kind: type, value: Any, path: Path, where: str) -> Any:
    table = table_of(value, path, where)
    only_keys(table, [one.name for one in fields(kind)], path, where)
    return kind(**{key: tupled(value) for key, value in table.items()})


def _drop(table: Mapping[str, Any]) -> Drop:
    (kind,) = set(table) - {"field"}
    if kind not in DROP_KINDS:
        raise ValueError(f"{kind!r} is not one of {', '.join(sorted(DROP_KINDS))}")
    return Drop(Expression(table["field"]), kind, table[kind])
