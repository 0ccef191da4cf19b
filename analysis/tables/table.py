"""A table as a value: cells that hold text or a number with its interval, and what is said of it.

A missing number is missing: its text is a dash in every format, and no renderer makes it 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

MISSING = "–"
"""What stands for a missing number."""


@dataclass(frozen=True)
class Flag:
    """A mark behind a number, and what it says."""

    mark: str
    text: str
    """Explanation below the table."""


FLAGS: Mapping[str, Flag] = {
    "near_zero": Flag(
        "†", "holds a task whose baseline is below 0.05: one such task can rule the mean"
    ),
    "some_tasks": Flag(
        "‡", "mean over the tasks that have a relative gain; not every task has one"
    ),
    "partial": Flag("§", "recorded as partial: tasks were left out"),
    "smoke": Flag("!", "of a smoke run: the number means nothing"),
    "no_interval": Flag("°", "no interval: one data seed, or too many resamples without ARG"),
    "diverged": Flag("×", "upstream learning diverged"),
    "stopped": Flag("¶", "stopped early on purpose, its runs are incomplete"),
    "several_seeds": Flag(
        "ⁿ",
        "mean over several upstream seeds, with the 95 % interval of the expected ARG over "
        "them and the data seeds; which seeds, the cell's page and the notes say",
    ),
    "same_targets": Flag("=", "the result of another setting with the same target tasks"),
}
"""Every mark a cell may carry."""


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """One cell: text, or a number, or (neither) a missing number."""

    text: str | None = None
    """Plain text; it may come from a data set and is escaped by every renderer."""
    value: float | None = None
    """The number, finite."""
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    """Upper end; there with `low` only."""
    digits: int = 2
    """Decimals that are shown of number and interval."""
    done: int | None = None
    """n runs that are there …"""
    of: int | None = None
    """… of N that the number asks for."""
    flags: tuple[str, ...] = ()
    """Keys of `FLAGS`."""
    link: str | None = None
    """Relative address of the page that says where the number comes from."""

    def __post_init__(self) -> None:
        numbers = [x for x in (self.value, self.low, self.high) if x is not None]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"cell holds {numbers}, but a number must be finite (or None)")
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval needs both ends")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"interval is [{self.low}, {self.high}], but must ascend")
        if self.text is not None and self.value is not None:
            raise ValueError(f"cell holds text {self.text!r} and value {self.value}, but one only")
        unknown = [flag for flag in self.flags if flag not in FLAGS]
        if unknown:
            raise ValueError(f"flag {unknown[0]!r} is unknown; known are {', '.join(FLAGS)}")

    @property
    def number(self) -> str:
        """The number as text with a true minus sign; a dash if it is missing.

        It is empty where the cell is about an interval alone.
        """
        if self.value is not None:
            return shown(self.value, self.digits)
        return MISSING if self.low is None else ""

    @property
    def interval(self) -> str:
        """The interval as text, or nothing."""
        if self.low is None or self.high is None:
            return ""
        return shown_interval((self.low, self.high), self.digits)

    @property
    def count(self) -> str:
        """Runs as "n/N", or nothing."""
        return "" if self.of is None else f"{self.done}/{self.of}"

    @property
    def marks(self) -> str:
        """The marks of the flags, in the order of `FLAGS`."""
        return "".join(flag.mark for name, flag in FLAGS.items() if name in self.flags)

    @property
    def holds(self) -> bool:
        """Whether there is anything in it: a text, a number, an interval or a mark."""
        if self.text is not None:
            return self.text not in ("", MISSING)
        return self.value is not None or self.low is not None or bool(self.flags)


def shown(value: float, digits: int) -> str:
    """Return a number with a fixed number of decimals and a true minus sign; never "−0"."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def shown_interval(interval: tuple[float, float] | None, digits: int) -> str:
    """Return an interval as text; nothing without one."""
    return "" if interval is None else f"[{', '.join(shown(end, digits) for end in interval)}]"


def text(content: object, link: str | None = None) -> TableCell:
    """Return a text cell."""
    return TableCell(text=str(content), link=link)


def number(
    value: float | None, digits: int = 2, interval: tuple[float, float] | None = None
) -> TableCell:
    """Return a cell with a number, and its interval if it has one; None is missing."""
    low, high = interval or (None, None)
    return TableCell(value=value, low=low, high=high, digits=digits)


def quantity(value: float | None) -> TableCell:
    """Return a cell with an amount (steps, samples, hours).

    3 digits count, none for thousands; a whole number has no decimals in files either, since steps
    and samples are counts, and their means over upstream seeds are floats.
    """
    if value is None or value == round(value):
        return TableCell(value=None if value is None else round(value), digits=0)
    return TableCell(value=value, digits=min(6, max(0, 2 - math.floor(math.log10(abs(value))))))


Row = tuple[TableCell, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under columns, with a title and notes."""

    name: str
    """File name without ending: lower-case letters, digits and hyphens."""
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    """Cells, as many in each row as there are columns."""
    notes: tuple[str, ...] = ()
    """What a reader must know, one sentence each."""

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").isalnum() or self.name != self.name.lower():
            raise ValueError(f"name is {self.name!r}, but must be lower-case letters and hyphens")
        for at, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {at} of {self.name} has {len(row)} cells for {len(self.columns)} columns"
                )

    @property
    def legend(self) -> tuple[str, ...]:
        """The explanation of every mark that occurs, then the notes; or that there is nothing."""
        used = {flag for row in self.rows for cell in row for flag in cell.flags}
        marks = tuple(f"{flag.mark} {flag.text}" for name, flag in FLAGS.items() if name in used)
        empty = () if self.rows else ("Nothing of this is recorded.",)
        return (*empty, *marks, *self.notes)

    def of(self, label: str, suffix: str = "") -> Table:
        """Return the table with what it is of behind its title, and behind its name if need be."""
        name = f"{self.name}-{suffix}" if suffix else self.name
        return dataclasses.replace(self, name=name, title=f"{self.title} – {label}")

    def below(self, base: str) -> Table:
        """Return the table for a page in another folder; `base` leads from there to the report."""
        rows = tuple(
            tuple(
                dataclasses.replace(cell, link=f"{base}/{cell.link}") if cell.link else cell
                for cell in row
            )
            for row in self.rows
        )
        return dataclasses.replace(self, rows=rows)

    def trimmed(self) -> Table:
        """Return the table without columns and rows in which nothing is recorded.

        A row whose numbers are all missing says nothing, whatever its labels are; one with a mark
        (diverged, stopped) does. A table without numbers keeps its rows.
        """
        every = range(len(self.columns))
        numeric = [
            at for at in every if any(r[at].text is None and r[at].holds for r in self.rows)
        ]
        rows = [row for row in self.rows if not numeric or any(row[at].holds for at in numeric)]
        if not numeric and any(cell.text is None for row in self.rows for cell in row):
            rows = []
        kept = [at for at in every if any(row[at].holds for row in rows)]
        return dataclasses.replace(
            self,
            columns=tuple(self.columns[at] for at in kept),
            rows=tuple(tuple(row[at] for at in kept) for row in rows),
        )
