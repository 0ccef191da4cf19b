"""Searches whose driver, workers and Ray are really killed lose no finished run and no bit."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drivers import (
    AGENTS,
    GCS,
    RAYLET,
    WORKER,
    WRITER,
    Driver,
    checkpoints,
    run_count,
    run_rows,
)
from search_toys import JOBS, KNOWN_RATES, bits
from trial_toys import bench

from mpt.search.job import DONE, Execution
from mpt.search.run import run_search
from mpt.study.study import open_study

pytestmark = pytest.mark.timeout(3000)

INTERRUPTED = "interrupted; what was finished is kept. Resume with: the same command"
RAY_ENDED = (
    "Ray's own process on this machine has ended (killed, or out of memory); what was finished is "
    "kept. Resume with: the same command"
)


@pytest.fixture(scope="module")
def undisturbed(
    toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """A toy search of this name without Ray: one process, last trial first, long chunks."""

    @functools.cache
    def run(name: str) -> dict[str, Any]:
        job = JOBS[name](toy_checkpoint, toy_gym, tmp_path_factory.mktemp(name))
        with bench(job, open_study(job.plans[0])) as found:
            found.run(1, 0, chunk_s=1e9)
            found.run_baseline()
        return bits(job.results)

    return run


class Search:
    """A search of this name that is started again and again in one directory of results."""

    def __init__(self, drive: Callable[..., Driver], results: Path, name: str) -> None:
        self._drive, self.results, self._name = drive, results, name
        self._seen: dict[str, tuple[Any, ...]] = {}

    def start(self, *words: str) -> Driver:
        """Start a driver; what was stored before must be there, untouched."""
        self.check()
        return self._drive(self.results, self._name, *words)

    def started(self, runs: int = 1) -> Driver:
        """Start a driver and wait until its workers have stored some runs.

        Those of a killed driver live on for a moment and may store theirs.
        """
        driver = self.start()
        driver.until(lambda: "time left" in driver.output())
        self.goes_on(driver, runs)
        return driver

    def goes_on(self, driver: Driver, runs: int = 1) -> None:
        """Wait until a driver's workers have stored some more runs."""
        before = run_count(self.results)
        driver.until(lambda: run_count(self.results) >= before + runs)

    def check(self) -> None:
        rows = run_rows(self.results)
        changed = [key for key, row in self._seen.items() if rows.get(key) != row]
        assert not changed, "a finished run is lost, or was written again"
        self._seen = rows


def kill(driver: Driver, *names: str) -> None:
    """Kill processes of a driver's Ray."""
    victims = driver.processes(*names)
    assert victims, f"no {names} runs"
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


def ends_with(driver: Driver, line: str) -> None:
    assert driver.wait() == 75, driver.output()
    assert driver.output().rstrip().splitlines()[-1] == line
    assert "Traceback" not in driver.output()


@pytest.mark.parametrize(
    ("every", "name", "points"),
    [(False, "SLOW", 7), pytest.param(True, "LONG", 11, marks=pytest.mark.slow)],
)
def test_a_search_that_is_killed_and_stopped_in_every_way_resumes_to_the_same_bits(
    drive: Callable[..., Driver],
    toy_checkpoint: Path,
    toy_gym: Path,
    undisturbed: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    every: bool,
    name: str,
    points: int,
) -> None:
    """Each start takes ten seconds: of two ways that end alike one is left to the slow suite.

    That a dead raylet is seen as a dead agent is, `test_watchdog` tells; that SIGTERM is heard as
    Ctrl-C is, `test_interrupts`. For two workers there is `test_nodes`.
    """
    search = Search(drive, tmp_path / "results", name)

    # SIGKILL of the driver, as soon as there is a checkpoint
    first = search.start()
    first.until(lambda: checkpoints(search.results) > 0)
    first.process.kill()
    assert first.wait() == -signal.SIGKILL

    # Ray's own processes; without a look at them, the driver would wait for ever
    for names in (AGENTS, (RAYLET,))[: 1 + every]:
        lost = search.started()
        kill(lost, *names)
        ends_with(lost, RAY_ENDED)

    # SIGKILL of the writer and of a worker, each in the middle of its work: the driver goes on
    third = search.started()
    kill(third, WRITER)
    search.goes_on(third)
    kill(third, WORKER)
    third.until(lambda: "its worker died; it goes on from its last checkpoint" in third.output())
    search.goes_on(third)

    # Ctrl-C in a terminal, which all processes of the group receive
    os.killpg(third.process.pid, signal.SIGINT)
    ends_with(third, INTERRUPTED)

    if every:  # SIGTERM, as from a batch system
        fourth = search.started(runs=4)
        fourth.process.terminate()
        ends_with(fourth, INTERRUPTED)

    search.check()
    assert run_count(search.results) < points * 8
    job = JOBS[name](toy_checkpoint, toy_gym, search.results)
    execution = Execution(workers=1, signals=False, max_failures=0, resume="", next_step="rest")
    assert run_search(job, execution, rates=KNOWN_RATES) == DONE  # in this process, with a Ray

    search.check()
    assert bits(search.results) == undisturbed(name)
    assert run_count(search.results) == points * 8  # with the baseline


VICTIMS = {
    "driver": ((), 0.3),
    "worker": ((WORKER,), 0.3),
    "writer": ((WRITER,), 0.15),
    "agent": (AGENTS[:1], 0.1),
    "raylet": ((RAYLET,), 0.1),
    "gcs": ((GCS,), 0.05),
}
"""What is killed: names of processes, and how often."""


def strike(driver: Driver, kind: str, rng: np.random.Generator) -> bool:
    """Kill something, and in the end the driver; return whether there was something to kill."""
    names, _ = VICTIMS[kind]
    victims = driver.processes(*names) if names else [driver.process.pid]
    struck = driver.runs() and bool(victims)
    if struck:
        os.kill(int(rng.choice(victims)), signal.SIGKILL)
        if kind in ("worker", "writer"):  # the driver goes on, for a moment
            time.sleep(float(rng.uniform(0, 5)))
            driver.process.kill()
    if kind == "driver" or not struck:
        driver.process.kill()
    driver.wait()
    return struck


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_search_killed_thirty_times_at_random_moments_ends_with_the_same_bits(
    drive: Callable[..., Driver], undisturbed: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """Where a search is through before, the next one begins in another directory."""
    rng = np.random.default_rng(2)
    search, kills, seen = Search(drive, tmp_path / "results", "LONG"), 0, set()
    while kills < 30:
        driver = search.start("TWO")
        kind = str(rng.choice(list(VICTIMS), p=[share for _, share in VICTIMS.values()]))
        while kind != "driver" and "time left" not in driver.output() and driver.runs():
            time.sleep(0.05)  # what is killed is not there yet
        time.sleep(float(rng.uniform(0, 20 if kind == "driver" else 8)))
        if strike(driver, kind, rng):
            kills += 1
            seen.add(kind)
        elif driver.process.returncode == 0:
            search.check()
            assert bits(search.results) == undisturbed("LONG")
            search = Search(drive, tmp_path / f"results-{kills}", "LONG")
    last = search.start()
    assert last.wait() == 0, last.output()
    search.check()
    assert bits(search.results) == undisturbed("LONG")
    assert len(seen) >= 5
