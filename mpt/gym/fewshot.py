r"""Read few-shot files: ``GYM/<task>/<task>_<k>_<seed>_{train,dev,test}.tsv``.

One example a line, UTF-8: ``input TAB answer[ TAB further answers]``. Lines end at ``\n``
only: the published files hold other characters that Python takes for line ends (``\r``, U+0085,
U+2028).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpt.errors import DataError
from mpt.gym.catalogue import TaskInfo
from mpt.seeds import numpy_generator


@dataclass(frozen=True)
class Example:
    """One input with its right answers, at least one; by default the first is trained on."""

    input: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class FewShotTask:
    """The three parts of one task at one data seed."""

    name: str
    shots: int
    """k of the file names; see `mpt.gym.catalogue.TaskInfo.shots`."""
    seed: int
    """Data seed: which sample this is."""
    metric: str
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    digest: str
    """SHA-256 over the bytes of the three files."""


def some_rows(
    examples: Sequence[Example], most: int | None, *, stratified: bool, name: str
) -> list[Example]:
    """Return at most so many rows, in file order.

    Args:
        examples: all rows.
        most: rows that are wanted; None: all.
        stratified: draw them so that every label keeps its share of the rows, up to rounding down
            or up; a label is the first answer. Otherwise they are the first ones.
        name: what the draw is for; the same name draws the same rows.

    A stratified draw is a systematic one: the rows stand in a line, label after label (both in
    random order), and every (rows / most)-th is taken from a random place on. So each row has the
    same chance, and where no two rows share a label it is a plain random sample.
    """
    n = len(examples)
    if most is None or most >= n:
        return list(examples)
    if not stratified:
        return list(examples[:most])
    rng = numpy_generator(0, "evaluated rows", name)
    labels = sorted({example.outputs[0] for example in examples})
    rank = dict(zip(labels, rng.permutation(len(labels)).tolist(), strict=True))
    line = sorted(rng.permutation(n).tolist(), key=lambda row: rank[examples[row].outputs[0]])
    start = int(rng.integers(n))
    taken = sorted(line[(start + draw * n) // most] for draw in range(most))
    return [examples[row] for row in taken]


def one_answer_each(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Return every (row, answer) as a row of its own, in order: what `AnswerDraw` numbers."""
    return tuple(
        Example(example.input, (output,)) for example in examples for output in example.outputs
    )


def with_answers_apart(task: FewShotTask) -> FewShotTask:
    """Return a task whose train and dev rows have one answer each (see `one_answer_each`)."""
    train, dev = one_answer_each(task.train), one_answer_each(task.dev)
    return dataclasses.replace(task, train=train, dev=dev)


class AnswerDraw:
    """A random one of each row's answers, as the released code draws it whenever a row is read."""

    def __init__(self, examples: Sequence[Example]):
        self._counts = np.array([len(example.outputs) for example in examples])
        self._first = np.concatenate([[0], np.cumsum(self._counts)])
        self.chooses = bool((self._counts > 1).any())
        """Whether any row has several answers; else `rows` returns what it is given."""

    def rows(self, generator: np.random.Generator, rows: Sequence[int]) -> tuple[int, ...]:
        """Return for every row its place, with one of its answers, in `one_answer_each`."""
        at = np.array(rows, dtype=int)
        return tuple((self._first[at] + generator.integers(self._counts[at])).tolist())


def load_task(gym: Path, info: TaskInfo, seed: int) -> FewShotTask:
    """Read one task at one data seed.

    Args:
        gym: directory of few-shot files; a CrossFit data directory is one as it stands.
        info: the task's row in the catalogue.
        seed: data seed.

    Raises:
        DataError: a file is absent, empty or not UTF-8, or a line has no tab, an empty input or
            no answer; the message names file and line.
    """
    parts: list[tuple[Example, ...]] = []
    digest = hashlib.sha256()
    for part in ("train", "dev", "test"):
        path = gym / info.name / info.file_name(seed, part)
        content = _content(path, gym, info)
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
        parts.append(parse(content, path))
    train, dev, test = parts
    return FewShotTask(
        info.name, info.shots, seed, info.metric, train, dev, test, digest.hexdigest()
    )


def available_seeds(gym: Path, info: TaskInfo) -> tuple[int, ...]:
    """Return the data seeds, ascending, for which train, dev and test files of the task exist."""
    folder = gym / info.name
    prefix = info.file_name(0, "").removesuffix("0_.tsv")
    seeds = set()
    for path in folder.glob("*_train.tsv"):
        text = path.name.removeprefix(prefix).removesuffix("_train.tsv")
        if path.name.startswith(prefix) and text.isascii() and text.isdigit():
            seeds.add(int(text))

    def complete(seed: int) -> bool:
        return all((folder / info.file_name(seed, part)).is_file() for part in ("dev", "test"))

    return tuple(sorted(filter(complete, seeds)))


def parse(content: bytes, path: Path) -> tuple[Example, ...]:
    """Turn the bytes of a few-shot file into examples; `path` is for messages only.

    As in the published reader, blanks around a line are dropped, and so are empty answers beside
    others (some KILT rows have them).

    Raises:
        DataError: see `load_task`.
    """
    if not content.strip():
        raise DataError(f"{path}: the file is empty; build the task again")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; files must be UTF-8"
        ) from error
    return tuple(
        _example(line, path, number)
        for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1)
    )


def _example(line: str, path: Path, number: int) -> Example:
    source, *outputs = line.strip().split("\t")
    outputs = [output for output in outputs if output.strip()]
    if not outputs or not line.partition("\t")[0].strip():
        raise DataError(f"{path}:{number}: {_fault(line)}; a line is input, tab, answer")
    return Example(source, tuple(outputs))


def _fault(line: str) -> str:
    shown = line if len(line) <= 60 else line[:57] + "..."
    if "\t" not in line:
        return f"no tab in {shown!r}"
    side = "output" if line.partition("\t")[0].strip() else "input"
    return f"empty {side} in {shown!r}"


def _content(path: Path, gym: Path, info: TaskInfo) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        seeds = ", ".join(map(str, available_seeds(gym, info))) or "none"
        raise DataError(
            f"{path}: no such file; complete data seeds of {info.name} at {info.shots or 'all'} "
            f"shots there: {seeds}"
        ) from None
