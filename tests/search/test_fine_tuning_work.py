"""Fine-tuning as a course: its leaves are its own, shared by settings, computed once."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from search_toys import SEEDS, VALIDATION, bits, computed
from toys import save_toy_t5

from mpt.config import DownstreamConfig
from mpt.downstream.fine_tuning import fine_tune, no_prompt
from mpt.downstream.record import TuningRun
from mpt.errors import UsageError
from mpt.records import LeafStore, PointStore
from mpt.search.job import Course, SearchJob
from mpt.storage import exclusive
from mpt.study.study import Study
from mpt.trial.course_work import course_work
from mpt.trial.fine_tuning import (
    FineTuning,
    FineTuningConfig,
    fine_tuning_packs,
    tuned_study,
)
from mpt.trial.objective import Pack, baseline_packs, score_point
from mpt.trial.trajectory import TrajectoryWork

OWN = DownstreamConfig(lrs=(1e-2, 1e-3), batch_size=2, steps=3, eval_every=2, max_generated=3)
LEAVES = len(VALIDATION) * len(SEEDS) * 2


def course_of(job: SearchJob, **changes: object) -> Course:
    config = FineTuningConfig(downstream=dataclasses.replace(OWN, **changes))  # type: ignore[arg-type]
    return Course(plan=job.plans[0], trajectory=FineTuning(config=config))


def run(study: Study, course: Course, results: Path) -> None:
    work = course_work(study, course, results)
    with work.hold():
        list(work.units())


def test_the_leaves_are_those_of_fine_tuning_alone_and_the_baseline_is_prompt_tuning(
    study: Study, job: SearchJob
) -> None:
    run(study, course_of(job), job.results)
    (point,) = PointStore(job.results).all()
    assert (point["method"], point["steps"], point["status"]) == ("fine_tuning", 0, "ok")
    assert point["cost"]["steps"] == 0
    store = LeafStore(job.results)
    score = score_point(point, store)
    assert (score.leaves, score.of) == (LEAVES, LEAVES)
    assert score.gain is not None
    baseline = {key for pack in baseline_packs(study) for key in (run.key for run in pack.runs)}
    named = {key for s in point["baseline"].values() for lrs in s.values() for _, key in lrs}
    assert named == baseline
    name, seed = VALIDATION[1], SEEDS[0]
    task = study.scored[name][seed]
    runs = [TuningRun(task, lr, no_prompt(study.backbone)) for lr in OWN.lrs]
    alone = fine_tune(study.backbone, runs, OWN, study.config.text, study.config.train_seed)
    for (lr, key), expected in zip(point["leaves"][name][str(seed)], alone, strict=True):
        leaf = store.get(key)
        assert leaf is not None
        assert leaf["result"]["test"] == expected.test  # the same run: the same bits
        assert leaf["result"]["curve"] == [list(entry) for entry in expected.curve]
        identity = leaf["identity"]
        assert (identity["tuned"], identity["init"], identity["lr"]) == ("weights", None, lr)
        assert "prompt" not in identity["recipe"]


def test_settings_that_score_the_same_tasks_share_leaves_but_not_points(
    study: Study, job: SearchJob
) -> None:
    course = course_of(job)
    run(study, course, job.results)
    before = computed(job.results)
    config = dataclasses.replace(study.config, partition="another")
    twin = dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))
    run(twin, dataclasses.replace(course, plan=twin.plan), job.results)
    assert computed(job.results) == before
    first, second = PointStore(job.results).all()
    assert {first["partition"], second["partition"]} == {"random_to_random", "another"}
    assert first["leaves"] == second["leaves"]


def test_two_workers_share_the_runs_and_compute_none_twice(
    study: Study, job: SearchJob, tmp_path: Path
) -> None:
    course = course_of(job)
    run(study, course, tmp_path / "alone")
    works = [course_work(study, course, job.results) for _ in range(2)]
    for _ in itertools.zip_longest(*(work.units() for work in works)):
        pass
    assert bits(job.results) == bits(tmp_path / "alone")
    assert len(computed(job.results)) == len(set(computed(job.results))) == 2 * LEAVES
    assert sum(work.progress.leaves for work in works) == 2 * LEAVES


@pytest.mark.parametrize("units", [1, 6, 11])
def test_a_course_left_after_any_unit_goes_on_where_it_was(
    study: Study, job: SearchJob, tmp_path: Path, units: int
) -> None:
    course = course_of(job)
    run(study, course, tmp_path / "alone")
    first = course_work(study, course, job.results)
    for _ in itertools.islice(first.units(), units):
        pass
    first.close()
    done = computed(job.results)
    run(study, course, job.results)
    assert bits(job.results) == bits(tmp_path / "alone")
    assert computed(job.results)[: len(done)] == done
    assert len(set(computed(job.results))) == len(computed(job.results))


def test_another_recipe_or_other_weights_have_other_leaves(
    study: Study, job: SearchJob, tmp_path: Path
) -> None:
    def keys(config: FineTuningConfig) -> set[str]:
        packs = fine_tuning_packs(tuned_study(study, config))
        return {run.key for pack in packs for run in pack.runs}

    plain = FineTuningConfig(downstream=OWN)
    others = [
        FineTuningConfig(downstream=dataclasses.replace(OWN, steps=4)),
        FineTuningConfig(downstream=dataclasses.replace(OWN, batch_size=3)),
        FineTuningConfig(downstream=OWN, backbone=str(save_toy_t5(tmp_path, seed=7))),
    ]
    trajectory_keys = {study.trajectory_key(config) for config in (plain, *others)}
    assert len(trajectory_keys) == 4
    for other in others:
        assert not keys(plain) & keys(other)
    same_study = {run.key for pack in baseline_packs(study) for run in pack.runs}
    assert not keys(plain) & same_study


def test_tuned_weights_are_float32_whatever_prompts_are_tuned_in(study: Study) -> None:
    config = dataclasses.replace(study.config, precision="bfloat16")
    half = dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))
    own = tuned_study(half, FineTuningConfig(downstream=OWN))
    assert own.config.precision == "float32"
    assert own.backbone.dtype == torch.float32
    assert own.backbone.digest == study.backbone.digest


def test_the_work_that_fits_a_course_is_chosen_by_its_trajectory(
    study: Study, job: SearchJob
) -> None:
    assert type(course_work(study, job.courses[0], job.results)) is TrajectoryWork
    assert course_of(job).name == "fine_tuning-2lrs-3steps-random_to_random"


def test_settings_that_fine_tuning_cannot_have_are_refused() -> None:
    with pytest.raises(UsageError, match=r"catch_up is 0.1, but must be None in fine-tuning"):
        FineTuningConfig(downstream=dataclasses.replace(OWN, catch_up=0.1))
    with pytest.raises(UsageError, match="method is 'maml', but must be 'fine_tuning'"):
        FineTuningConfig(downstream=OWN, method="maml")


def test_a_run_that_another_worker_has_in_hand_is_left_to_it(study: Study, job: SearchJob) -> None:
    course = course_of(job)
    list(course_work(study, job.courses[0], job.results).units())  # the baseline is there
    before = len(computed(job.results))
    first = fine_tuning_packs(tuned_study(study, FineTuningConfig(downstream=OWN)))[0].runs[0]
    with exclusive(job.results / "locks" / Pack(VALIDATION[0], (first,)).name):
        list(itertools.islice(course_work(study, course, job.results).units(), LEAVES - 1))
    assert len(computed(job.results)) == before + LEAVES - 1
    assert first.key not in computed(job.results)
