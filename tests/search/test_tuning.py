"""Searches that choose and stop with a real Ray, and the parts of the driver without one."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import search_toys
from search_toys import computed, tpe_job

import mpt
from mpt.records import read_lines
from mpt.search import run as run_module
from mpt.search.choosers import open_chooser
from mpt.search.cost.plan import CourseLoad, LeafLoad, LeafRate, Load, Rates
from mpt.search.cost.time_left import TimeLeft
from mpt.search.display.display import Display
from mpt.search.feed import Feed, planned, with_suggestions
from mpt.search.job import Execution, SearchJob
from mpt.search.ray.schedulers import Verdict
from mpt.search.ray.tuning import CourseSearcher, Watcher
from mpt.search.run import plan_search, run_search
from mpt.search.standing import Standings
from mpt.study.study import Study
from mpt.trial.trajectory import TrajectoryWork

ROOT = Path(mpt.__file__).resolve().parents[1]


def _compute(study: Study, job: SearchJob, index: int = 0, rungs: int = 3) -> None:
    """Put the first rungs of a course on disk, without Ray."""
    course = job.courses[index].trajectory
    few = dataclasses.replace(course, rungs=course.rungs[:rungs])
    list(TrajectoryWork(study, few, job.results, 1e9).units())


def _feed(job: SearchJob, study: Study) -> tuple[Feed, Standings]:
    chooser = open_chooser(job)
    job = with_suggestions(job, chooser)
    standings = Standings(job, lambda plan: study)
    return Feed(job, standings, chooser, lambda plan: study), standings


# --- with Ray -----------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_tpe_and_asha_search_stop_what_falls_behind_and_say_so_in_one_document(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    script = [sys.executable, str(Path(search_toys.__file__)), str(toy_checkpoint), str(toy_gym)]
    done = subprocess.run(
        [*script, str(results), "TPE", "JSON"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)  # and nothing else on stdout
    assert found["exit_code"] == 0
    assert found["stoppers"] == ["asha"]
    by_status: dict[str, list[dict[str, Any]]] = {}
    for point in found["points"]:
        by_status.setdefault(point["status"], []).append(point)
    assert len(found["points"]) == 9
    assert set(by_status) == {"ok", "stopped"}
    # One after the other: the first point comes to its end, rates at which nothing is learned
    # are stopped at the first rung.
    first = [point for point in by_status["ok"] if point["settings"]["outer_lr"] == 0.3]
    assert [point["steps"] for point in sorted(first, key=lambda p: p["steps"])] == [2, 4, 8]
    notes = {point["note"] for point in by_status["stopped"]}
    assert all("stopped by asha at rung" in note and "is below the cut" in note for note in notes)
    assert "rank" in done.stderr
    assert "stopped  maml-" in done.stderr
    assert len(read_lines(results / "stops.jsonl")) == len(notes)
    (log,) = (results / "searches").iterdir()
    assert len(read_lines(log)) == 3
    assert len(computed(results)) == len(set(computed(results)))

    # the same command again starts nothing: what was stopped stays so
    job = tpe_job(toy_checkpoint, toy_gym, results)
    assert run_search(job, Execution(next_step="rest")) == 0
    again = capsys.readouterr().out
    assert "time left" not in again
    assert "stopped  maml-" in again
    assert len(read_lines(log)) == 3
    # without the scheduler, or with a larger count, there is something left to do
    assert plan_search(dataclasses.replace(job, scheduler="none"), Execution(workers=1)) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines() if line.split()[-1:] in (["yes"], ["no"])]
    assert [row[-1] for row in rows].count("no") == len(by_status["stopped"])
    assert plan_search(tpe_job(toy_checkpoint, toy_gym, results, 5), Execution(workers=1)) == 0
    assert "2 more trajectories are chosen while the search runs" in capsys.readouterr().out


# --- the feed, without Ray ----------------------------------------------------------------------


def test_a_list_is_fed_in_order_without_what_is_complete(job: SearchJob, study: Study) -> None:
    _compute(study, job, 0)
    feed, _ = _feed(job, study)
    assert (feed.left, feed.open) == (1, False)
    assert [feed.next(), feed.next()] == [1, None]


def test_what_was_stopped_is_not_fed_again_unless_nobody_stops(
    job: SearchJob, study: Study
) -> None:
    job = dataclasses.replace(job, racing=True)
    _compute(study, job, 0, rungs=1)
    _, standings = _feed(job, study)
    standings.stop(0, 2, "racing", "because")
    standings.stop(1, 2, "racing", "on the way to its first rung")
    feed, standings = _feed(job, study)
    assert feed.left == 0
    entries = standings.entries()
    assert [entry.score is not None for entry in entries] == [True] + 5 * [False]
    assert [entry.stopped is not None for entry in entries] == [False] + 5 * [True]
    assert [stop.steps for stop in standings.stops] == [2, 2]
    for other in ({"racing": False}, {"racing": False, "scheduler": "none"}):
        feed, _ = _feed(dataclasses.replace(job, **other), study)
        assert [feed.next(), feed.next(), feed.next()] == [0, 1, None]
    # also where there are more rungs: what follows the stop is not computed
    longer = tuple(
        dataclasses.replace(c, trajectory=dataclasses.replace(c.trajectory, rungs=(2, 4, 6, 8)))
        for c in job.courses
    )
    assert _feed(dataclasses.replace(job, courses=longer), study)[0].left == 0


def test_suggestions_go_on_behind_what_is_on_record(
    study: Study, toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    job = tpe_job(toy_checkpoint, toy_gym, tmp_path / "results")
    feed, standings = _feed(job, study)
    assert (feed.left, feed.open) == (3, True)
    assert feed.next() == 0
    assert feed.next() == 1
    assert len(standings.courses) == 2
    _compute(study, dataclasses.replace(job, courses=tuple(standings.courses)), 1)
    feed.ended(1)

    again, standings = _feed(job, study)  # the first was never finished, the second is complete
    assert (again.left, again.open) == (2, True)
    assert [again.next(), again.next(), again.next()] == [0, 2, None]
    assert not again.open
    assert len(standings.courses) == 3


def test_a_suggestion_that_was_stopped_is_not_handed_out_again(
    study: Study, toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    job = tpe_job(toy_checkpoint, toy_gym, tmp_path / "results")
    feed, standings = _feed(job, study)
    assert feed.next() == 0
    _compute(study, job, 0, rungs=1)
    standings.stop(0, 2, "asha", "because")
    again, _ = _feed(job, study)
    assert again.left == 2
    assert [again.next(), again.next(), again.next()] == [1, 2, None]


def test_the_plan_counts_what_will_be_chosen_and_not_what_was_stopped(
    study: Study, toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    job = tpe_job(toy_checkpoint, toy_gym, tmp_path / "results", 4)
    _compute(study, job, 0, rungs=1)
    _, standings = _feed(job, study)
    assert len(planned(job, standings).courses) == 4
    assert len(set(planned(job, standings).courses)) == 4
    standings.stop(0, 2, "asha", "because")
    whole = planned(job, standings)
    assert [course.trajectory.rungs for course in whole.courses] == [(2,), *3 * [(2, 4, 8)]]


# --- what Tune calls, without Ray ---------------------------------------------------------------


class Said(Display):
    """Keeps what it would print."""

    def __init__(self, job: SearchJob) -> None:
        super().__init__(job)
        self.lines: list[str] = []

    def say(self, text: str = "") -> None:
        self.lines.append(text)


@pytest.fixture
def watcher(job: SearchJob, study: Study, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    monkeypatch.setattr(TimeLeft, "__init__", lambda *_: None)
    monkeypatch.setattr(TimeLeft, "report", lambda *_: None)
    monkeypatch.setattr(TimeLeft, "stopped", lambda *_: None)
    monkeypatch.setattr(TimeLeft, "seconds", 60.0)
    left = TimeLeft(None, None, 1)  # type: ignore[arg-type]
    return Watcher(Said(job), Standings(job, lambda plan: study), left)


def _report(index: int, **changes: Any) -> dict[str, Any]:
    report = {"index": index, "problems": [], "failure": None, "landed": [], "tuning": None}
    return {**report, **changes}


def _lines(watcher: Watcher) -> list[str]:
    assert isinstance(watcher._show, Said)
    return watcher._show.lines


def test_a_stop_is_said_after_the_point_that_led_to_it(
    job: SearchJob, study: Study, watcher: Watcher
) -> None:
    _compute(study, job, 0, rungs=1)
    watcher.stop(0, Verdict(2, "asha", "score +1.00 is below the cut +2.00"))
    watcher.on_trial_result(1, [], None, _report(0, landed=[2]))
    point, stop = _lines(watcher)
    assert "1/6" in point
    assert stop == (
        "stopped  maml-inner0.1-outer0.3-k1-b2-random_to_random: by asha at rung 2: "
        "score +1.00 is below the cut +2.00"
    )
    (line,) = read_lines(job.results / "stops.jsonl")
    assert (line["by"], line["steps"]) == ("asha", 2)


def test_a_trial_that_stops_itself_on_the_way_to_a_rung_is_put_on_record(
    job: SearchJob, watcher: Watcher
) -> None:
    stopped = {"steps": 4, "reason": "it ends at most at ARG −3"}
    watcher.on_trial_result(1, [], None, _report(1, stopped=stopped))
    (line,) = read_lines(job.results / "stops.jsonl")
    assert (line["by"], line["steps"], line["reason"]) == ("racing", 4, stopped["reason"])
    assert "by racing at rung 4: it ends at most" in _lines(watcher)[0]


def test_what_is_left_of_a_stopped_course_is_no_time_left_any_more() -> None:
    # two courses of 100 steps, a second each, on one worker; no leaves
    none = LeafLoad(kind="l", runs=0, steps=0, rows=0)
    course = CourseLoad(kind="s", steps=100, leaves=none, points=1)
    load = Load(
        courses=(course, course),
        points=2,
        points_there=0,
        leaves=0,
        leaves_there=0,
        shared=0,
        shared_there=0,
    )
    rates = Rates(steps={"s": 1.0}, leaves={"l": LeafRate(step_s=0.0, row_s=0.0)}, start_s=0.0)
    now = [0.0]
    left = TimeLeft(load, rates, 1, clock=lambda: now[0])
    now[0] = 50.0
    left.report({"index": 0, "steps": 50, "leaves": 0})
    assert left.seconds == pytest.approx(150.0)
    left.stopped(0)
    left.stopped(0)  # taken out once
    assert left.seconds == pytest.approx(100.0)  # the second course
    left.stopped(1)
    assert left.seconds == pytest.approx(0.0)


def test_an_error_in_a_callback_is_a_note_and_not_the_end(watcher: Watcher) -> None:
    watcher.on_trial_result(1, [], None, {"index": 0})  # a report without its parts
    (line,) = _lines(watcher)
    assert line.startswith("note: the display failed: KeyError")


def test_the_searcher_hands_out_courses_and_learns_how_they_ended(
    job: SearchJob, study: Study, watcher: Watcher
) -> None:
    feed, _ = _feed(job, study)
    searcher = CourseSearcher(feed, watcher)
    assert searcher.set_search_properties(None, None, {})
    first = searcher.suggest("a")
    assert first is not None
    assert first["trial"]["index"] == 0
    assert first["trial"]["course"] == job.courses[0]
    assert first["trial"]["key"] == study.trajectory_key(job.courses[0].trajectory.config)
    assert searcher.suggest("b") is not None
    assert searcher.suggest("c") == "FINISHED"
    ended: list[int] = []
    feed.ended = ended.append  # type: ignore[assignment,method-assign]
    searcher.on_trial_complete("b", error=True)
    searcher.on_trial_complete("a", {"steps": 1})
    assert ended == [1, 0]
    assert pickle.loads(pickle.dumps(searcher)) is not None


def test_a_searcher_that_cannot_go_on_says_so_and_ends_the_supply(
    job: SearchJob, study: Study, watcher: Watcher
) -> None:
    feed, _ = _feed(job, study)

    def broken() -> int:
        raise OSError(28, "No space left on device")

    feed.next = broken  # type: ignore[method-assign]
    assert CourseSearcher(feed, watcher).suggest("a") == "FINISHED"
    (line,) = _lines(watcher)
    assert line.startswith("note: the choice of the next course failed: OSError")


def test_fresh_sets_suggestions_and_stops_aside_too(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("searches/a.jsonl", "stops.jsonl"):
        path = job.results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    monkeypatch.setattr(run_module, "_run", lambda *_: 0)
    assert run_search(job, Execution(), fresh=True) == 0
    (moved,) = job.results.glob("old-*")
    assert {path.name for path in moved.iterdir()} >= {"searches", "stops.jsonl"}
