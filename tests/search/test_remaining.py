"""What is left of a job, counted against the database."""

from __future__ import annotations

import dataclasses
import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from search_toys import SEEDS, VALIDATION, with_rungs
from trial_toys import Bench, bench

from mpt.config import DownstreamConfig
from mpt.downstream.limits import PackLimits
from mpt.search.cost.plan import RemainingWork
from mpt.search.job import SearchJob
from mpt.search.remaining import remaining_work
from mpt.study.specs import FineTuningConfig, TrialSpec, UpstreamSpec, ZeroShotConfig
from mpt.study.study import OpenStudy
from mpt.trial import pack_limits

POINT = len(VALIDATION) * len(SEEDS) * 2
"""Runs of a point: two learning rates."""
ROWS = 2 * 8 + 8
"""Rows a run evaluates: dev twice (after 2 and 4 steps), test once."""


@pytest.fixture
def one(job: SearchJob, study: OpenStudy) -> Iterator[Bench]:
    with bench(job, study) as found:
        yield found


def left_of(found: Bench, *trials: TrialSpec) -> RemainingWork:
    opened = {study.plan: study for study in found.studies}
    specs = trials or found.job.trials
    return remaining_work(specs, opened.__getitem__, found.store, found.files)


def twin_of(
    study: OpenStudy, scored: tuple[str, ...] = VALIDATION, **changes: object
) -> OpenStudy:
    """Return a study with the same sources and scored tasks that it shares or lacks."""
    config = dataclasses.replace(study.config, **changes)  # type: ignore[arg-type]
    plan = dataclasses.replace(study.plan, config=config, scored=scored)
    return dataclasses.replace(study, plan=plan, scored={n: study.scored[n] for n in scored})


def test_an_empty_database_leaves_everything_to_do(one: Bench) -> None:
    work = left_of(one)
    assert (work.points, work.points_there) == (6, 0)
    assert (work.runs, work.runs_there, work.shared, work.shared_there) == (6 * POINT, 0, POINT, 0)
    (shared,) = work.shared_left
    assert (shared.runs, shared.steps, shared.rows) == (POINT, 4 * POINT, ROWS * POINT)
    for trial in work.trials:
        assert (trial.steps, trial.begin, trial.points) == (6, 0, 3)
        assert (trial.runs.runs, trial.runs.rows) == (3 * POINT, 3 * ROWS * POINT)
    assert one.stored == 0  # nothing is written


def test_what_is_stored_is_taken_off(one: Bench, job: SearchJob, study: OpenStudy) -> None:
    with bench(with_rungs(job, (4,)), study) as short:
        short.run(0)
        short.run_baseline()
    work = left_of(one)
    assert work.points_there == 1
    assert work.shared_left == ()
    first, second = work.trials
    # the rung at 4 is there: 2 steps before it are needed again, 2 behind it
    assert (first.steps, first.points, first.runs.runs) == (4, 2, 2 * POINT)
    assert (second.steps, second.points, second.runs.runs) == (6, 3, 3 * POINT)
    assert work.all_there == 2 * POINT


