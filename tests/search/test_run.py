"""Searches with a real Ray from their beginning to their end, and again."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drivers import ROOT, Driver, run_rows
from rich.console import Console
from search_toys import KNOWN_RATES, bits, toy_job, tpe_job, with_rungs
from trial_toys import bench

from mpt.processes import SELDOM
from mpt.search.display.display import Display
from mpt.search.job import DONE, FAILED, Execution, SearchJob
from mpt.search.look import peek, plan_search
from mpt.search.ray import watchdog
from mpt.search.run import run_search
from mpt.search.watch.note import driver_notes
from mpt.store.database import open_results
from mpt.study.study import OpenStudy
from mpt.trial.runs import upstream_key

pytestmark = pytest.mark.timeout(3000)


@pytest.fixture(scope="module")
def undisturbed(
    study: OpenStudy, toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The toy search without Ray: one process, last trial first, long chunks."""
    job = toy_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("undisturbed"))
    with bench(job, study) as found:
        found.run(1, 0, chunk_s=1e9)
        found.run_baseline()
    return bits(job.results)


def ranking(output: str) -> list[str]:
    return output[output.index(" rank ") : output.index("cost ")].splitlines()


def dump(results: Path) -> dict[str, list[Any]]:
    """Return every row of the results but those of Optuna."""
    with open_results(results, read_only=True) as database:
        return {
            "points": database.points(),
            "studies": database.studies(),
            "stops": database.stops(),
            "artifacts": database.artifacts(),
            "runs": sorted(run_rows(results).items()),
        }


