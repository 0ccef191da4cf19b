"""The driver around a search, without Ray: what it refuses, sets aside, plans and reports."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers import run_rows
from search_toys import bits, tpe_job, with_rungs
from small_disks import in_a_small_disk
from trial_toys import Bench, bench

from mpt.errors import DataError, StorageError, UsageError
from mpt.search import look as look_module
from mpt.search import run as run_module
from mpt.search.job import DONE, Execution, SearchJob
from mpt.search.look import peek, plan_search
from mpt.search.run import run_search, set_results_aside
from mpt.store.lock import driver_lock
from mpt.study.study import OpenStudy, StudyPlan


@pytest.fixture
def done_at_once(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Nothing is computed; what would have been is returned."""
    asked: list[Any] = []

    def run(driver: Any, rates: Any) -> int:
        asked.append(driver._database.name)
        return DONE

    monkeypatch.setattr(run_module._Driver, "run", run)
    return asked


@pytest.fixture
def half(job: SearchJob, study: OpenStudy) -> Iterator[Bench]:
    """The first two rungs of the first trial, and the baseline."""
    with bench(job, study) as found:
        list(found.trial_of(with_rungs(job, (2, 4)).trials[0], chunk_s=1e9).units())
        found.run_baseline()
        yield found


# --- --fresh -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("done_at_once")
def test_fresh_moves_everything_aside_and_leaves_what_is_not_ours(
    job: SearchJob, half: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    half.database.close()
    for name in ("checkpoints/a/b", "tensorboard/c", "prompts/d"):
        path = job.results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")
    (job.results / "notes.txt").write_text("mine")
    rows = run_rows(job.results)
    assert run_search(job, Execution()) == DONE
    assert run_rows(job.results) == rows  # not without --fresh
    assert run_search(job, Execution(), fresh=True) == DONE
    (moved,) = job.results.glob("old-*")
    assert str(moved) in capsys.readouterr().out
    assert run_rows(moved) == rows
    names = {path.name for path in moved.iterdir()}
    assert names == {"mpt.db", "rungs", "checkpoints", "tensorboard", "prompts"}
    assert (moved / "checkpoints" / "a" / "b").read_text() == "kept"
    assert (job.results / "notes.txt").read_text() == "mine"
    # nothing that a later report could show is left
    assert run_rows(job.results) == {}
    left = {path.name for path in job.results.iterdir()} - {moved.name}
    assert left == {"mpt.db", "driver.lock", "notes.txt"}
    # a second time there is nothing of ours but the new database
    (job.results / "mpt.db").unlink()
    assert run_search(job, Execution(), fresh=True) == DONE
    assert list(job.results.glob("old-*")) == [moved]


@pytest.mark.usefixtures("done_at_once")
def test_after_fresh_all_is_computed_anew(job: SearchJob, study: OpenStudy, half: Bench) -> None:
    half.database.close()
    assert run_search(job, Execution(), fresh=True) == DONE
    (old,) = job.results.glob("old-*")
    with bench(with_rungs(job, (2,)), study) as anew:
        anew.run(0)
    assert 0 < len(bits(job.results)) < len(bits(old))
    assert bits(job.results).items() <= bits(old).items()
    assert not run_rows(job.results).items() & run_rows(old).items()


@pytest.mark.parametrize("place", [{"store": "other.db"}, {"storage": "s3://bucket/folder"}])
def test_fresh_does_not_touch_what_others_may_use(job: SearchJob, place: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="give a new database and folder instead"):
        run_search(dataclasses.replace(job, **place), Execution(), fresh=True)
    assert not (job.results / "mpt.db").exists()


def test_results_can_be_set_aside_for_several_searches_at_once(
    job: SearchJob, half: Bench
) -> None:
    half.database.close()
    said: list[str] = []
    set_results_aside(job, said.append)
    (moved,) = job.results.glob("old-*")
    assert said == [f"--fresh: the results so far were moved to {moved}"]
    assert len(run_rows(moved)) == 24
    with driver_lock(job.results), pytest.raises(UsageError, match="in use by process"):
        set_results_aside(job, said.append)


# --- one driver, a usable place ------------------------------------------------------------------


def test_a_second_driver_is_refused_before_it_moves_anything(job: SearchJob, half: Bench) -> None:
    half.database.close()
    with (
        driver_lock(job.results),
        pytest.raises(UsageError, match=f"in use by process {os.getpid()} on"),
    ):
        run_search(job, Execution(), fresh=True)
    assert len(run_rows(job.results)) == 24
    assert not list(job.results.glob("old-*"))


def test_a_results_path_that_is_a_file_is_refused_at_the_start(job: SearchJob) -> None:
    job.results.write_text("mine")
    with pytest.raises((UsageError, StorageError), match=str(job.results)) as caught:
        run_search(job, Execution())
    assert "\n" not in str(caught.value)
    assert job.results.read_text() == "mine"


def test_a_foreign_file_in_the_place_of_the_database_is_named_and_stays(job: SearchJob) -> None:
    job.results.mkdir()
    path = job.results / "mpt.db"
    path.write_text("somebody else's notes, long enough to be no empty database " * 20)
    before = path.read_bytes()
    for call in (run_search, plan_search):
        with pytest.raises(DataError, match="is no whole SQLite database") as caught:
            call(job, Execution())
        assert str(path) in str(caught.value)
        assert "move it away" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_directory_in_the_place_of_the_database_is_named(job: SearchJob) -> None:
    (job.results / "mpt.db").mkdir(parents=True)
    for call in (run_search, plan_search):
        with pytest.raises(DataError, match=r"mpt\.db: must be the database .* a directory; move"):
            call(job, Execution())


def test_a_full_results_directory_is_one_line_and_other_errors_are_not_taken_for_it(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(job.results / "checkpoints" / "x"))
    elsewhere = OSError(errno.ENOSPC, "No space left on device", "/somewhere/else")
    for error, kind in ((full, StorageError), (elsewhere, OSError), (ConnectionError(), OSError)):

        def fail(*_: object, error: OSError = error) -> int:
            raise error

        monkeypatch.setattr(run_module._Driver, "run", fail)
        with pytest.raises(kind) as caught:
            run_search(job, Execution(signals=False))
        assert isinstance(caught.value, StorageError) == (error is full)
    # whatever happened, the directory is free again
    with driver_lock(job.results):
        pass


def test_a_disk_that_is_full_from_the_start_is_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"head -c 62k /dev/zero > '{disk}/ballast' || true\n"
        f"'{sys.executable}' -c \"\n"
        "import sys\n"
        "from pathlib import Path\n"
        "from mpt.errors import StorageError\n"
        "from mpt.store.database import open_results\n"
        "try:\n"
        f"    open_results(Path('{disk}/results'))\n"
        "except StorageError as error:\n"
        "    print(error)\n"
        '"\n'
    )
    said = in_a_small_disk(disk, script, kib=64).strip()
    assert "No space left on device; free some there and run the same command again" in said
    assert len(said.splitlines()) == 1


