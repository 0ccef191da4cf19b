"""A search seen from its results: its ranking, how far it is, and whether it runs."""

from __future__ import annotations

import dataclasses
import datetime
import io
import platform
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from search_toys import with_rungs
from stored import Stored, compute

from mpt.config import CONTROL, UpstreamConfig
from mpt.errors import UsageError
from mpt.search.comparison import rankings
from mpt.search.display.display import ONE_SEED, Display
from mpt.search.job import SearchJob
from mpt.search.leaderboard import Leaderboard
from mpt.search.watch.note import DriverNote, RunningTrial
from mpt.search.watch.view import closing, look, show
from mpt.store.database import open_results
from mpt.store.lock import driver_lock
from mpt.store.records import DRIVER, StudyRecord
from mpt.study.study import open_study

NOW = datetime.datetime(2026, 5, 1, 12, 0, tzinfo=datetime.UTC)
BEFORE = "2026-05-01T11:50:00+00:00"


def _console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, markup=False, soft_wrap=True, highlight=False)


def _text(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def _shown(results: Path, study: str | None = None, width: int = 80) -> str:
    console = _console(width)
    with open_results(results, read_only=True) as database:
        show(look(database, results, study, NOW), console, "here")
    return _text(console)


def _end(results: Path) -> str | None:
    with open_results(results, read_only=True) as database:
        return closing(look(database, results, None, NOW))


def _note(results: Path, *studies: StudyRecord, **changes: Any) -> None:
    body: dict[str, Any] = {
        "host": platform.node(),
        "results": str(results),
        "title": "a space",
        "began": "2026-05-01T11:30:00+00:00",
        "updated": BEFORE,
        "studies": tuple(study.key for study in studies),
        "seeds": (42,),
        "fresh": 0,
        "trials": 3,
        "points": 6,
        "runs": (7, 40),
        "left_s": 1800.0,
    }
    note = DriverNote(**{**body, **changes})
    with open_results(results) as database:
        database.put_document(DRIVER, note.began, dataclasses.asdict(note))


def _points(stored: Stored, study: StudyRecord, **args: float) -> None:
    for rate, arg in ((0.1, args["low"]), (1.0, args["high"])):
        config = UpstreamConfig(inner_lr=rate, outer_lr=0.3)
        stored.point(study, config, 25, arg, created="2026-05-01T11:40:00+00:00")


def test_the_ranking_is_that_of_the_searchs_own_display(job: SearchJob) -> None:
    job = with_rungs(job, (2, 4))
    compute(job)
    console = _console()
    with open_results(job.results, read_only=True) as database:
        board = Leaderboard(job, open_study, database)
        Display(job, console).ranking(board.entries(), rankings(board, board.entries()))
    assert "rank" in _text(console)
    assert _shown(job.results).endswith(_text(console))


def test_a_look_at_several_downstream_starts_says_so_and_scores_their_means(
    tmp_path: Path,
) -> None:
    stored = Stored(tmp_path)
    study = stored.study(settings={"starts": 2})
    _points(stored, study, low=1.0, high=9.0)
    text = _shown(tmp_path)
    assert "× 2 data seeds × 2 starts\n" in text
    assert f"  study    {study.id} (float32, train seed 42, starts 2)" in text.splitlines()
    assert "+9.00" in text
    assert "12 downstream runs" in text  # two points and the baseline, two seeds, two starts


def test_a_look_says_what_is_searched_how_far_it_is_and_what_it_cost(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    study = stored.study()
    _points(stored, study, low=1.0, high=9.0)
    lines = _shown(tmp_path).splitlines()
    assert lines[0] == "MAML search · random_to_random · backbone embedded"
    assert lines[1] == "  score    ARG (%) over prompt tuning on 1 validation task × 2 data seeds"
    assert f"  study    {study.id} (float32, train seed 42)" in lines
    assert "  protocol gym embedded; data seeds 13, 21; downstream learning rates 0.5" in lines
    assert "  done     2 points" in lines
    assert any(line.startswith("  cost     50 upstream steps (50 s") for line in lines)
    assert not any("planned" in line or "left" in line for line in lines)
    assert not any("starts" in line for line in lines)
    table = lines.index(next(line for line in lines if line.startswith(" rank")))
    assert max(len(line.rstrip()) for line in lines[: table + 4]) <= 80


def test_a_driver_says_what_is_planned_and_running_and_how_long_it_takes(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    study = stored.study()
    _points(stored, study, low=1.0, high=9.0)
    since = "2026-05-01T11:48:00+00:00"
    running = [
        RunningTrial(name=f"t{n}", steps=24 + n, rung=50, tuned=None, since=since)
        for n in range(10)
    ]
    running[1] = dataclasses.replace(running[1], steps=50, tuned=(3, 8))
    running[2] = dataclasses.replace(running[2], steps=50, choosing="racing starts 12 of 45")
    with driver_lock(tmp_path):
        _note(tmp_path, study, running=tuple(running))
        text = _shown(tmp_path)
        assert _end(tmp_path) is None
    assert "  done     2 points of 6 planned, 7 of 40 downstream runs" in text
    # 1800 s were left ten minutes ago
    assert "  time     30 min so far, about 20 min left, noted 10 min ago" in text
    assert "  running  t0\n             step 24, rung 50, learning, for 12 min\n" in text
    assert "           t1\n             step 50, rung 50, 3 of 8 runs, for 12 min\n" in text
    assert "           t2\n             step 50, rung 50, racing starts 12 of 45, for" in text
    assert "t8" not in text
    assert "and 2 more" in text
    text = _shown(tmp_path)  # the driver is gone, and with it what was running and left
    assert "t0" not in text
    assert "20 min so far\n" in text


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ({}, "the driver of this search is gone"),
        ({"exit_code": 0}, "the search has ended: every point that was planned is there"),
        ({"exit_code": 4}, "the search has ended with exit code 4"),
        ({"exit_code": 75}, "the search has ended with exit code 75; the same command goes on"),
        ({"host": "elsewhere"}, "the driver of this search is gone"),
    ],
)
def test_the_end_of_a_driver_is_said(tmp_path: Path, note: dict[str, Any], said: str) -> None:
    study = Stored(tmp_path).study()
    assert _end(tmp_path) == "no driver works on these results"
    _note(tmp_path, study, **note)
    assert str(_end(tmp_path)).startswith(said)
    with driver_lock(tmp_path):
        assert _end(tmp_path) is None


def test_a_driver_on_another_host_runs_as_long_as_its_notes_are_fresh(tmp_path: Path) -> None:
    study = Stored(tmp_path).study()
    _note(tmp_path, study, host="elsewhere", updated="2026-05-01T11:59:00+00:00")
    assert _end(tmp_path) is None


def test_a_failed_trial_is_named_with_its_reason(tmp_path: Path) -> None:
    study = Stored(tmp_path).study()
    _note(tmp_path, study, exit_code=4, failed={"maml-x": "no space; free some"})
    assert "  failed   maml-x: no space; free some" in _shown(tmp_path)


def test_seeds_are_those_of_the_driver_or_those_that_several_configurations_have(
    tmp_path: Path,
) -> None:
    stored = Stored(tmp_path)
    study = stored.study()
    for rate, seeds in ((0.1, (None, 1042)), (1.0, (None, 1042, 2042))):
        for place, seed in enumerate(seeds):
            config = UpstreamConfig(inner_lr=rate, outer_lr=0.3, seed=seed)
            stored.point(study, config, 25, 10 * rate + place)

    def seeds_shown() -> list[str]:
        rows = [line.split() for line in _shown(tmp_path).splitlines()]
        return [row[4].rstrip("*") for row in rows if row and row[0].rstrip("=") in ("1", "2")]

    assert seeds_shown() == ["2", "2"]
    assert "on fresh upstream seed 2042" in _shown(tmp_path)
    _note(tmp_path, study, seeds=(42, 1042, 2042))
    assert seeds_shown() == ["3", "2"]


def test_a_control_on_the_fresh_seeds_does_not_make_them_compared(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    study = stored.study()
    for rate, seeds in ((0.1, (None, 1042)), (1.0, (None, 1042, 2042))):
        for seed in seeds:
            config = UpstreamConfig(inner_lr=rate, outer_lr=0.3, seed=seed)
            stored.point(study, config, 25, 10 * rate)
    start = UpstreamConfig(method=CONTROL, outer_lr=0.5, seed=2042)
    stored.point(study, start, 1, 1.0)
    assert "on fresh upstream seed 2042" in _shown(tmp_path)


def test_what_was_worked_on_last_is_shown_and_another_study_by_its_id(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    old, new = stored.study(), stored.study(data="e", seeds=(13, 42))
    _points(stored, new, low=1.0, high=9.0)
    stored.point(old, UpstreamConfig(method="reptile", outer_lr=0.5), 25, 3.0)  # without a time
    text = _shown(tmp_path)
    assert text.startswith("MAML search")
    assert "besides  1 other study; --study ID shows one: mpt studies lists them" in text
    assert _shown(tmp_path, old.id).startswith("REPTILE search")
    _note(tmp_path, old)
    assert _shown(tmp_path).startswith("REPTILE search")
    with pytest.raises(UsageError, match="--study is 'feedfeed', but must be the first 8 digits"):
        _shown(tmp_path, "feedfeed")


def test_numbers_of_a_smoke_run_are_called_meaningless_and_none_is_the_best(
    tmp_path: Path,
) -> None:
    stored = Stored(tmp_path)
    study = stored.study(smoke=True, partial="partial: smoke, 1 source task")
    _points(stored, study, low=1.0, high=9.0)
    text = _shown(tmp_path)
    assert text.count("its numbers mean nothing") == 2, "above the ranking and below it"
    assert "best" not in text
    assert "partial: smoke, 1 source task" in text


def test_a_study_without_a_point_and_an_empty_database_are_shown_as_such(tmp_path: Path) -> None:
    with open_results(tmp_path):
        pass
    assert _shown(tmp_path).splitlines()[0] == "no point so far"
    study = Stored(tmp_path).study()
    lines = _shown(tmp_path).splitlines()
    assert lines[0] == "search · random_to_random · backbone embedded: no point so far"
    assert lines[1].startswith(f"  study    {study.id}")
    assert "  done     0 points" in lines
    with driver_lock(tmp_path):
        assert "  time     its driver runs, and has not said yet what it plans" in _shown(tmp_path)


def test_a_point_of_a_method_that_is_not_known_here_is_named_and_passed_over(
    tmp_path: Path,
) -> None:
    stored = Stored(tmp_path)
    study = stored.study()
    _points(stored, study, low=1.0, high=9.0)
    config = UpstreamConfig(inner_lr=0.2)
    stored.point(study, config, 25, 5.0, method="own", settings={"method": "own"})
    text = _shown(tmp_path)
    assert "  done     2 points" in text
    assert "its settings are not those of this program" in text


def test_before_further_seeds_run_intervals_are_those_of_the_points(tmp_path: Path) -> None:
    """A search of three upstream seeds had no interval in sight until the second one ran."""
    stored = Stored(tmp_path)
    study = stored.study()
    _points(stored, study, low=1.0, high=9.0)
    with driver_lock(tmp_path):
        _note(tmp_path, study, seeds=(42, 1042, 2042), fresh=3)
        text = _shown(tmp_path)
    assert "95 % interval" in text
    assert "expected 95 %" not in text
    assert ONE_SEED in " ".join(text.split())


def test_a_long_name_of_a_running_trial_is_folded_at_80_columns(tmp_path: Path) -> None:
    name = "maml-inner0.00375453-outer0.00611714-k1-b4-polynomial-drawn-random_to_random"
    stored = Stored(tmp_path)
    study = stored.study()
    _points(stored, study, low=1.0, high=9.0)
    since = "2026-05-01T11:48:00+00:00"
    running = RunningTrial(name=name, steps=24, rung=50, tuned=None, since=since)
    with driver_lock(tmp_path):
        _note(tmp_path, study, running=(running,))
        text = _shown(tmp_path)
    _, _, rest = text.partition("  running  ")
    lines = rest.splitlines()
    assert lines[0] + lines[1].strip() == name
    assert lines[1].startswith(" " * 11)
    assert len("  running  " + lines[0]) <= 80
