"""Where raw rows come from: an offline mirror, the Hub, or one file of a data set's own site.

Nothing here runs code of a data set: Hub rows come from data files on ``main`` or from the
converted Parquet branch.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mpt.errors import DataError
from mpt.gym.crossfit.tasks import GONE, TaskRow
from mpt.gym.crossfit.template import Row

HUB_TIMEOUT = 30.0
"""Seconds without an answer after which the Hub or a site counts as unreachable."""

_PARQUET = "refs/convert/parquet"


@dataclass(frozen=True)
class Origin:
    """What a provenance record says of the raw rows."""

    source: str
    """Mirror directory, Hub id with its configuration, or address."""
    revision: str
    """Commit on the Hub, or SHA-256 of the raw files."""
    licence: str | None
    """As the source states it; the task row's where the source says nothing; None: not known."""


class Source(Protocol):
    """Raw rows of tasks. Values of this type travel to worker processes."""

    def key(self, task: TaskRow) -> str:
        """Say what is asked for, offline; a finished task with the same key is not built again."""

    def open(self, task: TaskRow) -> tuple[Origin, Callable[[str], Iterator[tuple[int, Row]]]]:
        """Return the rows' origin, and a function from a split's name to (row number, row).

        Raises:
            DataError: the source or a split is not there or is malformed.
        """


@dataclass(frozen=True)
class Mirror:
    """``DIR/<task>/<split>.jsonl``: one JSON object a line, in the Hub's schema."""

    folder: Path

    def names(self) -> list[str]:
        """Return the names of the directories in the mirror, sorted; hidden ones are not meant."""
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        )

    def key(self, task: TaskRow) -> str:
        """Return SHA-256 over the files of the splits that the task reads."""
        digest = hashlib.sha256()
        for split in task.splits.names:
            with self._path(task, split).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return f"sha256:{digest.hexdigest()}"

    def open(self, task: TaskRow) -> tuple[Origin, Callable[[str], Iterator[tuple[int, Row]]]]:
        """See `Source.open`."""
        origin = Origin(str(self.folder / task.name), self.key(task), task.licence)

        def rows(split: str) -> Iterator[tuple[int, Row]]:
            path = self._path(task, split)
            with path.open("rb") as file:  # binary: lines end at \n only
                yield from json_lines(file, str(path))

        return origin, rows

    def _path(self, task: TaskRow, split: str) -> Path:
        path = self.folder / task.name / f"{split}.jsonl"
        if not path.is_file():
            raise DataError(f"task {task.name}, split {split}: the mirror has no file {path}")
        return path


def json_lines(lines: Iterable[bytes], name: str) -> Iterator[tuple[int, Row]]:
    """Parse one JSON object a line; `name` and the line number go into the message of an error.

    Raises:
        DataError: a line is not a JSON object in UTF-8.
    """
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{name}:{number}: not JSON in UTF-8: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{name}:{number}: a row must be a JSON object, not {line[:40]!r}")
        yield number, row


@dataclass(frozen=True)
class Hub:
    """The Hugging Face Hub through `datasets`, and plain addresses for what is not on it."""

    def key(self, task: TaskRow) -> str:
        """Return the address as the row gives it; the commit is known only online."""
        return f"hub:{task.hub}:{task.config}@{task.revision}" if task.hub else f"url:{task.url}"

    def open(self, task: TaskRow) -> tuple[Origin, Callable[[str], Iterator[tuple[int, Row]]]]:
        """See `Source.open`."""
        if task.revision == GONE:
            raise DataError(f"task {task.name}: {task.hub_note}")
        try:
            return _open_url(task) if task.url else _open_hub(task)
        except DataError:
            raise
        except Exception as error:  # whatever a network library raises is one and the same here
            raise _unreachable(task, error) from error