def test_a_rung_whose_prompt_is_stored_needs_no_steps_and_its_missing_runs_alone(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = PackLimits(runs=3, tokens=256, pass_cost=16, source="a test")
    monkeypatch.setattr(pack_limits, "pack_limits", lambda *_: few)
    half = one.trial(0)
    while not one.store.brought:  # the first runs at the rung 2
        half.unit()
    assert len(one.store.brought) == 3
    first = left_of(one).trials[0]
    assert (first.steps, first.points) == (4, 3)
    assert first.runs.runs == 3 * POINT - len(one.store.brought)
    rung = one.store.rung(half.key, 2)
    assert rung is not None
    Path(rung.uri).unlink()
    first = left_of(one).trials[0]
    assert (first.steps, first.runs.runs) == (6, 3 * POINT)


def test_a_finished_trial_has_nothing_left(one: Bench) -> None:
    one.run(0)
    one.run_baseline()
    work = left_of(one, one.job.trials[0])
    assert work.points_there == work.points == 3
    (trial,) = work.trials
    assert (trial.steps, trial.runs.runs, trial.points) == (0, 0, 0)


def test_a_run_that_is_gone_is_left_to_do_again(one: Bench) -> None:
    one.run_baseline()
    before = left_of(one).shared_there
    with closing(sqlite3.connect(one.database.path or "")) as connection:
        connection.execute("DELETE FROM point_run")
        connection.execute("DELETE FROM run WHERE id = (SELECT min(id) FROM run)")
        connection.commit()
    work = left_of(one)
    assert work.shared_there == before - 1
    assert work.shared_left[0].runs == 1


def test_what_two_studies_share_is_counted_once(job: SearchJob, study: OpenStudy) -> None:
    """Same sources: one trajectory. Same scored tasks: the same runs, under two points."""
    twin, other = twin_of(study, partition="another"), twin_of(study, VALIDATION[:1])
    first = job.trials[0]
    with bench(job, study, twin, other) as found:
        specs = [dataclasses.replace(first, plan=one.plan) for one in (study, twin, other)]
        work = left_of(found, *specs)
        assert [part.steps for part in work.trials] == [6, 0, 0]
        assert [part.runs.runs for part in work.trials] == [3 * POINT, 0, 3 * POINT // 2]
        assert (work.points, work.shared) == (9, POINT)
        for one in found.studies:
            found.run_baseline(one)
        list(found.trial_of(*specs).units())
        done = left_of(found, *specs)
        assert done.points_there == 9
        assert done.all_there == done.all_runs == work.all_runs


def test_fine_tuning_in_two_studies_is_counted_once(job: SearchJob, study: OpenStudy) -> None:
    down = DownstreamConfig(lrs=(1e-2, 1e-3), steps=3, eval_every=2)
    upstream = UpstreamSpec(config=FineTuningConfig(downstream=down))
    twin = twin_of(study, partition="another")
    with bench(job, study, twin) as found:
        specs = [TrialSpec(plan=one.plan, upstream=upstream) for one in (study, twin)]
        work = left_of(found, *specs)
        assert (work.points, work.runs, work.shared) == (2, POINT, POINT)
        assert [part.runs.runs for part in work.trials] == [POINT, 0]
        assert work.trials[0].runs.steps == 3 * POINT
        assert work.trials[0].runs.kind.startswith("weights tuning")
        for _ in itertools.islice(found.trial_of(*specs).units(), 3):
            pass
        assert left_of(found, *specs).runs_there == 3
        list(found.trial_of(*specs).units())
        done = left_of(found, *specs)
        assert (done.points_there, done.runs_there) == (2, POINT)
        assert done.trials[0].points == 0


def test_zero_shot_is_counted_in_rows_and_equal_test_files_once(
    job: SearchJob, study: OpenStudy, tmp_path: Path
) -> None:
    upstream = UpstreamSpec(config=ZeroShotConfig())
    down = study.config.downstream
    with bench(job, study) as found:
        spec = TrialSpec(plan=study.plan, upstream=upstream)
        (work,) = left_of(found, spec).trials
        runs = len(VALIDATION) * len(SEEDS)
        assert (work.runs.runs, work.runs.steps, work.steps, work.points) == (runs, 0, 0, 1)
        samples = [task for row in study.scored.values() for task in row.values()]
        files = {(task.name, task.test) for task in samples}
        assert len(files) == len(samples)  # the toy gym has a file a data seed
        assert work.runs.rows == sum(
            min(len(task.dev), down.max_dev or 99) + min(len(task.test), down.max_test or 99)
            for task in samples
        )
        list(found.trial_of(spec).units())
        done = left_of(found, spec)
        assert (done.points_there, done.runs_there, done.trials[0].runs.rows) == (1, runs, 0)
    alike = {
        name: {seed: dataclasses.replace(task, test=samples[0].test) for seed, task in row.items()}
        for name, row in study.scored.items()
    }
    other = dataclasses.replace(study, scored=alike)
    with bench(job, other, results=tmp_path / "other") as found:
        (same,) = left_of(found, spec).trials
        saved = len(VALIDATION) * (len(SEEDS) - 1) * len(samples[0].test)
        assert same.runs.rows == work.runs.rows - saved
