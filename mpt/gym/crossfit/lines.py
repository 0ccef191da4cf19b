"""Raw rows → lines ``(input, output)`` of a few-shot file, as a task's row says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from mpt.errors import DataError
from mpt.gym.crossfit.special import CODE
from mpt.gym.crossfit.tasks import Answer, Choices, Drop, Group, Label, TaskRow
from mpt.gym.crossfit.template import Expression, Missing, Row, RowError, Template, apply, get

Line = tuple[str, str]
"""Input, and the tab-separated answers."""

DRAW_SEED = 42
"""Seed of every draw that the published builders make besides the five samples."""


def lines_of(task: TaskRow, split: str, rows: Iterable[tuple[int, Row]]) -> list[Line]:
    """Map the rows of one split to lines, in row order.

    Args:
        task: the task's row.
        split: name of the split, for messages.
        rows: (row number from 1 on, raw row), in the order of the source.

    Raises:
        DataError: a row breaks a rule, or the split has no row, or no row is left by ``drop``;
            the message names task, split, row and rule.
    """
    writer = _Writer(task)
    lines: list[Line] = []
    number = 0
    try:
        for number, row in _grouped(task.group, rows):  # noqa: B007 (read where a row fails)
            line = writer(row)
            if line is not None:
                _check_text(line)
                lines.append(line)
    except RowError as error:
        raise DataError(f"task {task.name}, split {split}, row {number}: {error}") from error
    if not lines:
        reason = "no row is left after the rules in 'drop'" if number else "the split is empty"
        raise DataError(
            f"task {task.name}, split {split}: {reason}; a split needs at least one row"
        )
    return _merged(lines) if task.merge_equal_inputs else lines


def _check_text(line: Line) -> None:
    """JSON can hold half a surrogate pair; a file in UTF-8 cannot."""
    for text in line:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            half = text[error.start]
            raise RowError(
                f"{half!r} is half a surrogate pair, which UTF-8 cannot store"
            ) from error


class _Writer:
    """One pass over a split; holds the generator of the draws, fresh for each split."""

    def __init__(self, task: TaskRow) -> None:
        self._task = task
        self._code = CODE[task.code].function if task.code else None
        self._input = Template(task.input)
        self._output = _output(task)
        self._draw = np.random.RandomState(DRAW_SEED)

    def __call__(self, raw: Row) -> Line | None:
        """Return the row's line, or None where the row is dropped."""
        task = self._task
        row: dict[str, Any] = dict(raw)
        if self._code is not None:
            row.update(self._code(raw))
        if task.answer is not None and task.choices is not None:
            row["answer"] = _right(task.answer, task.choices, raw)
        if any(_dropped(rule, row) for rule in task.drop):
            return None
        # after `drop`: a dropped row draws nothing
        if task.pair is not None:
            row.update(self._swapped(task.pair, raw))
        if task.choices is not None:
            row["choices"] = self._options(task.choices, raw)
        source = self._input(row)
        if task.input_then is not None:
            source = apply(task.input_then, source)
        return source, self._output(row)

    def _swapped(self, pair: tuple[str, str], raw: Row) -> dict[str, Any]:
        first, second = (get(raw, field) for field in pair)
        if self._draw.random_sample() > 0.5:
            return {"first": first, "second": second, "which": 0}
        return {"first": second, "second": first, "which": 1}

    def _options(self, choices: Choices, raw: Row) -> str:
        texts = _texts(choices, raw)
        if choices.shuffle:
            texts = [texts[at] for at in self._draw.permutation(len(texts))]
        pairs = zip(_letters(choices, raw, len(texts)), texts, strict=True)
        return "".join(choices.each.format(letter=letter, text=text) for letter, text in pairs)


def _texts(choices: Choices, raw: Row) -> list[str]:
    values = [expression(raw) for expression in choices.expressions]
    texts = values[0] if isinstance(choices.texts, str) else values
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RowError(f"field {choices.texts!r} must be a list of texts")
    return texts


