"""What a driver notes of itself in the database while it runs, for whoever watches.

Points, runs and stops say what is finished. What is planned, which trials are running and how long
it will take only the driver knows; it keeps one small document of that, and nothing reads it to
compute anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.errors import StorageError
from mpt.keys import digest, tupled
from mpt.search.display.status import COUNTS
from mpt.store.records import DRIVER
from mpt.trial.origin import now
from mpt.trial.starts import choosing_text

if TYPE_CHECKING:
    from mpt.search.cost.plan import RemainingWork
    from mpt.search.cost.time_left import TimeLeft
    from mpt.search.dispatch import TrialGroup
    from mpt.search.job import SearchJob
    from mpt.store.database import Database
    from mpt.store.records import StudyRecord

EVERY_S = 5.0
"""Seconds between two notes."""


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that a worker has; `since` is a UTC time, ISO 8601."""

    name: str
    steps: int
    """Upstream steps taken."""
    rung: int | None
    """The rung that it learns for, or tunes at; None of a method that learns nothing upstream."""
    tuned: tuple[int, int] | None
    """Finished and all downstream runs at this rung; None before them."""
    since: str
    choosing: str = ""
    """How far its targets are with choosing starts, in words; empty if they are not at it."""


@dataclass(frozen=True, kw_only=True)
class DriverNote:
    """One driver, as it was when it last wrote; times are UTC, ISO 8601."""

    host: str
    results: str
    """Results directory on that host."""
    title: str
    """The space's title, for people."""
    began: str
    updated: str
    studies: tuple[str, ...]
    """Keys of the studies."""
    seeds: tuple[int, ...]
    """Upstream seeds that configurations are compared on."""
    fresh: int
    """How many further upstream seeds the winner is run with."""
    trials: int
    points: int
    """Planned; with several upstream seeds, as far as it is decided who gets them."""
    runs: tuple[int, int]
    """Finished and all downstream runs of the round: the first upstream seed of all trials, or
    further ones of some."""
    left_s: float
    """Seconds the round would still take then."""
    running: tuple[RunningTrial, ...] = ()
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name of a trial → why it failed."""
    exit_code: int | None = None
    """What the driver ended with; None while it runs, or if it was killed."""


def driver_notes(database: Database) -> list[DriverNote]:
    """Return the notes of all drivers that have ever worked on a database, the newest first.

    Raises:
        DataError: one was changed after it was written.
    """
    notes = map(_note_of, database.documents(DRIVER).values())
    return sorted((one for one in notes if one is not None), key=lambda one: one.updated)[::-1]


def _note_of(body: Any) -> DriverNote | None:
    """Return a note; None if another version of this program wrote it."""
    known = {field.name for field in dataclasses.fields(DriverNote)}
    own = {field.name for field in dataclasses.fields(RunningTrial)}
    if not isinstance(body, dict) or set(body) != known:
        return None
    if any(set(one) - own for one in body["running"]):
        return None
    running = (RunningTrial(**{**one, "tuned": tupled(one["tuned"])}) for one in body["running"])
    plain = {name: tupled(value) for name, value in body.items()}
    return DriverNote(**plain | {"running": tuple(running)})


class NoteKeeper:
    """Keeps the note of this driver."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock = database, clock
        self._note: DriverNote | None = None
        self._time_left: TimeLeft | None = None
        self._stored_runs = 0
        self._running: dict[str, RunningTrial] = {}
        self._written = clock()

    def begin(
        self,
        job: SearchJob,
        studies: Sequence[StudyRecord],
        work: RemainingWork,
        time_left: TimeLeft,
    ) -> None:
        """Write what a round is about to do."""
        trials, points = job.total
        config = job.plans[0].config
        replay = job.plans[0].role == "target"
        stored_runs, every = work.all_there, work.all_runs
        if self._note is not None:  # earlier rounds are there, and the baseline with them
            stored_runs, every = (self._note.runs[1] + one for one in (work.runs_there, work.runs))
        self._time_left, self._stored_runs = time_left, stored_runs
        self._running.clear()
        self._note = DriverNote(
            host=platform.node(),
            results=str(job.results),
            title=job.title,
            began=now() if self._note is None else self._note.began,
            updated=now(),
            studies=tuple(study.key for study in studies),
            seeds=() if replay else config.seeds,
            fresh=0 if replay else config.fresh_replicates,
            trials=trials,
            points=points,
            runs=(stored_runs, every),
            left_s=time_left.seconds,
        )
        with contextlib.suppress(StorageError):  # nothing depends on it
            self._write()

    def report(
        self,
        group: TrialGroup,
        steps: int,
        queue: Mapping[str, Any] | None,
        choosing: Mapping[str, Any] | None = None,
    ) -> None:
        """Take in where a trial stands.

        `queue` and `choosing` are `QueueStatus` and `Choosing` as dictionaries, None of what it is
        not at.
        """
        learning = queue is None and choosing is None
        rungs = [rung for rung in group.specs[0].upstream.rungs if rung > 0]
        begun = self._running.get(group.name)
        self._running[group.name] = RunningTrial(
            name=group.name,
            steps=steps,
            rung=next((one for one in rungs if one >= steps + learning), None),
            tuned=None if queue is None else (queue["finished"], sum(queue[n] for n in COUNTS)),
            since=now() if begun is None else begun.since,
            choosing="" if choosing is None else choosing_text(**choosing),
        )
        if self._clock() - self._written >= EVERY_S:
            self._write()

    def over(self, group: TrialGroup) -> None:
        """Take out a trial that has ended."""
        if self._running.pop(group.name, None) is not None:
            self._write()

    def end(self, exit_code: int, failed: Mapping[str, str]) -> None:
        """Write what the driver ended with, if it had anything to do."""
        if self._note is not None:
            self._running.clear()
            self._note = dataclasses.replace(self._note, exit_code=exit_code, failed=dict(failed))
            with contextlib.suppress(StorageError):
                self._write()

    def _write(self) -> None:
        if self._note is None or self._time_left is None:
            return
        self._written = self._clock()
        planned = self._note.runs[1]
        self._note = dataclasses.replace(
            self._note,
            updated=now(),
            runs=(min(planned, self._stored_runs + int(self._time_left.runs)), planned),
            left_s=self._time_left.seconds,
            running=tuple(self._running.values()),
        )
        name = digest([self._note.host, self._note.results])[:16]
        self._database.put_document(DRIVER, name, dataclasses.asdict(self._note))
