"""What Tune calls while it runs, without Ray: what is said, and what is stored of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from search_toys import with_rungs
from trial_toys import Bench, bench

from mpt.config import UpstreamConfig
from mpt.search.dispatch import TrialGroup, open_groups
from mpt.search.display.display import Display
from mpt.search.job import Execution, SearchJob
from mpt.search.leaderboard import Leaderboard
from mpt.search.ray.schedulers import StopDecision
from mpt.search.ray.tuning import Session, Watcher, ended_with
from mpt.search.watch.note import NoteKeeper
from mpt.study.study import OpenStudy
from mpt.trial.trial import Trial


class Said(Display):
    """Keeps what it would print."""

    def __init__(self, job: SearchJob) -> None:
        super().__init__(job)
        self.lines: list[str] = []

    def say(self, text: str = "") -> None:
        self.lines.append(text)


class Watched:
    """A watcher, and a search whose trials report to it."""

    def __init__(self, found: Bench) -> None:
        self.bench, self.show = found, Said(found.job)
        board = Leaderboard(found.job, lambda _: found.studies[0], found.database)
        self.groups = open_groups(board, lambda _: found.studies[0], found.database)
        left: Any = SimpleNamespace(
            report=lambda *_: None,
            stopped=lambda index: self.stopped.append(index),
            seconds=60.0,
            runs=0.0,
        )
        self.note = NoteKeeper(found.database)
        self.stopped: list[int] = []
        self.watcher = Watcher(
            self.show, board, self.groups, found.database, left, self.note, "checkpoints/now"
        )

    @property
    def lines(self) -> list[str]:
        """What was said, without lines about the search as a whole."""
        return [line for line in self.show.lines if not line.startswith("runs ")]

    def number(self, group: TrialGroup) -> int:
        return self.groups.index(group)

    def trial(self, number: int, **changes: Any) -> Any:
        """Return a trial as Tune shows it to callbacks."""
        return SimpleNamespace(config={"trial": number}, **changes)

    def report(self, number: int, **changes: Any) -> None:
        result: dict[str, Any] = {
            "steps": 0,
            "runs": 0.0,
            "choice_steps": 0.0,
            "choice_rows": 0.0,
            "problems": [],
            "failure": None,
            "landed": [],
            "queue": None,
            "choosing": None,
            "stopped": None,
        }
        self.watcher.on_trial_result(1, [], self.trial(number), {**result, **changes})

    def run(self, number: int, units: int | None = None) -> Trial:
        """Work on a trial and report after every unit."""
        work = self.bench.trial_of(*self.groups[number].specs)
        while not work.progress.done and units != 0:
            progress = work.unit()
            self.report(number, steps=progress.steps, landed=list(progress.landed))
            units = None if units is None else units - 1
        return work


@pytest.fixture
def watched(job: SearchJob, study: OpenStudy) -> Iterator[Watched]:
    """A search that has nothing; its trials 0 and 1 are plain prompt tuning."""
    with bench(with_rungs(job, (2, 4)), study) as found:
        yield Watched(found)


def test_a_point_is_said_once_its_baseline_is_whole(watched: Watched) -> None:
    watched.run(2)
    assert watched.lines == []
    watched.run(0)
    assert watched.lines == []
    watched.run(1)
    points = watched.lines
    assert [line.split()[0] for line in points] == ["1/4", "2/4"]
    assert {line.split()[3] for line in points} == {"2", "4"}


def test_a_choice_of_starts_is_in_the_status_and_in_the_note(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(watched.show, "status", said.append)
    noted: list[Any] = []
    monkeypatch.setattr(watched.note, "report", lambda *one: noted.append(one))
    race = {"how": "raced", "made": 12, "of": 45}
    watched.report(2, steps=2, choosing=race)
    watched.report(2, steps=2)
    watched.report(2, steps=2, choosing=race)
    watched.watcher.on_trial_complete(1, [], watched.trial(2))
    watched.report(3)
    line = "runs     racing starts 12 of 45 · 60 s left"
    assert said == [line, "", line, ""]
    assert [one[1:] for one in noted[:2]] == [(2, None, race), (2, None, None)]


def test_a_point_that_two_trials_report_is_said_once(watched: Watched) -> None:
    for number in (0, 1):
        watched.run(number)
    work = watched.run(2)
    assert len(watched.lines) == 2
    keys = sorted(point.key for point in watched.bench.database.points())
    watched.report(3, landed=keys)
    watched.watcher.on_trial_complete(1, [], watched.trial(2))
    assert len(watched.lines) == 2
    assert work.progress.done


def test_points_of_a_worker_that_died_before_it_could_report_are_said_at_the_end(
    watched: Watched,
) -> None:
    watched.bench.run_baseline()
    watched.bench.run(0)  # nobody hears of it
    watched.run(2)  # the worker that takes over finds everything there
    assert watched.lines == []
    watched.watcher.on_trial_complete(1, [], watched.trial(2))
    assert [line.split()[0] for line in watched.lines] == ["1/4", "2/4"]
    watched.watcher.on_trial_complete(1, [], watched.trial(3))  # nothing is stored of this one
    watched.watcher.on_trial_complete(1, [], watched.trial(0))  # and this is of the baseline
    assert len(watched.lines) == 2


def test_what_is_on_record_at_the_start_is_not_news_but_counts(watched: Watched) -> None:
    watched.bench.run_baseline()
    watched.bench.run(0)
    later = Watched(watched.bench)
    assert len(later.groups) == 1
    later.run(0)
    assert [line.split()[0] for line in later.lines] == ["3/4", "4/4"]


def test_a_stop_is_said_after_the_point_that_led_to_it(watched: Watched) -> None:
    watched.bench.run_baseline()
    work = watched.bench.trial(0)
    while not work.unit().landed:
        continue
    watched.watcher.stop(2, StopDecision(2, "asha", "score +1.00 fell behind"))
    assert watched.lines == []
    watched.report(2, landed=list(work.progress.landed))
    point, stop = watched.lines
    assert point.split()[0] == "1/4"
    assert stop == (
        "stopped  maml-inner0.1-outer0.3-k1-b2-random_to_random: by asha at rung 2: "
        "score +1.00 fell behind"
    )
    (record,) = watched.bench.database.stops()
    assert (record.by, record.steps, record.reason) == ("asha", 2, "score +1.00 fell behind")
    assert watched.stopped == [0]
    watched.report(3)
    assert len(watched.lines) == 2


def test_a_trial_that_stops_itself_on_the_way_to_a_rung_is_put_on_record(
    watched: Watched,
) -> None:
    watched.report(3, stopped={"steps": 4, "reason": "it ends at most at ARG −3"})
    (record,) = watched.bench.database.stops()
    assert (record.by, record.steps) == ("racing", 4)
    assert record.trial == watched.bench.job.trials[1].name
    assert "by racing at rung 4: it ends at most at ARG −3" in watched.lines[0]
    assert watched.stopped == [1]


def test_the_newest_checkpoint_of_a_trial_is_known_to_the_database(watched: Watched) -> None:
    for count in (3, 4):
        watched.watcher.on_checkpoint(
            1,
            [],
            watched.trial(2, last_result={"owner": "key", "steps": count}),
            SimpleNamespace(path=f"/somewhere/trial-2/checkpoint_00000{count}"),
        )
    (kept,) = watched.bench.database.artifacts("checkpoint")
    assert (kept.owner, kept.steps) == ("key", 4)
    assert kept.uri == "checkpoints/now/trial-2/checkpoint_000004"
    # a trial that failed before it knew its key has no checkpoint worth keeping
    watched.watcher.on_checkpoint(
        1, [], watched.trial(3, last_result={"owner": "", "steps": 0}), SimpleNamespace(path="x")
    )
    watched.watcher.on_checkpoint(
        1, [], watched.trial(3, last_result=None), SimpleNamespace(path="x")
    )
    assert watched.bench.database.artifacts("checkpoint") == [kept]
    assert watched.lines == []


def test_failures_are_kept_by_name_with_their_reason(watched: Watched) -> None:
    names = [group.name for group in watched.groups]
    watched.report(0, failure="no space; free some")
    watched.watcher.on_trial_error(
        1, [], watched.trial(2, get_error=lambda: "trace\nValueError: x", error_file="/e.txt")
    )

    def unread() -> str:
        raise EOFError("ran out of input")

    watched.watcher.on_trial_error(1, [], watched.trial(3, get_error=unread, error_file=None))
    assert watched.watcher.failures == {
        names[0]: "no space; free some",
        names[2]: "ValueError: x (details: /e.txt)",
        names[3]: "unknown reason (details: None)",
    }


def test_problems_are_said_once(watched: Watched) -> None:
    for number in (2, 3):
        watched.report(number, problems=["a file is broken; it is made again"])
    assert watched.lines == ["note: a file is broken; it is made again"]
    watched.watcher.on_trial_recover(1, [], watched.trial(2))
    name = watched.groups[2].name
    assert watched.lines[1:] == [
        f"note: {name}: its worker died; it goes on from its last checkpoint"
    ]


def test_an_error_in_a_callback_is_a_note_and_not_the_end(watched: Watched) -> None:
    watched.watcher.on_trial_result(1, [], watched.trial(2), {"steps": 0})  # without its parts
    (line,) = watched.lines
    assert line.startswith("note: the display failed: KeyError")
    assert line.endswith("the search goes on")
    watched.bench.database.close()
    watched.bench.job.results.rename(watched.bench.job.results.with_name("away"))
    watched.watcher.on_checkpoint(
        1, [], watched.trial(2, last_result={"owner": "k", "steps": 1}), SimpleNamespace(path="x")
    )
    assert watched.lines[-1].startswith("note: the note of a checkpoint failed: StorageError")


def test_tune_may_pickle_a_watcher_and_gets_nothing(watched: Watched) -> None:
    assert watched.watcher.__getstate__() == {}


def test_an_end_of_tune_is_one_line_and_names_the_cure_of_full_memory() -> None:
    killed = "2 worker(s) were killed due to the node running low on memory. 22 of 23 GB used"
    line = ended_with(RuntimeError(f"Caught unexpected exception: {killed}\nTop 10 users:\nPID"))
    assert line == (
        f"Ray Tune ended with RuntimeError: Caught unexpected exception: {killed}; take fewer "
        "--workers, or end what else fills the memory; what was finished is kept"
    )
    assert (
        ended_with(KeyError())
        == "Ray Tune ended with KeyError: KeyError; what was finished is kept"
    )


# --- racing in a job of two studies --------------------------------------------------------------


@pytest.fixture
def two(job: SearchJob, study: OpenStudy) -> Iterator[Bench]:
    """A bench of two studies that differ in the steps of tuning alone."""
    down = dataclasses.replace(study.config.downstream, steps=2 * study.config.downstream.steps)
    config = dataclasses.replace(study.config, downstream=down)
    other = dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))
    first, second = job.trials[:2]
    assert isinstance(second.upstream.config, UpstreamConfig)
    rates = dataclasses.replace(second.upstream.config, outer_lr=0.7)
    third = dataclasses.replace(first, upstream=dataclasses.replace(second.upstream, config=rates))
    trials = (first, dataclasses.replace(second, plan=other.plan), third)
    with bench(dataclasses.replace(job, trials=trials, racing=True), study, other) as found:
        yield found


def _session(found: Bench) -> tuple[Session, list[TrialGroup]]:
    opened = {study.plan: study for study in found.studies}
    board = Leaderboard(found.job, opened.__getitem__, found.database)
    groups = open_groups(board, opened.__getitem__, found.database)
    show, left = Display(found.job), SimpleNamespace(stopped=lambda index: None)
    note: Any = NoteKeeper(found.database)
    session = Session(
        found.job,
        Execution(),
        board,
        groups,
        found.database,
        opened.__getitem__,
        show,
        left,  # type: ignore[arg-type]
        note,
        "now",
    )
    return session, groups


def _report(arg: float) -> dict[str, Any]:
    interval = {"arg": arg, "arg_low": arg - 1, "arg_high": arg + 1}
    return {"score": arg, **interval, "rung_steps": 2, "rung": 1.0, "done": False}


def test_a_leader_of_another_study_stops_nobody(two: Bench) -> None:
    session, groups = _session(two)
    scheduler: Any = session._scheduler()
    controller = SimpleNamespace(get_trials=list, get_live_trials=list)
    answers = []
    listed = [(n, group) for n, group in enumerate(groups) if group.indices]
    for (number, group), arg in zip(listed, (9.0, 1.0, 1.0), strict=True):
        config = session._config(group, number)
        trial = SimpleNamespace(trial_id=f"id{number}", config=config, status="RUNNING")
        scheduler.on_trial_add(controller, trial)
        answers.append(scheduler.on_trial_result(controller, trial, _report(arg)))
    configs = [session._config(group, number) for number, group in listed]
    assert len({(one["method"], one["partition"], one["backbone"]) for one in configs}) == 1
    assert answers == ["CONTINUE", "CONTINUE", "STOP"]
