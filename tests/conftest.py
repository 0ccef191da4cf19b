from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from children import python_path

if TYPE_CHECKING:
    from mpt.backbones import Backbone
    from mpt.gym.fewshot import FewShotTask

# Nothing of mpt, and no torch, is imported up here: with `-n` one process only hands out tests to
# the others, which do not begin before it has read this file.

# What is made until the tests are collected stays: to look for garbage in it takes 4 seconds.
gc.disable()

# Tests start a hundred processes: they need not compile again what others have compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Ray starts itself behind calls as harmless as the making of a `Trainable`, and would then stay
# for the test files that follow. It reads this at its import, which comes later than this line.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

# Ray's workers step back behind everything else (niceness 15): beside a few busy processes they
# would get a thirtieth of a core, and a test of minutes would run into its limit.
os.environ |= {"RAY_worker_niceness": "0"}

# A worker of Ray takes six seconds of computing to start, and two test processes keep two cores
# busy: a search has one worker here, if its test does not say that it needs two.
os.environ |= {"RAY_OVERRIDE_RESOURCES": '{"CPU": 1}'}

# The same for processes that inherit this environment; others are given `children.environment`.
os.environ["PYTHONPATH"] = python_path(*filter(None, [os.environ.get("PYTHONPATH")]))


LONGEST = (
    "search/test_kills.py",
    "cluster/test_nodes.py",
    "replay/test_whole_study.py",
    "search/replication/test_replication.py",
    "search/test_run.py",
    "test_wheel.py",
    "docs/test_code_blocks.py",
    "replay/test_recorded_recipe.py",
    "replay/similarity/test_similarity_job.py",
    "upstream/test_conformance.py",
    "trial/test_downstream_starts.py",
    "replay/test_contest_run.py",
    "search/test_storage.py",
    "trial/test_upstream_trial.py",
    "search/ray/test_own_parts.py",
    "trial/test_kill_points.py",
    "trial/test_task_trials.py",
    "cli/test_per_setting.py",
)
"""The files that take longest, first: of several processes none is left alone with one of them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Set what holds for all tests, in the processes that run some."""
    import torch

    from mpt.search.cost import probe

    # One thread a test process: two processes share the cores, and toy sizes gain
    # nothing from a second thread, which spins whenever the machine is busy.
    torch.set_num_threads(1)
    # A search first measures how fast this machine is, for seconds; no test relies on the
    # estimate, and those of the measuring itself say how long it takes.
    probe.PROBE_S = 0.2


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the files that take longest first."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    missing = [path for path in places if not path.is_file()]
    if missing:
        raise pytest.UsageError(f"{missing[0]} is in LONGEST of {__file__}, but there is no such")
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Leave the modules and tests that are there now out of every later garbage collection.

    They stay to the end, and there are a million objects of them: a full collection takes half a
    second with them. Tests that halve a batch or look for leaks ask for several each.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def no_ray_is_left() -> Iterator[None]:
    """Refuse a Ray that a test file leaves running: it would be that of the next file too."""
    yield
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized(), "this file left a Ray running"


@pytest.fixture(autouse=True, scope="module")
def process_as_before_the_file(no_ray_is_left: None) -> Iterator[None]:
    """Refuse what a file's own fixtures leave changed in the process."""
    from process_state import left_as_it_was

    with left_as_it_was():
        yield


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """Refuse what a test leaves changed in the process; it takes some ten microseconds."""
    from process_state import left_as_it_was

    with left_as_it_was():
        yield


@pytest.fixture(autouse=True)
def methods_as_before() -> Iterator[None]:
    """Let methods that a test registers end with it: all of mpt lists what is registered."""
    from mpt import config
    from mpt.upstream.registry import UPSTREAM_METHODS

    held = dict(UPSTREAM_METHODS), list(config._REGISTERED), set(config._WITHOUT_INNER)
    yield
    UPSTREAM_METHODS.clear()
    UPSTREAM_METHODS.update(held[0])
    config._REGISTERED[:] = held[1]
    config._WITHOUT_INNER.clear()
    config._WITHOUT_INNER.update(held[2])


@pytest.fixture(autouse=True)
def command_as_before() -> Iterator[None]:
    """Let a command that a test runs in this process end with it: messages name it."""
    from mpt.cli.flags import Parser

    before = Parser.command
    yield
    Parser.command = before


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved T5 of 1+1 layers, width 32, that half knows the toy tasks (see `toys`)."""
    from toys import save_trained_toy_t5

    return save_trained_toy_t5(tmp_path_factory.mktemp("toy-t5"))


@pytest.fixture(scope="session")
def toy_backbone(toy_checkpoint: Path) -> Backbone:
    from mpt.backbones import load_backbone

    return load_backbone(str(toy_checkpoint))


@pytest.fixture(scope="session")
def toy_backbone64(toy_checkpoint: Path) -> Backbone:
    """The same weights in float64, for checks that need many digits."""
    import torch

    from mpt.backbones import load_backbone

    return load_backbone(str(toy_checkpoint), dtype=torch.float64)


@pytest.fixture(scope="session")
def toy_tasks() -> list[FewShotTask]:
    """Two tasks with two data seeds each: four upstream items."""
    from toys import toy_task

    return [toy_task(name, seed) for name in ("toy-one", "toy_two") for seed in (13, 21)]


@pytest.fixture(scope="session")
def toy_gym(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three source tasks and two validation tasks of the toy search (see `search_toys`)."""
    from search_toys import write_toy_gym

    return write_toy_gym(tmp_path_factory.mktemp("toy-gym"))
