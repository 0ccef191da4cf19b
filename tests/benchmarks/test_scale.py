"""The benchmark of a large search: what it times computes nothing; its numbers are for people."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from children import environment
from scale import finished, job_of, opener, write_results
from scaling.writers import LOT, RATES, Call, Load, SimulatedWorker, summary

from mpt.downstream.limits import default_limits
from mpt.search.ray.writer import RemoteStore
from mpt.store.database import FILE, open_results
from mpt.trial.runs import RunPack, baseline_packs

ROOT = Path(__file__).resolve().parents[2]


def _python(*words: str, cwd: Path) -> str:
    """Run Python in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(ROOT),  # no path of the benchmarks: they are found without
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _stored(folder: Path, size: int) -> tuple[list[str], int]:
    """Return the keys of all points, and how many runs they are made of."""
    with open_results(job_of(folder, size).results, read_only=True) as database:
        points = database.points()
        runs = database.runs({key for point in points for key in point.runs})
    return sorted(point.key for point in points), len(runs)


def test_a_finished_search_computes_nothing_and_another_is_refused(tmp_path: Path) -> None:
    size = 8  # the fewest of which a study with three upstream seeds and three fresh ones has more
    runs = write_results(tmp_path, size)
    before = _stored(tmp_path, size)
    assert before[1] == runs
    finished(tmp_path, size)
    assert _stored(tmp_path, size) == before
    with pytest.raises(RuntimeError, match="1 group of 9 trials would be started"):
        finished(tmp_path, size + 1)
    assert _stored(tmp_path, size) == before


SIZE = 3
WITH_RAY = """
import json
import sys
from pathlib import Path

from scale import trials, write_results
from scaling.writers import Load, measure_writer

from mpt.search.ray.session import one_ray

bare, written, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
write_results(bare, size)
with one_ray():
    trials(bare, size)
    print(json.dumps(measure_writer(written, Load(workers=3, run_s=0.02, seconds=2.5))))
"""


@pytest.fixture(scope="module")
def with_ray(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """What is measured with a Ray, and two folders: that of the trials, that of the writer.

    In a process of its own: the first step puts its trial in the place of Tune's.
    """
    bare, written = (tmp_path_factory.mktemp(name) for name in ("trials", "writer"))
    said = _python("-c", WITH_RAY, str(bare), str(written), str(SIZE), cwd=ROOT / "benchmarks")
    return bare, written, json.loads(said.splitlines()[-1])


def test_the_trials_run_and_their_workers_store_every_point_of_the_search(
    with_ray: tuple[Path, Path, dict[str, Any]],
) -> None:
    folder, _, _ = with_ray
    with open_results(folder / "bare", read_only=True) as database:
        points = database.points()
    assert sorted(point.key for point in points) == _stored(folder, SIZE)[0]
    assert [point.method for point in points].count("maml") == SIZE


class RecordingStore:
    """Notes what is called, and when by a clock that only a worker's waiting moves."""

    def __init__(self) -> None:
        self.time = 0.0
        self.calls: list[tuple[str, float, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, self.time, arguments[0]))

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture(scope="module")
def baseline() -> list[RunPack]:
    (plan,) = job_of(Path("nowhere"), 1, RATES).plans
    return baseline_packs(opener()(plan))


def test_a_simulated_worker_writes_at_the_stated_speed(baseline: list[RunPack]) -> None:
    store = RecordingStore()
    worker = SimulatedWorker(0, "study", baseline, {}, lambda: store.time, store.sleep)
    worker.work(store, Load(workers=1, run_s=0.5, seconds=300.0), 0.0)
    lots = [(when, len(runs)) for name, when, runs in store.calls if name == "add_runs"]
    # 45 runs a trial: 32 and the 13 that are left; the worker begins somewhere in a lot
    assert [runs for _, runs in lots] == [32, 13] * 13 + [32]
    assert worker.runs == pytest.approx(300 / 0.5, abs=LOT)
    assert 0 < lots[0][0] <= 32 * 0.5
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(lots)]
    assert gaps == pytest.approx([0.5 * runs for _, runs in lots[1:]])
    assert 300 - 32 * 0.5 < lots[-1][0] < 300
    assert worker.runs == 13 * 45 + 32
    assert default_limits("cpu").runs == LOT
    keys = {run.key for name, _, runs in store.calls if name == "add_runs" for run in runs}
    assert len(keys) == worker.runs
    names = [name for name, *_ in store.calls]
    trial = ["points", "checkpoint", "rung", "add_artifact", "present"]
    trial += ["add_runs", "add_runs", "add_point", "scores"]
    assert names[: 2 * len(trial)] == 2 * trial
    for name in names:
        assert callable(getattr(RemoteStore(None), name))