def test_a_search_ends_with_a_ranking_and_a_finished_one_returns_at_once(
    drive: Callable[..., Driver],
    job: SearchJob,
    undisturbed: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = job.results
    driver = drive(results, "TWO")
    assert driver.wait() == 0, driver.output()
    lines = driver.output().splitlines()
    # a line every half minute says how far it is; their number is that of the machine's minutes
    assert len([line for line in lines if "steps/s" not in line]) < 40, "walls of output"
    assert not [line for line in lines if "ray" in line.lower() or "Warning" in line]
    assert sum(f"{n}/6" in line for n in range(1, 7) for line in lines) == 6
    assert lines[-1] == "next     rest"
    # two workers, another order, no Ray: the same bits
    assert bits(results) == undisturbed
    with open_results(results, read_only=True) as database:
        (note,) = driver_notes(database)  # what it has said to those who watch
    assert (note.exit_code, note.trials, note.points, note.running) == (0, 2, 6, ())
    assert note.runs[0] == note.runs[1] > 0

    before, files = dump(results), sorted(results.rglob("*"))
    execution = Execution(signals=False, resume="the same command", next_step="rest")
    assert run_search(job, execution) == DONE
    again = capsys.readouterr().out
    assert "time left" not in again  # no trial was started
    assert dump(results) == before
    assert sorted(results.rglob("*")) == files
    assert ranking(again) == ranking(driver.output())


# --- in this process, with a Ray of one worker ---------------------------------------------------


def searched(job: SearchJob, **options: Any) -> tuple[int, str]:
    """Run a search; return its code and what it printed."""
    file = io.StringIO()
    console = Console(file=file, width=100, markup=False, soft_wrap=True)
    execution = Execution(signals=False, max_failures=0, resume="again", next_step="rest")
    code = run_search(job, execution, display=Display(job, console), rates=KNOWN_RATES, **options)
    return code, file.getvalue()


@pytest.mark.usefixtures("one_worker")
def test_a_job_runs_from_any_directory_and_its_smoke_run_is_labelled(
    toy_checkpoint: Path,
    toy_gym: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Called here; a job with a process and a Ray of its own is that of `test_similarity_job`."""
    script = str(ROOT / "tune_jobs" / "maml_rr.py")
    words = ["--smoke", "--backbone", str(toy_checkpoint), "--gym", str(toy_gym)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(script, run_name="__main__")
    said = capfd.readouterr()
    assert said.err == ""
    with open_results(tmp_path / "results" / "smoke", read_only=True) as database:
        points, (study,) = database.points(), database.studies()
    assert len([point for point in points if point.method == "maml"]) == 4
    assert study.smoke
    assert study.partial == "partial: smoke, 3 source tasks"
    assert "partial: smoke, 3 source tasks" in said.out


@pytest.mark.usefixtures("one_worker")
def test_a_local_ray_has_no_process_that_does_nothing_and_workers_that_start_soon() -> None:
    import ray

    def often() -> int:
        import gc

        importlib.import_module("mpt.search.ray")  # as the first of what a trial needs
        return gc.get_threshold()[0]

    assert set(watchdog._processes()) == {"gcs_server", "raylet", "dashboard"}
    assert ray.get(ray.remote(often).remote()) == SELDOM


@pytest.mark.usefixtures("one_worker")
def test_more_rungs_cost_only_what_is_missing_without_checkpoints_too(
    job: SearchJob, study: OpenStudy, undisturbed: dict[str, Any]
) -> None:
    """Checkpoints that are broken or gone are named; those that are fine: `test_storage`.

    The first rungs are computed without Ray.
    """
    with bench(with_rungs(job, (2, 4)), study) as found:
        found.run_baseline()
        for number in range(2):
            work = found.trial(number)
            list(work.units())
            found.keep(work, f"checkpoints/{number}")
    first = run_rows(job.results)
    assert len(first) == 40

    with open_results(job.results, read_only=True) as database:
        owners = {artifact.owner: artifact for artifact in database.artifacts("checkpoint")}
    broken, gone = (job.results / owners[key].uri for key in _upstream_keys(job, owners))
    state = broken / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-7])
    shutil.rmtree(gone)
    code, text = searched(job)
    assert code == DONE, text
    assert f"note: {state}: its checksum does not fit (cut short or changed); the trial" in text
    assert f"note: {gone}: there is no such folder; the trial starts anew" in text
    assert "6/6" in text
    assert not re.search(r"\b[1-4]/6\b", text)  # four points are not printed as news
    assert bits(job.results) == undisturbed
    assert first.items() <= run_rows(job.results).items()


def _upstream_keys(job: SearchJob, known: dict[str, Any]) -> list[str]:
    with peek(job) as look:
        return [key for key in look.board.upstream if key in known]


@pytest.mark.usefixtures("one_worker")
def test_a_trial_that_fails_for_good_leaves_the_others_alone_and_the_code_is_4(
    job: SearchJob, study: OpenStudy, undisturbed: dict[str, Any]
) -> None:
    key = upstream_key(study, job.trials[0].upstream.config)
    blocked = job.results / "rungs" / key / "2.safetensors"
    blocked.mkdir(parents=True)
    code, text = searched(job)
    assert code == FAILED, text
    assert f"failed: maml-inner0.1-outer0.3-k1-b2-random_to_random: {blocked}: " in text
    assert "move away what stands there and run the same command again" in text
    assert "3 of 6 points are missing. Try again: again" in text
    assert "3/6" in text
    assert "Traceback" not in text
    assert "note:" not in text
    blocked.rmdir()
    with bench(job, study) as found:
        list(found.resumed().units())
    code, text = searched(job)
    assert code == DONE, text
    assert "time left" not in text  # nothing was left to start
    assert bits(job.results) == undisturbed


@pytest.mark.usefixtures("one_worker")
def test_a_search_that_chooses_and_halves_says_so_in_one_document_and_can_be_extended(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    job = tpe_job(toy_checkpoint, toy_gym, results)
    execution = Execution(signals=False, max_failures=0, resume="again", next_step="rest")
    show = Display(job, Console(file=(said := io.StringIO()), width=100), as_json=True)
    assert run_search(job, execution, display=show, rates=KNOWN_RATES) == DONE, said.getvalue()
    found = json.loads(capsys.readouterr().out)  # and nothing else on stdout
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
    assert all("stopped by asha at rung" in note and "fell behind" in note for note in notes)
    assert "rank" in said.getvalue()
    assert "stopped  maml-" in said.getvalue()
    before = dump(results)
    assert len(before["stops"]) == len(notes)

    # the same command again starts nothing: what was stopped stays so
    code, text = searched(tpe_job(toy_checkpoint, toy_gym, results))
    assert code == DONE
    assert "time left" not in text
    assert "stopped  maml-" in text
    assert dump(results) == before

    # without the scheduler, or with a larger count, there is something left to do
    plain = dataclasses.replace(job, scheduler="none")
    assert plan_search(plain, Execution(workers=1)) == DONE
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[-1:] for row in rows].count(["no"]) == len(by_status["stopped"])
    longer = tpe_job(toy_checkpoint, toy_gym, results, count=4)
    assert plan_search(longer, Execution(workers=1)) == DONE
    assert "1 more trial is chosen while the search runs" in capsys.readouterr().out
    code, text = searched(longer)
    assert code == DONE, text
    with peek(longer) as look:
        assert len(look.job.trials) == 4
        assert len(set(look.job.trials)) == 4
    after = dump(results)
    assert [stop in after["stops"] for stop in before["stops"]] == [True] * len(before["stops"])
    assert dict(before["runs"]).items() <= dict(after["runs"]).items()
