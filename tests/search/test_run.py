"""Searches with a real Ray, in processes of their own that are really killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import search_toys
from search_toys import bits, computed, slow_job, toy_job

import mpt
from mpt.errors import StorageError, UsageError
from mpt.records import PointStore
from mpt.search import run as run_module
from mpt.search.job import Execution, SearchJob
from mpt.search.lock import driver_lock
from mpt.search.run import plan_search, run_search
from mpt.study.study import Study, open_study
from mpt.trial.trajectory import TrajectoryWork

ROOT = Path(mpt.__file__).resolve().parents[1]
PATIENCE_S = 300.0
"""For a loaded machine; nothing here takes long on a free one."""

PACK = 4
"""Leaves of a pack of the toy search: two data seeds, two learning rates."""

pytestmark = pytest.mark.timeout(900)


class Driver:
    """A search in another process; its output goes to a file."""

    def __init__(self, checkpoint: Path, gym: Path, results: Path, *words: str) -> None:
        self.mark = uuid.uuid4().hex
        self.log = results.with_suffix(f".{self.mark[:8]}.log")
        script = [sys.executable, str(Path(search_toys.__file__)), str(checkpoint), str(gym)]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MPT_TEST_MARK": self.mark,
            "RAY_worker_niceness": "0",  # Ray's 15 would starve them beside other work
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*script, str(results), *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # a "terminal" whose Ctrl-C reaches the whole group
            )

    def output(self) -> str:
        return self.log.read_text()

    def wait(self) -> int:
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"the driver hangs:\n{self.output()}")

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the driver or its workers do."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self.process.poll() is not None:
                pytest.fail(f"the driver ended too early:\n{self.output()}")
            if time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(f"waited in vain:\n{self.output()}")
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """Return the processes of this driver's trials."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                name = (folder / "cmdline").read_bytes()
                mine = self.mark.encode() in (folder / "environ").read_bytes()
            except OSError:
                continue
            if mine and name.startswith(b"ray::SearchTrial"):
                found.append(int(folder.name))
        return found


@pytest.fixture
def drive(toy_checkpoint: Path, toy_gym: Path) -> Iterator[Callable[..., Driver]]:
    """Return a function that starts a driver; none outlives the test."""
    started: list[Driver] = []

    def start(results: Path, *words: str) -> Driver:
        started.append(Driver(toy_checkpoint, toy_gym, results, *words))
        return started[-1]

    yield start
    for driver in started:
        if driver.process.poll() is None:
            driver.process.kill()
            driver.process.wait()


@pytest.fixture(scope="module")
def undisturbed(
    toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """The slow toy search without Ray: one process, last trajectory first, long chunks."""
    job = slow_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("undisturbed"))
    study = open_study(job.plans[0])
    for course in reversed(job.courses):
        list(TrajectoryWork(study, course.trajectory, job.results, chunk_s=1e9).units())
    return bits(job.results)


