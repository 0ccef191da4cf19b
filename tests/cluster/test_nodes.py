"""Searches and replays over several nodes of which some die; every number stays what it was."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import node_search
import numpy as np
import pytest
from drivers import PATIENCE_S, progress, run_rows
from raylets import Nodes
from search_toys import bits, write_toy_gym
from trial_toys import bench

from mpt.study.study import open_study

pytestmark = pytest.mark.timeout(3000)


class Driver:
    """A job of `node_search` in a process of its own; its output goes to a file."""

    def __init__(
        self, nodes: Nodes, kind: str, gpus: float, inputs: tuple[Path, Path], results: Path
    ) -> None:
        self.results, self.log = results, results.with_suffix(".log")
        words = [sys.executable, node_search.__file__, kind, nodes.address, gpus]
        words += [*inputs, results]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                list(map(str, words)), stdout=log, stderr=log, env=nodes.environment
            )

    def done(self) -> bool:
        """Whether the search has ended; it may only end well."""
        code = self.process.poll()
        assert code in (None, 0), self.log.read_text()
        return code == 0

    def until(self, condition: Callable[[], object], look_s: float = 0.1) -> bool:
        """Wait for a condition; return False if the search ends before."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self.done():
                return False
            assert time.monotonic() < deadline, f"waited in vain:\n{self.log.read_text()}"
            time.sleep(look_s)
        return True


@pytest.fixture(scope="module")
def inputs(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The toy backbone and gym."""
    return toy_checkpoint, write_toy_gym(tmp_path_factory.mktemp("toy-gym"))


@pytest.fixture(scope="module")
def undisturbed(
    inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """A job of this kind without Ray: one process, last trial first, long chunks."""

    @functools.cache
    def run(kind: str) -> dict[str, Any]:
        job = node_search.JOBS[kind](*inputs, tmp_path_factory.mktemp(kind))
        with bench(job, open_study(job.plans[0])) as alone:
            alone.run(*reversed(range(len(job.trials))), chunk_s=1e9)
            alone.run_baseline()
        return bits(job.results)

    return run


def running(count: int, *, head: bool = False) -> Iterator[Nodes]:
    nodes = Nodes(count, cpus=1, head=head)
    yield nodes
    nodes.stop()


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Nodes]:
    """The head is one of them, and cannot be killed."""
    yield from running(1, head=True)


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Nodes]:
    yield from running(3)


def kill(
    what: str, nodes: Nodes, driver: Driver, rng: np.random.Generator, old: Collection[int] = ()
) -> bool:
    """Kill a node, the driver or a worker, but no `old` one; return whether there was one."""
    if what == "driver":
        driver.process.kill()
        driver.process.wait()
        return True
    if what == "node":
        nodes.kill_node(int(rng.choice(nodes.raylets)), at_once=bool(rng.integers(2)))
        nodes.add()
        return True
    workers = sorted({*nodes.workers()}.difference(old))
    if not workers:
        return False
    os.kill(int(rng.choice(workers)), signal.SIGKILL)
    return True


def kill_and_compare(
    kills: list[str],
    nodes: Nodes,
    start: Callable[[Path], Driver],
    folder: Path,
    undisturbed: dict[str, Any],
    rng: np.random.Generator,
    *,
    wait_s: float = 1.5,
    one_by_one: bool = False,
) -> None:
    """Run a job until all kills were done, again from nothing if one run is not enough.

    Each kill falls at a random moment, up to `wait_s` after a worker has stored something new;
    `one_by_one`: what the one before has ended must have been started again by then.
    """
    todo = list(kills)
    for number in range(len(kills)):
        driver = start(folder / str(number))
        stored: dict[str, Any] = {}
        old: set[int] = set()
        while not driver.done():
            if todo and one_by_one:  # at first both nodes work, then what was ended does again
                wanted = 1 if old else 2
                driver.until(
                    lambda: len({*nodes.workers()} - old) >= wanted,  # noqa: B023
                    look_s=0.5,
                )
            before = progress(driver.results)
            working = driver.until(lambda: progress(driver.results) != before)  # noqa: B023
            if working and todo:
                time.sleep(float(rng.uniform(0, wait_s)))
                workers = {*nodes.workers()} if one_by_one else set()
                if not driver.done() and kill(todo[0], nodes, driver, rng, old):
                    todo.pop(0)
                    old |= workers
                    stored |= run_rows(driver.results)
                    if driver.process.returncode is not None:
                        driver = start(driver.results)
        assert bits(driver.results) == undisturbed
        assert stored.items() <= run_rows(driver.results).items(), "a finished run was touched"
        if not todo:
            return
    pytest.fail(f"the search ended too early for {todo}")


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        # in this order, the fewest workers are started again
        ("small", ["node", "worker", "driver"]),
        # what goes through the driver and the workers is the same; the cells are others
        pytest.param("replay", ["worker"], marks=pytest.mark.slow),
    ],
)
def test_a_job_over_nodes_that_die_ends_with_the_same_bits_and_loses_no_finished_run(
    kind: str,
    kills: list[str],
    two_nodes: Nodes,
    inputs: tuple[Path, Path],
    undisturbed: Callable[[str], dict[str, Any]],
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(11)

    def start(results: Path) -> Driver:
        return Driver(two_nodes, kind, 0.5, inputs, results)

    expected = undisturbed(kind)
    kill_and_compare(kills, two_nodes, start, tmp_path, expected, rng, wait_s=0.1, one_by_one=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["search", "replay"])
def test_a_job_over_nodes_survives_thirty_kills(
    kind: str,
    three_nodes: Nodes,
    inputs: tuple[Path, Path],
    undisturbed: Callable[[str], dict[str, Any]],
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(12)
    kills = list(rng.choice(["worker", "node", "driver"], size=30, p=[0.4, 0.35, 0.25]))

    def start(results: Path) -> Driver:
        return Driver(three_nodes, kind, 1, inputs, results)

    kill_and_compare(kills, three_nodes, start, tmp_path, undisturbed(kind), rng)