def _letters(choices: Choices, raw: Row, count: int) -> list[str]:
    if choices.letters is None:
        if count > 26:
            raise RowError(f"{count} options, but there are 26 letters")
        return [chr(ord("A") + at) for at in range(count)]
    letters = get(raw, choices.letters)
    if not isinstance(letters, list) or len(letters) != count:
        raise RowError(
            f"field {choices.letters!r} must have one letter for each of {count} options"
        )
    return letters


def _right(answer: Answer, choices: Choices, raw: Row) -> str | None:
    texts = _texts(choices, raw)
    value = get(raw, answer.field)
    if answer.letter is not None:
        letters = _letters(choices, raw, len(texts))
        if value not in letters:
            raise RowError(f"field {answer.field!r} is {value!r}, but options are {letters}")
        return texts[letters.index(value)]
    index = _whole(answer.field, value) - answer.first
    if 0 <= index < len(texts):
        return texts[index]
    if answer.others == "missing":
        return None
    last = answer.first + len(texts) - 1
    raise RowError(f"field {answer.field!r} is {value!r}, but must be {answer.first} to {last}")


def _whole(field: str, value: Any) -> int:
    try:
        if isinstance(value, (int, str)):
            return int(value)
    except ValueError:
        pass
    raise RowError(f"field {field!r} is {value!r}, but must be a whole number")


def _dropped(rule: Drop, row: Row) -> bool:
    value, than = rule.field(row), rule.value
    tests: dict[str, Callable[[], bool]] = {
        "missing": lambda: value is None,
        "empty": lambda: value == "",
        "is": lambda: bool(value == than),
        "is_not": lambda: bool(value != than),
        "above": lambda: value is not None and value > than,
        "below": lambda: value is not None and value < than,
        "starts": lambda: value.startswith(than),
        "contains": lambda: than in value,
        "fractional": lambda: value != int(value),
    }
    try:
        return tests[rule.kind]()
    except (TypeError, AttributeError) as error:
        raise RowError(f"field {rule.field.path!r} is {value!r}: {error}") from error


def _output(task: TaskRow) -> Callable[[Row], str]:
    if task.output is not None:
        return Template(task.output)
    if task.references is not None:
        expression = Expression(task.references)

        def references(row: Row) -> str:
            values = expression(row)
            if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
                raise RowError(f"field {expression.path!r} must be a list of texts")
            return "\t".join(values)

        return references
    return lambda row: _word(task.labels, row)


def _word(labels: tuple[Label, ...], row: Row) -> str:
    for label in labels:
        try:
            value = get(row, label.field)
        except Missing:
            continue
        at = _whole(label.field, value) - label.first
        if 0 <= at < len(label.words):
            return label.words[at]
        last = label.first + len(label.words) - 1
        raise RowError(
            f"unknown label id {value!r} in field {label.field!r}; "
            f"ids are {label.first} to {last} ({', '.join(label.words[:3])}, …)"
        )
    raise RowError(f"field {labels[0].field!r} is missing")


def _grouped(group: Group | None, rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """Merge rows with an equal key, also where they do not follow each other."""
    if group is None:
        yield from rows
        return
    merged: dict[Any, tuple[int, dict[str, Any]]] = {}
    number = 0
    try:
        for number, row in rows:
            key = get(row, group.by)
            if key not in merged:
                empty: dict[str, Any] = {field: [] for field in group.collect}
                merged[key] = (number, {**row, **empty})
            for field in group.collect:
                merged[key][1][field].append(get(row, field))
    except RowError as error:
        raise RowError(f"(of the source: {number}) {error}") from error
    yield from merged.values()


def _merged(lines: list[Line]) -> list[Line]:
    answers: dict[str, list[str]] = {}
    for source, output in lines:
        answers.setdefault(source, []).append(output)
    return [(source, "\t".join(outputs)) for source, outputs in answers.items()]