def test_an_interrupt_before_ray_runs_is_a_clean_end(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module._Driver, "run", interrupted)
    assert run_search(job, Execution(resume="again")) == 75
    said = "interrupted; what was finished is kept. Resume with: again\n"
    assert capsys.readouterr().out.endswith(f"\n{said}")


def test_a_signal_that_an_import_has_swallowed_ends_the_search_all_the_same(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch forgets an exception that is raised while it is being imported."""
    opened = look_module.open_plan

    def swallows(plan: StudyPlan) -> OpenStudy:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        return opened(plan)

    monkeypatch.setattr(run_module, "open_plan", swallows)
    monkeypatch.setattr(run_module._Driver, "_work", lambda *_: pytest.fail("it goes on"))
    assert run_search(job, Execution(resume="again")) == 75
    assert "Resume with: again" in capsys.readouterr().out


def test_results_of_an_older_version_are_named_and_left_alone(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (job.results / "leaves").mkdir(parents=True)
    monkeypatch.setattr(run_module, "open_groups", lambda *_: [])
    run_search(job, Execution(signals=False, resume="again"))
    assert "holds results of an older version" in capsys.readouterr().out
    assert (job.results / "leaves").exists()


# --- the first lines -----------------------------------------------------------------------------


@pytest.mark.parametrize("start", [run_search, plan_search])
def test_what_is_searched_is_said_before_the_study_is_opened(
    start: Callable[[SearchJob, Execution], int],
    job: SearchJob,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Reading weights takes seconds, or minutes over a network."""
    said = []

    def open_plan(plan: StudyPlan) -> OpenStudy:
        said.append(capsys.readouterr().out)
        raise DataError("stop here")

    monkeypatch.setattr(run_module, "open_plan", open_plan)
    monkeypatch.setattr(look_module, "open_plan", open_plan)
    with pytest.raises(DataError, match="stop here"):
        start(job, Execution(signals=False))
    first, *rest = said[0].splitlines()
    assert first.startswith("MAML search · ")
    assert any(line.startswith("  score ") for line in rest)
    assert rest[-1].startswith("  results ")


def test_storage_that_cannot_be_written_is_refused_before_anything_is_measured(
    job: SearchJob, capsys: pytest.CaptureFixture[str]
) -> None:
    away = dataclasses.replace(job, storage="/proc/nowhere")
    with pytest.raises(UsageError, match=r"--storage /proc/nowhere: cannot be written .* give"):
        run_search(away, Execution(signals=False))
    assert look_module.WAIT not in capsys.readouterr().out


def test_who_waits_for_a_measurement_is_told_so(
    job: SearchJob, half: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    half.database.close()
    assert plan_search(job, Execution(workers=2)) == DONE
    assert look_module.WAIT in capsys.readouterr().out.splitlines()
    half.run(0, 1)
    capsys.readouterr()
    assert plan_search(job, Execution(workers=2)) == DONE
    assert look_module.WAIT not in capsys.readouterr().out, "nothing is measured"


# --- --dry-run -----------------------------------------------------------------------------------


def test_a_dry_run_prints_every_point_and_writes_nothing(
    job: SearchJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan_search(job, Execution(workers=2)) == DONE
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines() if line.split()[-1:] == ["no"]]
    assert [row[1:4] for row in rows] == [
        [inner, "0.3", steps] for inner in ("0.1", "1") for steps in ("2", "4", "6")
    ]
    # 2 tasks × 2 seeds × 2 rates: 8 runs a point, and 8 shared ones counted once
    assert "56 downstream runs (48 + 8 shared baseline), 0 stored" in text
    assert "12 steps left" in text
    assert "56 left of 56" in text
    assert "estimate" in text
    assert not job.results.exists()


def test_a_dry_run_counts_what_is_stored_and_changes_nothing(
    job: SearchJob, half: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    half.database.close()
    files = {path: path.read_bytes() for path in job.results.rglob("*") if path.is_file()}
    assert plan_search(job, Execution(workers=2)) == DONE
    text = capsys.readouterr().out
    # two points with their runs, and the baseline; 2 + 6 steps and 8 + 24 runs are left
    assert "24 stored" in text
    assert "8 steps left" in text
    assert "32 left of 56" in text
    after = {path: path.read_bytes() for path in job.results.rglob("*") if path.is_file()}
    assert after == files


def test_a_dry_run_of_a_finished_search_says_that_nothing_is_left(
    job: SearchJob, half: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    half.run(0, 1)
    assert plan_search(job, Execution()) == DONE
    assert "nothing is left to do; the same without the dry run" in capsys.readouterr().out


def test_the_plan_counts_what_will_be_chosen_and_not_what_was_stopped(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path, study: OpenStudy
) -> None:
    job = tpe_job(toy_checkpoint, toy_gym, tmp_path / "results", count=4)
    with peek(job) as look:
        assert len(look.expected) == len(set(look.expected)) == 4
        assert look.expected[0] == job.trials[0]
        assert [trial.upstream.rungs for trial in look.expected] == 4 * [(2, 4, 8)]
        assert look.work.points == 12
    with bench(job, study) as found:
        first = job.trials[0]
        rung = dataclasses.replace(first.upstream, rungs=(2,))
        list(found.trial_of(dataclasses.replace(first, upstream=rung)).units())
        found.run_baseline()
    with peek(job) as look:
        assert look.work.points_there == 1
    _stop(job, study)
    with peek(job) as look:
        assert [trial.upstream.rungs for trial in look.expected] == [(2,), *3 * [(2, 4, 8)]]
        assert look.work.points == 10


def _stop(job: SearchJob, study: OpenStudy) -> None:
    """Put it on record that the first trial is stopped at its first rung."""
    from mpt.search.leaderboard import Leaderboard

    with bench(job, study) as found:
        Leaderboard(job, lambda _: study, found.database).stop(0, 2, "asha", "because")


def test_a_copy_of_the_results_is_as_good_as_the_original(
    job: SearchJob, half: Bench, tmp_path: Path
) -> None:
    """Files are found where the directory is now, not where it was."""
    half.database.close()
    copy = tmp_path / "copy"
    shutil.move(job.results, copy)
    with peek(dataclasses.replace(job, results=copy)) as look:
        assert look.work.points_there == 2
        assert look.work.trials[0].steps == 2
