"""One look at a search or replay, from its results alone: how far it is, and who leads.

The ranking is that of the search's own display.
"""

from __future__ import annotations

import datetime
import platform
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.search.comparison import rankings
from mpt.search.cost.time_left import clock_text
from mpt.search.display.display import Display
from mpt.search.display.header import SMOKE, cost_text, score_text, studies_text, subject_text
from mpt.search.display.setting_display import CellDisplay, SettingDisplay
from mpt.search.leaderboard import ranked
from mpt.search.watch.note import DriverNote, driver_notes
from mpt.search.watch.recorded import Recorded, recorded
from mpt.store.lock import is_held
from mpt.study.choice import chosen, facts_of
from mpt.words import counted

if TYPE_CHECKING:
    from rich.console import Console

    from mpt.store.database import Database
    from mpt.store.records import StudyRecord

QUIET_S = 120.0
"""Seconds without a note after which a driver on another host is asked about."""

RUNNING_SHOWN = 8
"""Running trials that are listed; the rest is counted."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is there at one moment."""

    recorded: Recorded
    note: DriverNote | None
    """Of the driver that works on these studies, or did last."""
    running: bool | None
    """Whether that driver runs; None where that cannot be told."""
    others: tuple[StudyRecord, ...]
    """Studies of the database that are not shown."""
    now: datetime.datetime
    """UTC."""


def look(
    database: Database, results: Path, study: str | None, now: datetime.datetime | None = None
) -> Look:
    """Look at what a database has of one search or replay.

    Raises:
        UsageError: there is no such study.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    studies = chosen(database.studies(), study)
    keys = {one.key for one in studies}
    notes = [one for one in driver_notes(database) if keys & set(one.studies)]
    note = notes[0] if notes else None
    shown = _shown(database, studies, note)
    return Look(
        recorded=recorded(database, shown, results, note),
        note=note,
        running=_running(note, results, now),
        others=tuple(one for one in database.studies() if one not in shown),
        now=now,
    )


def _shown(
    database: Database, studies: Sequence[StudyRecord], note: DriverNote | None
) -> list[StudyRecord]:
    """Return the studies of one protocol and role: the driver's, or those of the newest point."""
    if not studies:
        return []
    if note is not None:
        first = next(one for one in studies if one.key in note.studies)
    else:
        newest = {
            one.key: max((p.created for p in database.points(one.key)), default="")
            for one in studies
        }
        first = max(reversed(studies), key=lambda one: newest[one.key])
    return [one for one in studies if (one.protocol, one.role) == (first.protocol, first.role)]


def _running(note: DriverNote | None, results: Path, now: datetime.datetime) -> bool | None:
    held = is_held(results)
    if note is not None and note.exit_code is not None and not held:
        return False
    if held is False and note is not None and note.host != platform.node():
        return None if _seconds(note.updated, now) < QUIET_S else False
    return held


def _seconds(then: str, now: datetime.datetime) -> float:
    return max(0.0, (now - datetime.datetime.fromisoformat(then)).total_seconds())


def show(look: Look, console: Console, where: str) -> None:
    """Print a look, its ranking last."""
    studies, board, note = look.recorded.studies, look.recorded.board, look.note
    if board is None and studies:
        what = "search" if studies[0].role == "validation" else "replay"
        partitions = ", ".join(dict.fromkeys(study.partition for study in studies))
        console.print(f"{what} · {partitions} · backbone {studies[0].backbone}: no point so far")
    elif board is None:
        console.print("no point so far")
    else:
        console.print(subject_text(board.job))
        console.print(f"  score    {score_text(board.job)}")
    if studies:
        console.print(f"  study    {studies_text(studies)}")
        facts = facts_of(studies[0])  # what all points share; the line above has two of these
        shown = [f"{k} {v}" for k, v in facts.items() if k not in ("train seed", "precision")]
        for line in _folded("; ".join(shown), "  protocol ", console.width):
            console.print(line)
    console.print(f"  results  {where}")
    if look.others:
        count = counted(len(look.others), "other study", "other studies")
        console.print(f"  besides  {count}; --study ID shows one: mpt studies lists them")
    if any(study.smoke for study in studies):
        console.print(SMOKE, style="bold red")
    _progress(look, console)
    if note is not None and look.running is not False:
        _trials(note, console, look.now)
    if board is not None:
        entries = board.entries()
        if ranked(entries):
            display = _display(look)(board.job, console=console)
            display.ranking(entries, rankings(board, entries))
    for problem in look.recorded.problems:
        console.print(f"note: {problem}")