def test_without_seconds_a_run_every_call_follows_on_the_one_before(
    baseline: list[RunPack],
) -> None:
    store = RecordingStore()
    ticks = itertools.count()
    worker = SimulatedWorker(0, "study", baseline, {}, lambda: next(ticks) / 100, store.sleep)
    worker.work(store, Load(workers=1, run_s=0.0, seconds=1.0), 0.0)
    assert store.time == 0
    assert worker.runs >= 45


def test_the_writers_share_and_capacity_follow_from_its_cpu_seconds(
    baseline: list[RunPack],
) -> None:
    worker = SimulatedWorker(0, "study", baseline, {})
    worker.runs = 400
    worker.calls = [Call("add_runs", one / 1000) for one in range(101)]
    told = summary([worker], Load(workers=64, run_s=0.16, seconds=10), seconds=20.0, cpu=2.0)
    assert told["runs a second, wanted"] == 400
    assert told["runs a second"] == 20
    assert told["writer's share of a core"] == 0.1
    assert told["writer's CPU milliseconds a run"] == 5
    assert told["runs a second that fill a core"] == 200
    answers = told["milliseconds to the answer"]
    assert answers == {"add_runs": {"calls": 101, "median": 50, "99 %": 99}}


def test_what_simulated_workers_hand_over_is_stored_by_the_writer_of_a_search(
    with_ray: tuple[Path, Path, dict[str, Any]],
) -> None:
    _, folder, told = with_ray
    with open_results(folder / "results", read_only=True) as database:
        points = database.points()
    with contextlib.closing(sqlite3.connect(folder / "results" / FILE)) as connection:
        (stored_runs,) = connection.execute("SELECT count(*) FROM run").fetchone()
    calls = {name: own["calls"] for name, own in told["milliseconds to the answer"].items()}
    assert calls["add_point"] == [point.method for point in points].count("maml") > 0
    plain = 45
    assert stored_runs == plain + told["runs"]
    # every worker's last trial may have handed over a lot without coming to its point
    assert 0 <= told["runs"] - 45 * calls["add_point"] <= 3 * 45
    assert told["runs a second, wanted"] == 150
    assert told["writer's share of a core"] > 0


@pytest.mark.slow
def test_every_step_of_every_size_is_printed() -> None:
    """Slow: each of its ten steps is a process of its own, with all that it imports."""
    flags = ["--sizes", "1,2", "--skip-tune", "--writers", "2", "--writer-seconds", "3"]
    printed = json.loads(_python("benchmarks/scale.py", *flags, cwd=ROOT))
    steps = {"remaining", "board", "costs", "finished", "report data"}
    about = {"date", "machine before", "machine after"}
    assert set(printed) == {*about, "sizes", "time ratio", "writers"}
    assert [load["seconds a run of one worker"] for load in printed["writers"]] == [0.15, 10.0]
    assert set(printed["time ratio"]) == steps
    assert [(table["trials"], table["runs"]) for table in printed["sizes"]] == [(1, 360), (2, 540)]
    for table in printed["sizes"]:
        assert set(table) == {"trials", "runs", "bytes a run on disk", "steps"}
        assert set(table["steps"]) == steps
        for step in table["steps"].values():
            assert set(step) == {
                "seconds",
                "CPU seconds",
                "seconds per 100 000 runs",
                "CPU seconds per 100 000 runs",
                "milliseconds a trial",
                "megabytes of growth",
            }
