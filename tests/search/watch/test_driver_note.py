"""What a driver notes of itself: planned, running, left, and how it ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from search_toys import with_rungs
from trial_toys import Bench, bench

from mpt.errors import StorageError
from mpt.search.cost.plan import RemainingWork
from mpt.search.dispatch import TrialGroup, open_groups
from mpt.search.job import SearchJob
from mpt.search.leaderboard import Leaderboard
from mpt.search.watch.note import EVERY_S, DriverNote, NoteKeeper, driver_notes
from mpt.store.records import DRIVER
from mpt.study.study import OpenStudy
from mpt.trial.run_queue import QueueStatus


def _queue(finished: int, runs: int) -> dict[str, Any]:
    """Return what a trial reports of its runs, one of which is running."""
    speeds = {"steps_s": 1.0, "examples_s": 8.0, "tokens_s": 9.0, "useful": 1.0}
    waiting = runs - finished - 1
    status = QueueStatus(finished=finished, running=1, waiting=waiting, **speeds)
    return dataclasses.asdict(status)


class Driven:
    """A keeper with a clock that is set by hand, and a search of two trials with two rungs."""

    def __init__(self, found: Bench) -> None:
        self.bench, self.seconds = found, 0.0
        self.board = Leaderboard(found.job, lambda _: found.studies[0], found.database)
        self.groups = open_groups(self.board, lambda _: found.studies[0], found.database)
        self.left: Any = SimpleNamespace(runs=0.0, seconds=60.0)
        self.keeper = NoteKeeper(found.database, clock=lambda: self.seconds)

    def begin(self, **work: Any) -> None:
        body = {"trials": (), "points": 4, "points_there": 0, "runs": 30, "runs_there": 3}
        made = RemainingWork(**{**body, "shared": 10, "shared_there": 2, **work})
        self.keeper.begin(self.bench.job, list(self.board.studies.values()), made, self.left)

    @property
    def note(self) -> DriverNote:
        (note,) = driver_notes(self.bench.database)
        return note

    def report(self, group: TrialGroup, steps: int, queue: Any = None) -> None:
        self.seconds += EVERY_S
        self.keeper.report(group, steps, queue)


@pytest.fixture
def driven(job: SearchJob, study: OpenStudy) -> Iterator[Driven]:
    with bench(with_rungs(job, (2, 4)), study) as found:
        yield Driven(found)


def test_the_plan_of_a_search_is_noted_at_its_beginning(driven: Driven) -> None:
    assert driver_notes(driven.bench.database) == []
    driven.begin()
    note = driven.note
    assert (note.trials, note.points, note.runs) == (2, 4, (5, 40))
    assert note.studies == tuple(record.key for record in driven.board.studies.values())
    assert (note.title, note.left_s, note.seeds, note.fresh) == ('space "toy"', 60.0, (42,), 0)
    assert note.results == str(driven.bench.job.results)
    assert (note.running, note.failed, note.exit_code) == ((), {}, None)


def test_running_trials_say_where_they_are(driven: Driven) -> None:
    driven.begin()
    baseline, _, learning, tuning = driven.groups
    driven.left.runs = 2.6
    driven.report(baseline, 0, _queue(1, 4))
    driven.report(learning, 2)
    driven.report(tuning, 2, _queue(3, 8))
    running = {one.name: one for one in driven.note.running}
    assert [running[one.name].steps for one in (baseline, learning, tuning)] == [0, 2, 2]
    # one that learns is on its way to the next rung, one that tunes is at it
    assert [running[one.name].rung for one in (baseline, learning, tuning)] == [None, 4, 2]
    assert [running[one.name].tuned for one in (baseline, learning, tuning)] == [
        (1, 4),
        None,
        (3, 8),
    ]
    assert driven.note.runs == (7, 40)
    begun = running[tuning.name].since
    driven.report(tuning, 3)
    assert {one.name: one.since for one in driven.note.running}[tuning.name] == begun
    driven.keeper.over(tuning)
    assert [one.name for one in driven.note.running] == [baseline.name, learning.name]


def test_a_trial_that_chooses_starts_says_so_and_stands_at_its_rung(driven: Driven) -> None:
    driven.begin()
    trial = driven.groups[2]
    driven.seconds += EVERY_S
    driven.keeper.report(trial, 4, None, {"how": "raced", "made": 12, "of": 45})
    (running,) = driven.note.running
    assert (running.choosing, running.rung) == ("racing starts 12 of 45", 4)
    assert running.tuned is None
    driven.report(trial, 4, _queue(1, 8))
    (running,) = driven.note.running
    assert (running.choosing, running.rung, running.tuned) == ("", 4, (1, 8))


def test_notes_are_written_now_and_then_and_not_at_every_report(driven: Driven) -> None:
    driven.begin()
    driven.keeper.report(driven.groups[2], 1, None)
    assert driven.note.running == ()
    driven.report(driven.groups[2], 1)
    assert len(driven.note.running) == 1


def test_the_end_is_noted_and_a_driver_that_had_nothing_to_do_notes_nothing(
    driven: Driven,
) -> None:
    driven.keeper.end(0, {})
    assert driver_notes(driven.bench.database) == []
    driven.begin()
    began = driven.note.began
    driven.report(driven.groups[2], 1)
    driven.begin(runs=50)  # a further round
    # 40 runs of the first round, and 50 more, of which 3 are there; the baseline is counted once
    assert (driven.note.began, driven.note.running, driven.note.runs) == (began, (), (43, 90))
    driven.keeper.end(4, {"a trial": "no space"})
    assert (driven.note.exit_code, driven.note.failed) == (4, {"a trial": "no space"})
    assert driven.note.running == ()


def test_a_note_of_another_version_is_passed_over(driven: Driven) -> None:
    driven.begin()
    driven.report(driven.groups[2], 1)
    body = dataclasses.asdict(driven.note)
    driven.bench.database.put_document(DRIVER, "other", {**body, "colour": "red"})
    more = [{**one, "colour": "red"} for one in body["running"]]
    driven.bench.database.put_document(DRIVER, "another", {**body, "running": more})
    assert driven.note.trials == 2


def test_a_note_from_before_trials_said_that_they_choose_starts_is_read(driven: Driven) -> None:
    driven.begin()
    driven.report(driven.groups[2], 1)
    note = driven.note
    body = dataclasses.asdict(note)
    running = [
        {name: v for name, v in one.items() if name != "choosing"} for one in body["running"]
    ]
    (name,) = driven.bench.database.documents(DRIVER)
    driven.bench.database.put_document(DRIVER, name, {**body, "running": running})
    assert driven.note == note


def test_a_storage_that_is_full_changes_nothing_of_a_search(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("no space")

    monkeypatch.setattr(driven.bench.database, "put_document", full)
    driven.begin()
    driven.keeper.end(0, {})
    assert driver_notes(driven.bench.database) == []
