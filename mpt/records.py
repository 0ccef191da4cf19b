"""Results on disk: leaves (one downstream run each) and points (one setting of the search each).

    results/
      leaves/<aa>/<key>.json    one downstream run: dev, test, cost; never changed
      points/<key>.json         one point of the search: the leaves it is made of
      pending/<hash>.json       journal of a pack that is being committed
      tmp/                      files that are being written

A leaf's key is the SHA-256 of everything that can change its number, so a leaf serves every search
that needs the same run. A pack (leaves computed together) is committed as a whole: first one
journal file that holds all of them, then the leaves, then the journal goes. After a kill the pack
is wholly there (the journal is replayed when the store is opened) or wholly absent.

A file that is torn, foreign or changed is reported by name in `problems`, ignored, and set aside
as ``*.bad`` when its leaf is written anew. A file that cannot be read at all may be a good one: it
ends the work (`StorageError`), or is reported where nothing is written. Nothing in a record is
ever executed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mpt.errors import DataError
from mpt.storage import Disk, digest, open_file, seal, set_aside, sync_folder, unseal
from mpt.storage_errors import storage_error, storage_errors

SCHEMA = 1
"""Version of the record format and of the code whose numbers it holds."""

KEPT_LEAVES = 4096
"""Leaves a store holds in memory (some kilobytes each): more than the 2040 that a point of 51
tasks, 5 data seeds and 4 learning rates names."""

MAX_LOG_BYTES = 2**30
"""A larger log is not ours."""

Record = dict[str, Any]


def leaf_key(identity: Record) -> str:
    """Return the key of a leaf or point: SHA-256 (hex) of its identity's canonical JSON."""
    return digest(identity)


def make_leaf(identity: Record, result: Record, cost: Record, provenance: Record) -> Record:
    """Return a leaf record (contract in the module text); NaN is not allowed anywhere in it."""
    return {
        "schema": SCHEMA,
        "key": leaf_key(identity),
        "identity": identity,
        "result": result,
        "cost": cost,
        "provenance": provenance,
    }


def _read(path: Path) -> Record:
    """Read one keyed record and check that it stands under its own key."""
    record = unseal(path)
    if record.get("schema") != SCHEMA:
        raise DataError(
            f"{path}: schema {record.get('schema')!r}, but this program reads {SCHEMA}"
        )
    identity = record.get("identity")
    if not isinstance(identity, dict) or record.get("key") != leaf_key(identity):
        raise DataError(f"{path}: its key is not the hash of its identity")
    if path.stem != record["key"]:
        raise DataError(f"{path}: holds the record {record['key']}, which belongs elsewhere")
    return record


