"""A search on the packaged real model and real tasks that is killed and run again; minutes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from drivers import Driven, checkpoints, run_rows
from real_model import GYM, NEEDS_GYM, NEEDS_SMOLLM2
from search_toys import bits

import mpt

PATIENCE_S = 7200.0
"""For a busy machine that is much slower; it only catches hangs."""
TRIES, NO_RAY = 5, "Ray did not start on this machine"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * PATIENCE_S), NEEDS_SMOLLM2, NEEDS_GYM]


@pytest.fixture
def started() -> Iterator[list[Driven]]:
    """Searches of a test, none of which outlives it."""
    found: list[Driven] = []
    yield found
    for driven in found:
        if driven.process.poll() is None:
            os.killpg(driven.process.pid, signal.SIGKILL)
            driven.process.wait()


def _search(results: Path, started: list[Driven], *, kill: bool = False) -> Driven:
    """Return a search that has ended, or was killed as soon as it had a checkpoint and a run.

    A busy machine may not start Ray in time; the search says that it may be run again, and is.
    """
    words = ["--backbone", "smollm2", "--gym", str(GYM), "--allow-missing", "--smoke"]
    command = [sys.executable, "-m", "mpt", "search", "fomaml", *words, "--results", str(results)]
    for _ in range(TRIES):
        started.append(Driven(command, results, PATIENCE_S))
        driven = started[-1]
        if kill:
            driven.until(
                lambda one=driven: not one.runs() or (checkpoints(results) and run_rows(results))
            )
            if driven.runs():
                os.killpg(driven.process.pid, signal.SIGKILL)
        driven.wait()
        if NO_RAY not in driven.output():
            return driven
    pytest.fail(driven.output())


def _runs(results: Path) -> pd.DataFrame:
    """Return all runs, those of the baseline too, without what depends on clocks."""
    runs = mpt.load_results(results).runs()
    return runs[["run", "method", "dev", "test"]].sort_values("run", ignore_index=True)


def test_a_killed_search_of_a_real_model_resumes_to_the_bits_of_an_undisturbed_one(
    tmp_path: Path, started: list[Driven]
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first = _search(killed, started, kill=True)
    assert first.wait() == -signal.SIGKILL, first.output()
    there = run_rows(killed)
    for results in (killed, whole):
        ended = _search(results, started)
        assert ended.wait() == 0, ended.output()

    after = run_rows(killed)
    assert len(there) < len(after)  # it was killed in the middle
    assert {key: after[key] for key in there} == there  # and nothing was done twice
    assert len(bits(whole)) > 4  # points and their runs
    assert bits(killed) == bits(whole)
    pd.testing.assert_frame_equal(_runs(killed), _runs(whole), check_exact=True)
