"""Fixtures of the toy search, which several folders of tests have in their `conftest.py`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from drivers import Driver
from ready_process import workers_from_a_copy
from search_toys import toy_job, write_toy_gym

from mpt.search.job import Execution, SearchJob
from mpt.study.study import OpenStudy, open_study

__all__ = ["drive", "job", "study", "toy_gym"]

# As in the workers: with another number of threads, sums may differ in the last bit.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_gym(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_gym(tmp_path_factory.mktemp("toy-gym"))


@pytest.fixture
def job(toy_checkpoint: Path, toy_gym: Path, tmp_path: Path) -> SearchJob:
    return toy_job(toy_checkpoint, toy_gym, tmp_path / "results")


@pytest.fixture(scope="session")
def study(
    toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> OpenStudy:
    """The toy search's study; what it computes goes where a test's own `job` says."""
    return open_study(toy_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("unused")).plans[0])


@contextlib.contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """Run a block with a Ray that the searches in this process share."""
    from mpt.search.ray.session import _start, prepare_environment

    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        os.environ.pop(name, None)
    prepare_environment("local")
    import ray

    with workers_from_a_copy():
        _start(Execution(workers=cpus))  # more than once on a busy machine
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def one_worker() -> Iterator[None]:
    """A Ray with room for one trial: trials come one after the other, so decisions repeat."""
    with local_ray(1):
        yield


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
