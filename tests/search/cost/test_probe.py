"""The probe against what a search then takes, in seconds of computing."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from search_toys import toy_job

from mpt.config import DownstreamConfig, UpstreamConfig
from mpt.search.cost import probe as probe_module
from mpt.search.cost.plan import Rates, work_seconds
from mpt.search.cost.probe import courses_to_probe, probe_courses
from mpt.search.job import Course, SearchJob
from mpt.search.stock import take_stock
from mpt.study.spaces import Trajectory
from mpt.study.study import Study, open_study
from mpt.trial.course_work import course_work
from mpt.trial.fine_tuning import FineTuning, FineTuningConfig

DOWN = DownstreamConfig(lrs=(0.5, 0.2), batch_size=4, steps=60, eval_every=20, max_generated=3)


@pytest.fixture(scope="module")
def longer(
    toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> SearchJob:
    """A toy search with enough to do for its time to be told."""
    results = tmp_path_factory.mktemp("probe") / "results"
    return toy_job(
        toy_checkpoint, toy_gym, results, rungs=(40, 80), inner_lrs=(0.1,), downstream=DOWN
    )


def _spent(job: SearchJob, study: Study) -> float:
    began = time.process_time()
    for course in job.courses:
        list(course_work(study, course, job.results).units())
    return time.process_time() - began


def _estimated(job: SearchJob, study: Study) -> tuple[float, Rates]:
    load = take_stock(job, lambda _: study)
    rates = probe_courses(courses_to_probe(job, load), lambda _: study, clock=time.process_time)
    each, shared = work_seconds(load, rates)
    return sum(each) + shared, rates


@pytest.mark.parametrize("tuned", ["prompt", "weights"])
def test_the_estimate_is_near_what_a_search_takes(
    longer: SearchJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tuned: str
) -> None:
    """In seconds of computing, which other programs on the machine disturb less than the clock.

    The bound is wide because milliseconds are measured on a shared machine; the embedded search is
    held to 20 % by hand.
    """
    monkeypatch.setattr(probe_module, "PROBE_S", 1.0)
    job = dataclasses.replace(longer, results=tmp_path)
    if tuned == "weights":
        config = FineTuningConfig(downstream=dataclasses.replace(DOWN, lrs=(1e-3, 1e-4)))
        course = Course(plan=job.plans[0], trajectory=FineTuning(config=config))
        job = dataclasses.replace(job, courses=(course,))
    study = open_study(job.plans[0])
    estimated, rates = _estimated(job, study)
    spent = _spent(job, study)
    assert 0.6 < estimated / spent < 1.67, f"{estimated:.2f} s estimated, {spent:.2f} s spent"
    assert all(rate.step_s > 0 and rate.row_s > 0 for rate in rates.leaves.values())


def test_every_kind_of_work_is_probed_once(longer: SearchJob, study: Study) -> None:
    def course(**changes: object) -> Course:
        config = dataclasses.replace(UpstreamConfig(outer_lr=0.3), **changes)  # type: ignore[arg-type]
        return Course(plan=longer.plans[0], trajectory=Trajectory(config=config, rungs=(2,)))

    tuned = FineTuning(config=FineTuningConfig(downstream=dataclasses.replace(DOWN, lrs=(1e-3,))))
    job = dataclasses.replace(
        longer,
        courses=(
            course(),
            course(inner_lr=0.5),  # a learning rate does not change the time of a step
            course(method="reptile", inner_steps=3),
            course(method="reptile", inner_steps=4),
            course(batch_size=5),
            Course(plan=longer.plans[0], trajectory=tuned),
        ),
    )
    load = take_stock(job, lambda _: study)
    assert courses_to_probe(job, load) == [job.courses[n] for n in (0, 2, 3, 4, 5)]
    probed: list[tuple[int, bool]] = []

    def counted(*args: object, known: Rates | None, **kwargs: object) -> Rates:
        probed.append((len(probed), known is None))
        return Rates(steps={}, leaves={}, start_s=0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_module, "probe", counted)
        probe_courses(job.courses[:3], lambda _: study)
    assert probed == [(0, True), (1, False), (2, False)]


def test_a_finished_kind_is_not_probed(longer: SearchJob, study: Study) -> None:
    load = take_stock(longer, lambda _: study)
    nothing = dataclasses.replace(load.courses[0].leaves, runs=0, steps=0, rows=0)
    done = dataclasses.replace(load.courses[0], steps=0, leaves=nothing)
    two = dataclasses.replace(longer, courses=longer.courses * 2)
    left = dataclasses.replace(load, courses=(done, load.courses[0]))
    assert courses_to_probe(two, left) == [two.courses[1]]


def test_the_probe_writes_nothing_and_tells_sizes_of_real_files(
    longer: SearchJob, study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probe_module, "PROBE_S", 0.5)
    job = dataclasses.replace(longer, results=tmp_path / "results")
    study = open_study(job.plans[0])
    _, rates = _estimated(job, study)
    assert not job.results.exists()
    _spent(job, study)
    leaves = [path.stat().st_size for path in job.results.glob("leaves/??/*.json")]
    assert rates.sizes.leaf == pytest.approx(sum(leaves) / len(leaves), rel=0.15)
    (checkpoint, _) = job.results.glob("trajectories/*/checkpoint-*.bin")
    assert rates.sizes.checkpoint == pytest.approx(checkpoint.stat().st_size, rel=0.15)
    points = [path.stat().st_size for path in job.results.glob("points/*.json")]
    rungs = [path.stat().st_size for path in job.results.glob("trajectories/*/rung-*")]
    assert rates.sizes.rung == pytest.approx(max(points) + max(rungs), rel=0.5)