def _journal(path: Path) -> list[Record]:
    """Return the leaves of a commit that was not finished.

    Raises:
        DataError: the file is no whole journal, or of another schema.
    """
    try:
        body = unseal(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise DataError(f"{path}: is a link to nothing") from None
        return []  # another process finished the same commit
    if body.get("schema") != SCHEMA:
        raise DataError(f"{path}: schema {body.get('schema')!r}, but this program reads {SCHEMA}")
    try:
        leaves = list(body["leaves"])
        # a foreign key could name any path
        whole = all(leaf["key"] == leaf_key(leaf["identity"]) for leaf in leaves)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise DataError(f"{path}: not a journal")
    return leaves


_Mark = tuple[int, int, int, int, int]
"""What tells a file from what was in its place before."""


def _mark(path: Path) -> _Mark | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class _Store(ABC):
    """Keyed records in one folder, with the problems met while reading them."""

    def __init__(self, results: Path, folder: str, read_only: bool) -> None:
        self.disk = Disk(results)
        self._read_only = read_only
        if not read_only:
            self.disk.prepare()
        self.folder = self.disk.root / folder
        self._problems: dict[Path, str] = {}

    @property
    def problems(self) -> list[str]:
        """One line for every file that was ignored: its name and what is wrong with it."""
        return list(self._problems.values())

    @abstractmethod
    def _path(self, key: str) -> Path:
        """Return where the record under `key` stands."""

    def get(self, key: str) -> Record | None:
        """Return the record under `key`, or None if there is none (or none that is whole).

        Raises:
            StorageError: a file cannot be read, or the whole results directory has gone away
                (not in a read-only store, which reports the file).
        """
        path = self._path(key)
        try:
            return _read(path)
        except FileNotFoundError:
            self.disk.check()
        except DataError as error:
            self._problems[path] = str(error)
        except OSError as error:
            if not self._read_only:
                raise storage_error(path, error) from error
            self._problems[path] = f"{path}: cannot be read ({os.strerror(error.errno or 0)})"
        return None

    def _put(self, record: Record) -> bool:
        """Write one record unless a whole one is there; return whether this call wrote it."""
        path = self._path(record["key"])
        if self.get(record["key"]) is not None:
            return False
        if path.exists() or path.is_symlink():
            moved = set_aside(path)
            self._problems[path] = (
                f"{self._problems.get(path, str(path))}; set aside as {moved.name}"
            )
        return self.disk.write_new(path, seal(record))


class LeafStore(_Store):
    """The leaves below one results directory; any number of processes may share it.

    Args:
        results: the directory; it is created.
        read_only: create nothing and leave unfinished commits as they are.

    Raises:
        UsageError: `results` is a file or cannot be written, see `Disk.prepare`.
        StorageError: the storage is full or does not answer.
    """

    def __init__(self, results: Path, *, read_only: bool = False) -> None:
        super().__init__(results, "leaves", read_only)
        self._known: dict[str, tuple[_Mark, Record]] = {}
        self._pending = self.disk.root / "pending"
        if not read_only:
            self.replay()

    leaf_key = staticmethod(leaf_key)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Record | None:
        """Return the leaf under `key` as `_Store.get` does; it must not be changed.

        Of the leaves read last, a file that is still the same is not read again: every point
        names the leaves of the baseline, and its own are looked at several times.
        """
        mark = _mark(self._path(key))
        known = self._known.pop(key, None)
        if known is None or mark is None or known[0] != mark:
            record = super().get(key)
            if record is None or mark is None:
                return record
            known = mark, record
        self._known[key] = known
        if len(self._known) > KEPT_LEAVES:
            del self._known[next(iter(self._known))]
        return known[1]

    def put_many(self, leaves: Sequence[Record]) -> list[str]:
        """Commit a pack as a whole; return the keys that were not there before.

        A leaf that is there already is kept: the first complete writer wins.
        """
        if not leaves:
            return []
        for leaf in leaves:
            if leaf["key"] != leaf_key(leaf["identity"]):
                raise ValueError(f"leaf {leaf['key']}: the key is not the hash of its identity")
        journal = self._pending / f"{digest([leaf['key'] for leaf in leaves])}.json"
        self.disk.write(journal, seal({"schema": SCHEMA, "leaves": list(leaves)}))
        return self._apply(journal, leaves)

    def replay(self) -> None:
        """Finish the commits that killed processes left behind; idempotent."""
        for journal in sorted(self._pending.glob("*.json")):
            try:
                with storage_errors(journal):
                    self._apply(journal, _journal(journal))
            except DataError as error:
                self._problems[journal] = str(error)

    def _apply(self, journal: Path, leaves: Sequence[Record]) -> list[str]:
        written = [leaf["key"] for leaf in leaves if self._put(leaf)]
        with storage_errors(journal):
            for folder in {self._path(key).parent for key in written}:
                sync_folder(folder)
            journal.unlink(missing_ok=True)
        return written

    def keys(self) -> Iterator[str]:
        """Yield the keys of all leaf files, in order; the files are not read."""
        for path in sorted(self.folder.glob("??/*.json")):
            yield path.stem


class PointStore(_Store):
    """The points below one results directory.

    A point record: ``{"schema", "key", "identity", "method", "partition", "config", "steps",
    "trajectory", "prompt" (digest), "leaves": {task: {seed: [[lr, leaf key], …]}}, "baseline":
    {…}, "status": "ok" | "diverged", "note", "partial": str | None, "cost", "provenance"}``. The
    learning rates stand in the recipe's order, which decides ties. A point holds no score: that is
    computed from the leaves it names.
    """

    def __init__(self, results: Path, *, read_only: bool = False) -> None:
        super().__init__(results, "points", read_only)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def put(self, identity: Record, body: Record) -> str:
        """Write a point, replacing an older record of the same identity; return its key.

        What stands in its place and is no record is set aside.
        """
        record = {"schema": SCHEMA, "key": leaf_key(identity), "identity": identity, **body}
        path = self._path(record["key"])
        if path.exists() and self.get(record["key"]) is None:
            moved = set_aside(path)
            self._problems[path] = (
                f"{self._problems.get(path, str(path))}; set aside as {moved.name}"
            )
        self.disk.write(path, seal(record))
        return record["key"]

    def all(self) -> list[Record]:
        """Return every whole point record, in the order of their keys."""
        found = (self.get(path.stem) for path in sorted(self.folder.glob("*.json")))
        return [record for record in found if record is not None]


def append_line(path: Path, entry: Record) -> None:
    """Append one JSON line to a log; a torn last line of a killed writer spoils only itself.

    Raises:
        StorageError: the log cannot be written, or there is no space for the whole line.
    """
    line = (json.dumps(entry, sort_keys=True, ensure_ascii=False) + "\n").encode()
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o644)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise FileExistsError(errno.EEXIST, "no file")
            if found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n":
                line = b"\n" + line
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, "a part was written")
        finally:
            os.close(descriptor)


def read_lines(path: Path) -> list[Record]:
    """Return the entries of a log; lines that are not whole are left out.

    Raises:
        DataError: what is there is no file, or too large for a log.
    """
    entries = []
    with contextlib.suppress(FileNotFoundError), open_file(path) as (file, size):
        if size > MAX_LOG_BYTES:
            raise DataError(
                f"{path}: {size} bytes, but a log has at most {MAX_LOG_BYTES}; move it away"
            )
        lines = file.read().decode(errors="replace").split("\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
    return [entry for entry in entries if isinstance(entry, dict)]
