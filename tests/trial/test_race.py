"""A point that cannot reach the leader is given up between two data seeds."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from search_toys import SEEDS, VALIDATION, bits, toy_job, with_rungs
from trial_toys import Bench, bench

from mpt.search.job import SearchJob
from mpt.store.records import Run
from mpt.study.record import study_record
from mpt.study.study import OpenStudy
from mpt.trial import store as store_module
from mpt.trial.score import PlannedScore
from mpt.trial.store import TrialStore

POINT = len(VALIDATION) * len(SEEDS) * 2
"""Runs of a point: two learning rates."""


@pytest.fixture(scope="module")
def baseline(
    study: OpenStudy, toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Results of the baseline alone."""
    job = toy_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("baseline"))
    with bench(job, study) as found:
        found.run_baseline()
    return job.results


@pytest.fixture(scope="module")
def led(
    study: OpenStudy,
    toy_checkpoint: Path,
    toy_gym: Path,
    baseline: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Results of the baseline and a trial."""
    results = shutil.copytree(baseline, tmp_path_factory.mktemp("led") / "results")
    job = toy_job(toy_checkpoint, toy_gym, results, rungs=(2,))
    with bench(job, study) as found:
        found.run(0)
    return results


@contextmanager
def copied(results: Path, job: SearchJob, study: OpenStudy) -> Iterator[Bench]:
    """Open a bench where a job's results are a copy of others."""
    shutil.copytree(results, job.results)
    with bench(with_rungs(job, (2,)), study) as found:
        yield found


@pytest.fixture
def short(job: SearchJob, study: OpenStudy, baseline: Path) -> Iterator[Bench]:
    with copied(baseline, job, study) as found:
        yield found


def test_a_point_behind_the_leader_is_given_up_after_the_data_seed_that_showed_it(
    short: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    short.run(0, racing=True)
    before, brought = short.stored, len(short.store.brought)
    asked: list[tuple[int, int, float]] = []

    def judge(
        runs: list[PlannedScore],
        stored: dict[str, Run],
        baseline: object,
        study: object,
        low: float,
    ) -> str | None:
        asked.append((len(runs), len(stored), low))
        return "too far behind" if len(stored) == POINT / 2 else None

    monkeypatch.setattr(store_module, "hopeless", judge)
    work = short.trial(1, racing=True)
    list(work.units())
    assert work.progress.done
    assert work.progress.stopped is not None
    assert (work.progress.stopped.steps, work.progress.stopped.reason) == (2, "too far behind")
    # asked before the first and before the second of two data seeds, with the leader's lower end
    (leader,) = (point for point in short.database.points() if point.method == "maml")
    gain = short.store.scores([leader.key])[leader.key].gain
    assert gain is not None
    assert asked == [(POINT, 0, gain.low), (POINT, POINT / 2, gain.low)]
    assert short.stored == before + POINT / 2
    assert len(short.database.points()) == 2
    # whoever asks for the point without racing computes what is missing, and nothing twice
    monkeypatch.undo()
    again = short.trial(1)
    list(again.units())
    assert again.progress.stopped is None
    assert len(short.database.points()) == 3
    assert short.stored == before + POINT
    assert len(short.store.brought) == brought + POINT


def test_a_race_that_nobody_loses_ends_with_the_scores_of_a_search_without(
    short: Bench, study: OpenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "hopeless", lambda *_: None)
    short.run(0, 1, racing=True)
    with bench(short.job, study, results=tmp_path / "plain") as plain:
        plain.run(0, 1)
        plain.run_baseline()
    raced, whole = bits(short.job.results), bits(tmp_path / "plain")
    assert raced.keys() == whole.keys()
    # other companions in the pack: the same up to float32 rounding
    for key, run in whole.items():
        if isinstance(run, Run):
            for one, other in zip(raced[key].curve, run.curve, strict=True):
                assert one == pytest.approx(other, rel=1e-4)


def test_a_race_taken_over_after_any_unit_has_the_same_bits(
    short: Bench,
    study: OpenStudy,
    baseline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "hopeless", lambda *_: None)
    count = sum(1 for _ in short.trial(0, racing=True).units())
    assert count >= 6  # two stages of two intervals each
    for stop in range(count):
        place = dataclasses.replace(short.job, results=tmp_path / str(stop))
        with copied(baseline, place, study) as found:
            killed = found.trial(0, racing=True)
            for _ in range(stop):
                killed.unit()
            state = killed.state()
            if stop % 2:
                killed.unit()
            after = found.trial(0, racing=True)
            after.load_state(state)
            list(after.units())
        assert bits(place.results) == bits(short.job.results)


def test_nobody_is_given_up_without_racing(short: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrialStore, "racing_reason", lambda *_: "behind")
    for work, stopped in ((short.trial(0), False), (short.trial(1, racing=True), True)):
        list(work.units())
        assert (work.progress.stopped is not None) == stopped


# --- who competes with whom --------------------------------------------------------------------


class _Rivals(TrialStore):
    """Scores of leading points are looked at by nobody but the test."""

    asked: list[str]

    def scores(self, keys):  # type: ignore[no-untyped-def]
        self.asked = list(keys)
        return super().scores(keys)


@pytest.mark.parametrize(
    ("change", "competes"),
    [
        ({"upstream": "other", "settings": {"inner_lr": 3.0}}, True),
        ({"steps": 50}, True),
        ({"method": "reptile"}, False),
        ({"study": {"train_seed": 43}}, False),
        ({"study": {"precision": "bfloat16"}}, False),
        ({"study": {"partition": "cls_to_cls"}}, False),
        ({"study": {"source_shots": 32}}, False),
        ({"study": {"smoke": True}}, False),
    ],
    ids=str,
)
def test_points_compete_within_their_study_and_method(
    led: Path, job: SearchJob, study: OpenStudy, change: dict[str, Any], competes: bool
) -> None:
    with copied(led, job, study) as found:
        (leader,) = (point for point in found.database.points() if point.method == "maml")
        record = found.database.study(leader.study)
        assert record is not None
        moved: dict[str, Any] = dict(change)
        if isinstance(other := moved.pop("study", None), dict):
            changed = dataclasses.replace(record, **other)
            moved["study"] = found.database.add_study(changed)
        rival = dataclasses.replace(leader, **moved)
        if "method" not in change:  # that is told by the key of its trajectory
            assert found.database.add_point(rival)
        store = _Rivals(found.database)
        store.racing_reason(leader.study, rival.method, [])
        assert (rival.key in store.asked and len(store.asked) == 2) == competes


def test_nothing_is_decided_without_a_leader_or_without_the_whole_baseline(
    job: SearchJob, study: OpenStudy
) -> None:
    with bench(with_rungs(job, (2,)), study) as found:
        runs = [PlannedScore("k", VALIDATION[0], SEEDS[0], 0.5, 42)]
        key = study_record(study).key
        assert found.store.racing_reason(key, "maml", runs) is None
        found.run(0)
        assert found.store.racing_reason(key, "maml", runs) is None  # no baseline
        found.run_baseline()
        weak = _weak_point(found)
        reason = found.store.racing_reason(key, "maml", weak)
        assert reason is not None
        assert "below the lower end of the leader's interval" in reason
        assert found.store.racing_reason(key, "reptile", weak) is None  # no leader of its own


def _weak_point(found: Bench) -> list[PlannedScore]:
    """Store runs that got nothing right; return them as a point's."""
    (leader,) = (point for point in found.database.points() if point.method == "maml")
    runs = list(found.database.runs(leader.runs).values())
    weak = [
        dataclasses.replace(
            run, identity=dataclasses.replace(run.identity, init="weak"), dev=0.0, test=0.0
        )
        for run in runs
    ]
    found.database.add_runs(weak)
    return [
        PlannedScore(
            run.key,
            run.identity.task,
            run.identity.data_seed,
            run.identity.lr,
            run.identity.train_seed,
        )
        for run in weak
    ]
