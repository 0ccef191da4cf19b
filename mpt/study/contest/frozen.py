"""The frozen settings of a contest: a TOML file that is written before the confirmation.

The confirmation reads nothing else of the search. Its text is kept in the database when the
confirmation begins; once a confirmatory point is stored, a file with another text is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.config import UpstreamConfig
from mpt.errors import DataError, UsageError
from mpt.keys import changed
from mpt.store.database import open_results
from mpt.store.records import BASELINE
from mpt.study.contest.definition import Started
from mpt.study.specs import UpstreamSpec
from mpt.toml_file import only_keys, read_toml, table_of

if TYPE_CHECKING:
    from mpt.store.database import Database

KIND = "frozen_contest"
"""Of the document in the database."""
_HEAD = """\
# Settings of a contest {how}, before its confirmation:
#   {command}
# The confirmation reads them here, and refuses a text that was changed after its first point.
"""


@dataclass(frozen=True, kw_only=True)
class Entry(Started):
    """The frozen settings of one contestant."""

    upstream: UpstreamSpec
    """Without an upstream seed; its steps are the one rung."""
    arg: float | None = None
    """Mean ARG in % on the search's upstream seeds and validation tasks. None: a contest of single
    points was not searched."""
    tried: int
    """Points that it was chosen from."""


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Frozen settings of all contestants."""

    contest: str
    row_passes: float
    backbone: str
    """That settings were chosen on."""
    search_seeds: tuple[int, ...]
    """Upstream seeds that they were chosen on; none where nothing was searched."""
    entries: Mapping[str, Entry]
    """Contestant → what it is confirmed with."""
    smoke: bool = False

    def text(self) -> str:
        """Return the file's text."""
        smoke = " --smoke" if self.smoke else f" --contest {self.contest}"
        command = f"python tune_jobs/beat_mtl.py{smoke} --stages freeze"
        lines = [_HEAD.format(how=_CHOSEN if self.search_seeds else _SINGLE, command=command)]
        for name in ("contest", "row_passes", "backbone", "search_seeds", "smoke"):
            value = getattr(self, name)
            lines.append(f"{name} = {json.dumps(list(value) if name in _LISTS else value)}")
        for name, entry in self.entries.items():
            settings = changed(entry.upstream.config)
            lines += ["", f"[contestant.{name}]", f"start = {json.dumps(entry.start)}"]
            lines += _line("race_steps", entry.race_steps)
            lines.append(f"method = {json.dumps(entry.upstream.config.method)}")
            lines.append(f"steps = {entry.upstream.rungs[0]}")
            lines += _line("search_arg", None if entry.arg is None else f"{entry.arg:.4f}")
            lines.append(f"tried = {entry.tried}")
            lines += ["", f"[contestant.{name}.settings]"]
            own = {key: value for key, value in settings.items() if key != "method"}
            lines += [f"{key} = {json.dumps(value)}" for key, value in own.items()]
        return "\n".join(lines) + "\n"

    @property
    def single(self) -> bool:
        """Whether every contestant has one point, so that a search chooses nothing."""
        return all(entry.tried == 1 for entry in self.entries.values())

    def without_search(self) -> Frozen:
        """Return the same settings, with nothing said of a search."""
        entries = {name: dataclasses.replace(own, arg=None) for name, own in self.entries.items()}
        return dataclasses.replace(self, search_seeds=(), entries=entries)


_LISTS = ("search_seeds",)
_CHOSEN = "as they were chosen on validation tasks"
_SINGLE = "that has one point a contestant"


def _line(name: str, value: object) -> list[str]:
    """Return a line of the file, none for a value that is not there."""
    return [] if value is None else [f"{name} = {value}"]


def freeze(frozen: Frozen, path: Path) -> bool:
    """Write frozen settings; return whether the file is new.

    Where nothing is chosen, a file stays that says of a search what `frozen` does not, or the
    other way round.

    Raises:
        UsageError: the file is there with other settings, or cannot be written.
        DataError: the file is there and is not one of these files.
    """
    text = frozen.text()
    try:
        if path.exists():
            if path.read_text(encoding="utf-8") != text and not _same_points(frozen, path):
                raise UsageError(
                    f"{path} holds other settings than the search chose, but is written once; to "
                    "freeze anew, remove it, or name another file with --frozen"
                )
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--frozen {path} cannot be written ({error.strerror})") from None
    return True


def _same_points(frozen: Frozen, path: Path) -> bool:
    return frozen.single and read_frozen(path).without_search() == frozen.without_search()


def read_frozen(path: Path) -> Frozen:
    """Read frozen settings.

    Raises:
        UsageError: there is no such file.
        DataError: it is not one of these files.
    """
    if not path.exists():
        raise UsageError(
            f"{path} is not there, but a confirmation needs the settings that were frozen; make "
            "it with --stages search,freeze, or say where it is with --frozen"
        )
    tables = read_toml(path)
    keys = ("contest", "row_passes", "backbone", "search_seeds", "smoke")
    only_keys(tables, (*keys, "contestant"), path, "")
    try:
        rows = table_of(tables["contestant"], path, "contestant")
        head = {key: tables[key] for key in keys} | {"search_seeds": (*tables["search_seeds"],)}
        return Frozen(**head, entries={name: _entry(row) for name, row in rows.items()})
    except (KeyError, TypeError, UsageError) as error:
        raise DataError(
            f"{path}: not a file of frozen settings ({error!r}); restore it, or freeze anew"
        ) from None


def _entry(row: Mapping[str, Any]) -> Entry:
    config = UpstreamConfig(method=row["method"], **row["settings"])
    return Entry(
        start=row["start"],
        race_steps=row.get("race_steps"),
        upstream=UpstreamSpec(config=config, rungs=(row["steps"],)),
        arg=row.get("search_arg"),
        tried=row["tried"],
    )


def keep(database: Database, path: Path) -> None:
    """Keep the text of a file of frozen settings in the database, before its first point.

    Raises:
        UsageError: another text is kept, and a confirmatory point is stored.
    """
    frozen, text = read_frozen(path), path.read_text(encoding="utf-8")
    kept = database.documents(KIND, frozen.contest).get(frozen.contest)
    if kept is not None and kept["text"] == text:
        return
    if kept is not None and confirmed(database):
        raise UsageError(
            f"{path} was changed after the first confirmatory point, but must be what the "
            "confirmation began with; restore it, or confirm anew in another --results"
        )
    database.put_document(KIND, frozen.contest, {"text": text})


def write_kept(results: Path, store: str | None, folder: Path) -> Path:
    """Write the frozen settings that a confirmation began with into a folder; return the file.

    Raises:
        UsageError: the results hold no confirmation.
    """
    with open_results(results, store, read_only=True) as database:
        kept = database.documents(KIND)
    if not kept:
        raise UsageError(
            f"{store or results} holds no confirmation of a contest; run python "
            "tune_jobs/beat_mtl.py, or name the --results of one that ran"
        )
    name, document = next(iter(kept.items()))
    path = folder / f"frozen-{name}.toml"
    path.write_text(document["text"], encoding="utf-8")
    return path


def confirmed(database: Database) -> bool:
    """Return whether the database holds a point of a method on target tasks."""
    targets = [study.key for study in database.studies() if study.role == "target"]
    return any(point.method != BASELINE for study in targets for point in database.points(study))