def _unreachable(task: TaskRow, error: Exception) -> DataError:
    lines = str(error).strip().splitlines() or [""]
    return DataError(
        f"task {task.name}: {task.url or task.hub} cannot be read from here "
        f"({type(error).__name__}: {lines[0][:160]}); check the network, or build from a mirror: "
        "--source DIR"
    )


def _open_url(task: TaskRow) -> tuple[Origin, Callable[[str], Iterator[tuple[int, Row]]]]:
    assert task.url is not None
    with urllib.request.urlopen(task.url, timeout=HUB_TIMEOUT) as answer:  # https only, from a row
        content: bytes = answer.read()  # raises where fewer bytes come than were promised
    revision = f"sha256:{hashlib.sha256(content).hexdigest()}"

    def rows(split: str) -> Iterator[tuple[int, Row]]:
        return json_lines(content.removesuffix(b"\n").split(b"\n"), f"{task.url} ({split})")

    return Origin(task.url, revision, task.licence), rows


def _open_hub(task: TaskRow) -> tuple[Origin, Callable[[str], Iterator[tuple[int, Row]]]]:
    from huggingface_hub import HfApi

    assert task.hub is not None
    api = HfApi()
    pinned = None if task.revision in ("main", _PARQUET) else task.revision
    info = api.dataset_info(task.hub, revision=pinned, timeout=HUB_TIMEOUT)
    files = [file.rfilename for file in info.siblings or ()]
    commit = info.sha
    converted = task.revision == _PARQUET or f"{task.hub.split('/')[-1]}.py" in files
    if converted:
        branch = api.dataset_info(task.hub, revision=_PARQUET, timeout=HUB_TIMEOUT)
        files = [file.rfilename for file in branch.siblings or ()]
        commit = branch.sha
    licence = getattr(info.card_data, "license", None) or task.licence
    licence = ", ".join(licence) if isinstance(licence, list) else licence
    name = f"{task.hub} ({task.config})" if task.config else task.hub

    def rows(split: str) -> Iterator[tuple[int, Row]]:
        try:
            yield from _hub_rows(task, split, str(commit), files if converted else None)
        except DataError:
            raise
        except Exception as error:  # as in `Hub.open`
            raise _unreachable(task, error) from error

    kind = f"{_PARQUET} at " if converted else ""
    return Origin(f"hub: {name}", f"{kind}{commit}", licence), rows


def _hub_rows(
    task: TaskRow, split: str, commit: str, converted: list[str] | None
) -> Iterator[tuple[int, Row]]:
    import datasets

    if converted is None:
        data = datasets.load_dataset(task.hub, task.config, split=split, revision=commit)
    else:
        paths = [
            f"hf://datasets/{task.hub}@{commit}/{path}" for path in _files(task, split, converted)
        ]
        # named files: from folder names `datasets` guesses splits, and merges the guessed ones
        data = datasets.load_dataset("parquet", data_files={"rows": paths}, split="rows")
    columns = [field for field in task.fields if field in data.column_names]
    number = 0
    for batch in data.select_columns(columns).iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            number += 1
            yield number, dict(zip(columns, values, strict=True))


def _files(task: TaskRow, split: str, files: list[str]) -> list[str]:
    """Return the files of a split on the converted branch: ``<config>/<split>/*.parquet``."""
    folders = sorted({path.split("/")[0] for path in files if path.count("/") == 2})
    config = task.config
    if config is None:
        common = [name for name in ("default", "plain_text") if name in folders]
        config = (common or folders or [""])[0] if common or len(folders) == 1 else ""
    start = f"{config}/{split}/"
    parquet_files = sorted(
        path for path in files if path.startswith(start) and path.endswith(".parquet")
    )
    if not parquet_files:
        listed_folders = ", ".join(
            sorted({path.rsplit("/", 1)[0] for path in files if "/" in path})
        )
        raise DataError(
            f"task {task.name}, split {split}: {task.hub} has no converted files of it "
            f"(on {_PARQUET} are: {listed_folders or 'none'})"
        )
    return parquet_files
