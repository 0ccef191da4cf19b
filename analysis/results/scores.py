"""Test scores from elsewhere: one CSV line a (method, partition, backbone, task, data seed).

    method,partition,backbone,task,seed,test[,…]

Rules: UTF-8; the six columns must be there, others are passed over; `seed` is a whole number;
`test` is a fraction in [−1, 1] or empty, which says that the run is missing. Anything else, NaN
and a line that stands twice included, is an error with file and line.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpt.errors import DataError, UsageError

from .names import canonical_method

COLUMNS = ("method", "partition", "backbone", "task", "seed", "test")


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One line of the file."""

    line: int
    """Number in the file, the first is 1."""
    method: str
    """As records name it: "pt" is prompt_tuning, "mtl" multitask, "ft" fine_tuning."""
    partition: str
    backbone: str
    task: str
    seed: int
    """Data seed."""
    test: float | None
    """Test score, a fraction; None if the run is missing."""


def read_scores(path: Path) -> list[ScoreRow]:
    """Read a file of test scores.

    Raises:
        UsageError: the file does not exist or cannot be opened.
        DataError: a rule of the module text is broken; file and line are named.
    """
    if not path.is_file():
        raise UsageError(f"--scores {str(path)!r} is not a file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--scores {str(path)!r} cannot be read ({error.strerror})") from None
    reader = csv.reader(io.StringIO(_decoded(path, content), newline=""), strict=True)
    try:
        rows = list(_rows(path, reader))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not a line of CSV ({error})") from None
    if not rows:
        raise DataError(f"{path}: holds no scores; it needs a line a run below its header")
    _refuse_repeats(path, rows)
    return rows


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 ({error.reason}); save it as UTF-8") from None


def _rows(path: Path, reader: Iterator[list[str]]) -> Iterator[ScoreRow]:
    header = [name.strip() for name in next(reader, [])]
    for name in COLUMNS:
        if header.count(name) != 1:
            many = "no" if name not in header else "more than one"
            raise DataError(
                f"{path}:1: {many} column {name!r}; needed are {','.join(COLUMNS)}, found are "
                f"{','.join(header) or 'none'}"
            )
    for fields in reader:
        line = reader.line_num  # type: ignore[attr-defined]
        if not fields:
            continue
        where = f"{path}:{line}"
        if len(fields) != len(header):
            raise DataError(f"{where}: has {len(fields)} fields, but the header {len(header)}")
        yield _row(where, line, dict(zip(header, map(str.strip, fields), strict=True)))


def _row(where: str, line: int, fields: dict[str, str]) -> ScoreRow:
    for name in ("method", "partition", "backbone", "task"):
        if not fields[name]:
            raise DataError(f"{where}: {name} is empty")
    return ScoreRow(
        line=line,
        method=canonical_method(fields["method"]),
        partition=fields["partition"],
        backbone=fields["backbone"],
        task=fields["task"],
        seed=_seed(where, fields["seed"]),
        test=_test(where, fields["test"]),
    )


def _seed(where: str, content: str) -> int:
    if not (content.isascii() and content.isdigit()):
        raise DataError(f"{where}: seed is {content!r}, but must be a whole number ≥ 0")
    return int(content)


def _test(where: str, content: str) -> float | None:
    if not content:
        return None
    try:
        value = float(content)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{where}: test is {content!r}, but must be a finite number (empty if it is missing)"
        )
    if abs(value) > 1:
        raise DataError(
            f"{where}: test is {content}, but must be a fraction in [-1, 1]; divide "
            "per cent by 100"
        )
    return value


def _refuse_repeats(path: Path, rows: Sequence[ScoreRow]) -> None:
    first: dict[tuple[str, str, str, str, int], ScoreRow] = {}
    for row in rows:
        at = (row.method, row.partition, row.backbone, row.task, row.seed)
        other = first.setdefault(at, row)
        if other is row:
            continue
        what = f"{row.method} of {row.task}, data seed {row.seed}, on {row.partition}"
        if row.test == other.test:
            raise DataError(
                f"{path}:{row.line}: repeats line {other.line} ({what}); remove one of them"
            )
        raise DataError(
            f"{path}:{row.line}: contradicts line {other.line} ({what}): test is {row.test} here "
            f"and {other.test} there; remove the wrong one"
        )
