"""The benchmark of a large search: what it times computes nothing; its numbers are for people."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scale import finished, job_of, write_results

from mpt.store.database import open_results

ROOT = Path(__file__).resolve().parents[2]


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


TRIALS = """
import sys
from pathlib import Path

from scale import trials, write_results

write_results(Path(sys.argv[1]), 3)
trials(Path(sys.argv[1]), 3)
"""


def test_the_trials_run_and_their_workers_store_every_point_of_the_search(tmp_path: Path) -> None:
    """In a process of its own: the step puts its trial in the place of Tune's, and starts Ray."""
    done = subprocess.run(
        [sys.executable, "-c", TRIALS, str(tmp_path)],
        cwd=ROOT / "benchmarks",
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    with open_results(tmp_path / "bare", read_only=True) as database:
        points = database.points()
    assert sorted(point.key for point in points) == _stored(tmp_path, 3)[0]
    assert [point.method for point in points].count("maml") == 3


@pytest.mark.slow
def test_every_step_of_every_size_is_printed() -> None:
    """Slow: each of its ten steps is a process of its own, with all that it imports."""
    done = subprocess.run(
        [sys.executable, "benchmarks/scale.py", "--sizes", "1,2", "--skip-tune"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    steps = {"remaining", "board", "costs", "finished", "report data"}
    assert set(printed) == {"date", "machine before", "machine after", "sizes", "time ratio"}
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
