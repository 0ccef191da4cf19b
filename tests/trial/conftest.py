"""The trials that are worked on here are those of the toy search of `tests/search`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "search"))

from search_fixtures import job, study, toy_gym
from search_toys import bits, toy_job, with_rungs
from trial_toys import Bench, bench

from mpt.config import DownstreamConfig
from mpt.downstream.limits import PackLimits
from mpt.search.job import SearchJob
from mpt.study.study import OpenStudy, open_study
from mpt.trial import pack_limits

__all__ = ["job", "study", "toy_gym"]

NARROW = PackLimits(runs=3, tokens=256, pass_cost=16, source="a test")
"""Three runs go on side by side, so that others wait and enter."""


@pytest.fixture
def one(job: SearchJob, study: OpenStudy) -> Iterator[Bench]:
    with bench(job, study) as found:
        yield found


@pytest.fixture
def other(job: SearchJob, study: OpenStudy, tmp_path: Path) -> Iterator[Bench]:
    """Another place for results of the same job."""
    with bench(job, study, results=tmp_path / "other") as found:
        yield found


@pytest.fixture(scope="module")
def whole(
    study: OpenStudy, toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the toy job computes where nothing disturbs it."""
    job = toy_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("whole"))
    with bench(job, study) as found:
        found.run(0, 1)
        found.run_baseline()
    return bits(job.results)


@pytest.fixture(scope="module")
def uneven(toy_checkpoint: Path, toy_gym: Path) -> OpenStudy:
    """The toy study with runs that leave at different times: their bits show who rode along."""
    downstream = DownstreamConfig(
        lrs=(0.5, 0.2), batch_size=2, steps=12, eval_every=2, patience=2, max_generated=3
    )
    job = toy_job(toy_checkpoint, toy_gym, Path("unused"), downstream=downstream)
    return open_study(job.plans[0])


@pytest.fixture
def two_uneven(
    job: SearchJob, uneven: OpenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Bench, Bench]]:
    """Two places for results of the same search, whose runs do not fit beside each other."""
    monkeypatch.setattr(pack_limits, "pack_limits", lambda *_: NARROW)
    trials = tuple(dataclasses.replace(one, plan=uneven.plan) for one in job.trials)
    job = with_rungs(dataclasses.replace(job, trials=trials), (2, 4))
    with bench(job, uneven) as one, bench(job, uneven, results=tmp_path / "other") as other:
        yield one, other