def _folded(text: str, label: str, width: int) -> list[str]:
    """Return a text as lines of a width, under its label."""
    indent = " " * len(label)
    return textwrap.wrap(text, width, initial_indent=label, subsequent_indent=indent)


def _display(look: Look) -> type[Display]:
    """Return the display that the search or replay itself has."""
    board = look.recorded.board
    assert board is not None
    if look.recorded.studies[0].role == "target":
        return CellDisplay
    several = len({(trial.plan, trial.method) for trial in board.job.trials}) > 1
    return SettingDisplay if several else Display


def _progress(look: Look, console: Console) -> None:
    """Say how far it is, what it has cost, and how long it will take, as far as that is known."""
    board, note = look.recorded.board, look.note
    entries = [] if board is None else board.entries()
    done = sum(entry.score is not None for entry in entries)
    stopped = sum(entry.stopped is not None for entry in entries)
    of = "" if note is None else f" of {max(note.points, done)} planned"
    words = [f"{counted(done, 'point')}{of}"]
    words += [f"{stopped} stopped"] if stopped else []
    if note is not None:
        words.append(f"{note.runs[0]} of {counted(note.runs[1], 'downstream run')}")
    console.print(f"  done     {', '.join(words)}")
    if board is not None:
        console.print(f"  cost     {cost_text(board, entries)}")
    if note is None:
        if look.running:
            console.print("  time     its driver runs, and has not said yet what it plans")
        return
    until = look.now
    if look.running is False:
        until = datetime.datetime.fromisoformat(note.updated)
    line = f"  time     {clock_text(_seconds(note.began, until))} so far"
    if look.running is not False:
        left_s = max(0.0, note.left_s - _seconds(note.updated, look.now))
        line += f", about {clock_text(left_s)} left, noted {_age(note.updated, look.now)} ago"
    console.print(line)
    for name, reason in note.failed.items():
        console.print(f"  failed   {name}: {reason}")


def _trials(note: DriverNote, console: Console, now: datetime.datetime) -> None:
    """List what is running: the trial, where it is, and for how long."""
    trials = sorted(note.running, key=lambda one: one.since)
    for number, one in enumerate(trials[:RUNNING_SHOWN]):
        for line in _folded(one.name, "  running  " if number == 0 else " " * 11, console.width):
            console.print(line)
        words = []
        if one.rung is not None:
            words.append(f"step {one.steps}, rung {one.rung}")
        if one.tuned is not None:
            words.append("{} of {} runs".format(*one.tuned))
        else:
            words.append(one.choosing or ("starting" if one.rung is None else "learning"))
        console.print(f"{' ' * 13}{', '.join(words)}, for {_age(one.since, now)}")
    if len(trials) > RUNNING_SHOWN:
        console.print(f"{' ' * 11}and {len(trials) - RUNNING_SHOWN} more")


def _age(then: str, now: datetime.datetime) -> str:
    return clock_text(_seconds(then, now))


def closing(look: Look) -> str | None:
    """Return what is said when nobody works on the results any more; None while somebody does."""
    note = look.note
    if look.running is not False:
        return None
    if note is None:
        return "no driver works on these results"
    if note.exit_code == 0:
        return "the search has ended: every point that was planned is there"
    if note.exit_code is not None:
        return f"the search has ended with exit code {note.exit_code}; the same command goes on"
    return "the driver of this search is gone; what was finished is kept, the same command goes on"