def test_a_search_ends_with_a_ranking_and_a_finished_one_returns_at_once(
    drive: Callable[..., Driver], study: Study, toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    driver = drive(results)
    assert driver.wait() == 0, driver.output()
    lines = driver.output().splitlines()
    assert len(lines) < 40, "walls of output"
    assert not [line for line in lines if "ray" in line.lower() or "Warning" in line]
    assert sum(f"{n}/6" in line for n in range(1, 7) for line in lines) == 6
    assert lines[-1] == "next     rest"
    # another number of workers (one), another order, no Ray: the same bits
    other = toy_job(toy_checkpoint, toy_gym, tmp_path / "other")
    for course in reversed(other.courses):
        list(TrajectoryWork(study, course.trajectory, other.results, 1e9).units())
    assert bits(results) == bits(other.results)
    assert not (results / "tune").exists()  # disposable, and disposed of

    written = {path: path.stat().st_mtime_ns for path in results.rglob("*.json")}
    began = time.monotonic()
    again = drive(results)
    assert again.wait() == 0
    seconds = time.monotonic() - began
    assert "rank" in again.output()
    assert "time left" not in again.output()  # no trial was started
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*.json")} == written
    assert ranking(again.output()) == ranking(driver.output())
    if os.getloadavg()[0] < 2 * (os.cpu_count() or 1):  # a promise for a machine that is free
        assert seconds < 15


def ranking(output: str) -> list[str]:
    return output[output.index(" rank ") : output.index("cost ")].splitlines()


def test_a_search_that_is_killed_and_stopped_in_every_way_resumes_to_the_same_bits(
    drive: Callable[..., Driver], undisturbed: dict[str, object], tmp_path: Path
) -> None:
    results = tmp_path / "results"

    def started(then_packs: int) -> Driver:
        """Start a driver and wait until it has committed some packs of its own.

        Workers of the killed driver live on for some seconds and commit theirs.
        """
        driver = drive(results, "SLOW")
        driver.until(lambda: "time left" in driver.output())
        before = len(computed(results))
        driver.until(lambda: len(computed(results)) >= before + then_packs * PACK)
        return driver

    # SIGKILL of the driver, as soon as there is a checkpoint
    first = drive(results, "SLOW")
    first.until(lambda: any(results.glob("trajectories/*/checkpoint-*.bin")))
    first.process.kill()
    assert first.wait() == -signal.SIGKILL

    # Ctrl-C in a terminal, which all processes of the group receive
    second = started(then_packs=1)
    os.killpg(second.process.pid, signal.SIGINT)
    assert second.wait() == 75, second.output()
    said = "interrupted; what was finished is kept. Resume with: the same command"
    assert second.output().splitlines()[-1] == said
    assert "Traceback" not in second.output()

    # SIGTERM, as from a batch system
    third = started(then_packs=2)
    third.process.terminate()
    assert third.wait() == 75, third.output()
    assert third.output().splitlines()[-1] == said

    # SIGKILL of a worker in the middle of a pack; the driver starts the trial again
    fourth = started(then_packs=1)
    os.kill(fourth.workers()[0], signal.SIGKILL)
    assert fourth.wait() == 0, fourth.output()
    assert "its worker died; it goes on from its last checkpoint" in fourth.output()

    assert bits(results) == undisturbed
    assert len(computed(results)) == len(set(computed(results))), "a leaf was computed twice"


def test_a_trial_that_fails_for_good_leaves_the_others_alone_and_the_code_is_4(
    drive: Callable[..., Driver], study: Study, toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    job = toy_job(toy_checkpoint, toy_gym, results)
    blocked = results / "trajectories" / study.trajectory_key(job.courses[0].trajectory.config)
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder should be")
    driver = drive(results)
    assert driver.wait() == 4, driver.output()
    output = driver.output()
    assert "failed: maml-inner0.1-outer0.3-k1-b2-random_to_random: " in output
    assert "3 of 6 points are missing. Try again: the same command" in output
    assert "3/6" in output
    assert "Traceback" not in output


def test_the_job_runs_from_any_directory_and_its_smoke_run_is_labelled(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "tune_jobs" / "maml_rr.py"), "--smoke"]
    done = subprocess.run(
        [*command, "--backbone", str(toy_checkpoint), "--gym", str(toy_gym)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    points = PointStore(tmp_path / "results" / "smoke").all()
    assert len(points) == 4
    assert {point["partial"] for point in points} == {"partial: smoke, 3 source tasks"}
    assert "partial: smoke, 3 source tasks" in done.stdout


# --- around the search, without Ray -------------------------------------------------------------


def test_fresh_moves_the_records_aside_and_leaves_what_is_not_ours(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leaf = job.results / "leaves" / "aa" / "kept.json"
    leaf.parent.mkdir(parents=True)
    leaf.write_text("{}")
    (job.results / "notes.txt").write_text("mine")
    monkeypatch.setattr(run_module, "_run", lambda *_: 0)
    assert run_search(job, Execution()) == 0
    assert leaf.exists()  # not without --fresh
    assert run_search(job, Execution(), fresh=True) == 0
    (moved,) = job.results.glob("old-*")
    assert str(moved) in capsys.readouterr().out
    assert (moved / "leaves" / "aa" / "kept.json").read_text() == "{}"
    assert (job.results / "notes.txt").read_text() == "mine"
    assert not leaf.exists()


def test_a_full_results_directory_is_one_line_and_other_errors_are_not_taken_for_it(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(job.results / "tune" / "x"))
    elsewhere = OSError(errno.ENOSPC, "No space left on device", "/somewhere/else")
    for error, kind in ((full, StorageError), (elsewhere, OSError), (ConnectionError(), OSError)):

        def fail(*_: object, error: OSError = error) -> int:
            raise error

        monkeypatch.setattr(run_module, "_run", fail)
        with pytest.raises(kind) as caught:
            run_search(job, Execution())
        assert isinstance(caught.value, StorageError) == (error is full)


def test_a_second_driver_is_refused_before_it_moves_anything(job: SearchJob) -> None:
    leaf = job.results / "leaves" / "aa" / "kept.json"
    leaf.parent.mkdir(parents=True)
    leaf.write_text("{}")
    with (
        driver_lock(job.results),
        pytest.raises(UsageError, match=f"in use by process {os.getpid()} on"),
    ):
        run_search(job, Execution(), fresh=True)
    assert leaf.exists()


def test_a_results_path_that_is_a_file_is_refused_at_the_start(job: SearchJob) -> None:
    job.results.write_text("")
    with pytest.raises(UsageError, match="must be a directory"):
        run_search(job, Execution())


def test_a_dry_run_prints_every_point_and_writes_nothing(
    job: SearchJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan_search(job, Execution(workers=2)) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines() if line.split()[-1:] == ["no"]]
    assert [row[1:4] for row in rows] == [
        [inner, "0.3", steps] for inner in ("0.1", "1") for steps in ("2", "4", "6")
    ]
    # 2 tasks × 2 seeds × 2 rates: 8 leaves a point, and 8 shared ones counted once
    assert "56 downstream runs (48 + 8 shared baseline), 0 on disk" in text
    assert "12 steps left" in text
    assert "56 left of 56" in text
    assert "estimate" in text
    assert not job.results.exists()


def test_a_dry_run_counts_what_is_on_disk(
    job: SearchJob, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    work = TrajectoryWork(study, job.courses[0].trajectory, job.results, 1e9)
    for progress in work.units():
        if progress.landed == [4]:
            break
    assert plan_search(job, Execution(workers=2)) == 0
    text = capsys.readouterr().out
    # two points with their leaves, and the baseline; 2 + 6 steps and 8 + 24 leaves are left
    assert "24 on disk" in text
    assert "8 steps left" in text
    assert "32 left of 56" in text


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_search_killed_at_random_moments_ends_with_the_same_bits(
    drive: Callable[..., Driver], undisturbed: dict[str, object], tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    results = tmp_path / "results"
    for number in range(12):
        driver = drive(results, "SLOW")
        driver.until(lambda: (results / "driver.lock").exists())
        time.sleep(float(rng.uniform(2, 25)))
        victims = driver.workers() if number % 3 == 2 else []
        for victim in victims[:1] or [driver.process.pid]:
            os.kill(victim, signal.SIGKILL)
        if victims:
            time.sleep(float(rng.uniform(0, 5)))
            driver.process.kill()
        driver.process.wait()
    last = drive(results, "SLOW")
    assert last.wait() == 0, last.output()
    assert bits(results) == undisturbed
    assert len(computed(results)) == len(set(computed(results)))
