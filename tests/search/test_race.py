"""A point that cannot reach the leader is given up between two data seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from search_toys import SEEDS, VALIDATION, bits, toy_job, with_rungs

from mpt.records import LeafStore, PointStore
from mpt.search.job import SearchJob
from mpt.study.study import Study
from mpt.trial import trajectory as trajectory_module
from mpt.trial.trajectory import TrajectoryWork

POINT = len(VALIDATION) * len(SEEDS) * 2  # leaves


def _work(study: Study, job: SearchJob, index: int, **options: bool) -> TrajectoryWork:
    work = TrajectoryWork(study, job.courses[index].trajectory, job.results, 0, **options)
    list(work.units())
    return work


@pytest.fixture
def short(job: SearchJob) -> SearchJob:
    return with_rungs(job, (2,))


def test_a_point_behind_the_leader_is_given_up_after_the_data_seed_that_showed_it(
    study: Study, short: SearchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    _work(study, short, 0, racing=True)
    before = len(list(LeafStore(short.results).keys()))
    asked: list[float | None] = []

    def judge(point: object, baseline: object, store: object, low: float | None) -> str | None:
        asked.append(low)
        return "too far behind" if len(asked) == 2 else None

    monkeypatch.setattr(trajectory_module, "hopeless", judge)
    work = _work(study, short, 1, racing=True)
    assert work.progress.done
    assert work.progress.stopped is not None
    assert (work.progress.stopped.steps, work.progress.stopped.reason) == (2, "too far behind")
    # asked before the first and before the second of two data seeds, with the leader's lower end
    assert len(asked) == 2
    assert asked[0] is not None
    assert len(list(LeafStore(short.results).keys())) == before + POINT / 2
    assert len(PointStore(short.results).all()) == 1
    # whoever asks for the point without racing computes what is missing, and nothing twice
    monkeypatch.undo()
    again = _work(study, short, 1)
    assert again.progress.stopped is None
    assert len(PointStore(short.results).all()) == 2
    assert len(list(LeafStore(short.results).keys())) == before + POINT


def test_a_race_that_nobody_loses_ends_with_the_scores_of_a_search_without(
    study: Study, short: SearchJob, tmp_path: Path
) -> None:
    plain = dataclasses.replace(short, results=tmp_path / "plain")
    for index in (0, 1):
        assert _work(study, short, index, racing=True).progress.stopped is None
        _work(study, plain, index)
    raced, whole = bits(short.results), bits(plain.results)
    assert raced.keys() == whole.keys()
    # other companions in the pack: the same up to float32 rounding
    for key, found in whole.items():
        if isinstance(found, tuple):
            for one, other in zip(raced[key][1]["curve"], found[1]["curve"], strict=True):
                assert one == pytest.approx(other, rel=1e-4)


def test_nobody_is_given_up_without_racing(
    toy_checkpoint: Path,
    toy_gym: Path,
    study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = with_rungs(toy_job(toy_checkpoint, toy_gym, tmp_path / "results"), (2,))
    monkeypatch.setattr(trajectory_module, "hopeless", lambda *_: "behind")
    assert _work(study, job, 0).progress.stopped is None
