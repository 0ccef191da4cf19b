"""What learns nothing upstream: trials by task, shared by studies, computed once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from search_toys import SEEDS, VALIDATION, bits, with_rungs
from trial_toys import Bench, bench, through_a_folder

from mpt.config import DownstreamConfig
from mpt.downstream.evaluation import zero_shot
from mpt.downstream.fine_tuning import fine_tune, no_prompt
from mpt.downstream.record import TuningRun
from mpt.search.job import SearchJob
from mpt.store.records import point_key
from mpt.study.record import study_record
from mpt.study.specs import (
    FineTuningConfig,
    PromptTuningConfig,
    TrialSpec,
    UpstreamSpec,
    ZeroShotConfig,
    baseline_trials,
)
from mpt.study.study import OpenStudy
from mpt.trial.runs import baseline_packs, keys_of, owner_of, upstream_key, zero_shot_packs
from mpt.trial.task_trials import FineTuningTrial, PromptTuningTrial, ZeroShotTrial
from mpt.trial.upstream_trial import UpstreamTrial

OWN = DownstreamConfig(lrs=(1e-2, 1e-3), batch_size=2, steps=3, eval_every=2, max_generated=3)
TASK = len(SEEDS) * 2
"""Runs of a task: two learning rates."""
POINT = len(VALIDATION) * TASK


@pytest.fixture
def one(job: SearchJob, study: OpenStudy) -> Iterator[Bench]:
    with bench(with_rungs(job, (2,)), study) as found:
        yield found


def tuned(study: OpenStudy, *tasks: str, **changes: Any) -> TrialSpec:
    config = FineTuningConfig(downstream=dataclasses.replace(OWN, **changes))
    return TrialSpec(plan=study.plan, upstream=UpstreamSpec(config=config), tasks=tasks)


def bare(study: OpenStudy, *tasks: str) -> TrialSpec:
    upstream = UpstreamSpec(config=ZeroShotConfig())
    return TrialSpec(plan=study.plan, upstream=upstream, tasks=tasks)


def twin_of(study: OpenStudy, *tasks: str) -> OpenStudy:
    """Return a study of another partition that scores some of the same tasks."""
    config = dataclasses.replace(study.config, partition="another")
    plan = dataclasses.replace(study.plan, config=config, scored=tasks)
    scored = {name: study.scored[name] for name in tasks}
    return dataclasses.replace(study, plan=plan, scored=scored)


def test_the_trial_of_a_specification_is_chosen_by_its_method(
    one: Bench, study: OpenStudy
) -> None:
    assert type(one.trial(0)) is UpstreamTrial
    assert type(one.trial_of(baseline_trials(study.plan)[0])) is PromptTuningTrial
    assert type(one.trial_of(tuned(study))) is FineTuningTrial
    assert type(one.trial_of(bare(study))) is ZeroShotTrial


# --- plain prompt tuning -----------------------------------------------------------------------


def test_the_last_of_the_tasks_stores_the_point_of_the_baseline(
    one: Bench, study: OpenStudy
) -> None:
    first, second = (one.trial_of(spec) for spec in baseline_trials(study.plan))
    landed = [list(progress.landed) for progress in first.units()]
    assert set(map(tuple, landed)) == {()}
    assert one.database.points() == []
    last = [list(progress.landed) for progress in second.units()][-1]
    key = point_key(study_record(study).key, "", 0)
    assert last == [key]
    (point,) = one.database.points()
    assert (point.key, point.method, point.steps, point.prompt) == (key, "prompt_tuning", 0, None)
    assert set(point.runs) == set(keys_of(baseline_packs(study)))
    assert len(one.store.brought) == POINT


def test_a_task_taken_over_after_any_unit_has_the_same_bits(
    one: Bench, job: SearchJob, study: OpenStudy, tmp_path: Path
) -> None:
    one.run_baseline()
    expected = bits(job.results)
    spec, other = baseline_trials(study.plan)
    count = sum(1 for _ in bench_units(job, study, tmp_path / "count", spec))
    assert count >= 3
    for stop in range(count):
        with bench(job, study, results=tmp_path / str(stop)) as found:
            killed = found.trial_of(spec)
            for _ in range(stop):
                killed.unit()
            after = found.trial_of(spec)
            assert after.owner == killed.owner == owner_of(baseline_packs(study)[:1])
            after.load_state(through_a_folder(killed.state()))
            if stop % 2:
                killed.unit()  # the old process is not gone yet
            list(after.units())
            list(found.trial_of(other).units())
        assert bits(tmp_path / str(stop)) == expected


def bench_units(
    job: SearchJob, study: OpenStudy, results: Path, spec: TrialSpec
) -> Iterator[object]:
    with bench(job, study, results=results) as found:
        yield from found.trial_of(spec).units()


def test_a_task_of_two_studies_is_tuned_once_and_completes_both_points(
    job: SearchJob, study: OpenStudy
) -> None:
    twin = twin_of(study, VALIDATION[0])
    with bench(job, study, twin) as found:
        both = found.trial_of(baseline_trials(study.plan)[0], baseline_trials(twin.plan)[0])
        landed = [key for progress in both.units() for key in progress.landed]
        assert landed == [point_key(study_record(twin).key, "", 0)]
        list(found.trial_of(baseline_trials(study.plan)[1]).units())
        assert len(found.store.brought) == POINT
        points = {point.study: len(point.runs) for point in found.database.points()}
        assert points == {study_record(twin).key: TASK, study_record(study).key: POINT}


# --- fine-tuning -------------------------------------------------------------------------------


def test_fine_tuning_has_runs_of_its_own_and_prompt_tuning_as_its_baseline(
    one: Bench, study: OpenStudy
) -> None:
    list(one.trial_of(tuned(study)).units())
    (point,) = one.database.points()
    assert (point.method, point.steps, point.status) == ("fine_tuning", 0, "ok")
    assert (point.cost.steps, point.prompt) == (0, None)
    assert not one.store.scores([point.key])  # the baseline is not there
    one.run_baseline()
    score = one.store.scores([point.key])[point.key]
    assert score.runs == POINT
    assert not set(point.runs) & set(keys_of(baseline_packs(study)))


def test_a_run_of_fine_tuning_is_that_of_fine_tuning_alone(one: Bench, study: OpenStudy) -> None:
    list(one.trial_of(tuned(study)).units())
    name, seed = VALIDATION[1], SEEDS[0]
    runs = [TuningRun(study.scored[name][seed], lr, no_prompt(study.backbone)) for lr in OWN.lrs]
    alone = fine_tune(study.backbone, runs, OWN, study.config.text, study.config.train_seed)
    stored = {
        run.identity.lr: run
        for run in one.database.runs(one.store.brought).values()
        if (run.identity.task, run.identity.data_seed) == (name, seed)
    }
    for lr, expected in zip(OWN.lrs, alone, strict=True):
        run = stored[lr]
        assert run.test == expected.test  # the same run: the same bits
        assert run.curve == tuple(expected.curve)
        assert run.identity.tuned == "weights"
        assert run.identity.init is None
        assert "prompt" not in run.identity.recipe


@pytest.mark.parametrize("units", [1, 3, POINT - 1])
def test_fine_tuning_goes_on_at_the_run_where_it_ended(
    one: Bench, job: SearchJob, study: OpenStudy, tmp_path: Path, units: int
) -> None:
    list(one.trial_of(tuned(study)).units())
    with bench(job, study, results=tmp_path / "killed") as found:
        for _ in itertools.islice(found.trial_of(tuned(study)).units(), units):
            pass
        assert len(found.store.brought) == units  # a run a unit
        again = found.trial_of(tuned(study))
        again.load_state(through_a_folder(again.state()))
        list(again.units())
        assert again.progress.runs == POINT - units
        assert len(set(found.store.brought)) == len(found.store.brought) == POINT
    assert bits(tmp_path / "killed") == bits(job.results)


def test_fine_tuning_by_task_completes_one_point_whoever_comes_last(
    one: Bench, study: OpenStudy
) -> None:
    trials = [one.trial_of(tuned(study, task)) for task in VALIDATION]
    assert len({trial.owner for trial in trials}) == 2
    assert len({trial.key for trial in trials}) == 1
    for _ in itertools.zip_longest(*(trial.units() for trial in trials)):
        pass
    (point,) = one.database.points()
    assert len(point.runs) == POINT
    assert point.key in [key for trial in trials for key in trial.progress.landed]


def test_fine_tuning_on_a_task_serves_all_studies_that_score_it(
    job: SearchJob, study: OpenStudy
) -> None:
    twin = twin_of(study, VALIDATION[1])
    with bench(job, study, twin) as found:
        both = found.trial_of(*(tuned(one, VALIDATION[1]) for one in (study, twin)))
        list(both.units())
        list(found.trial_of(tuned(study, VALIDATION[0])).units())
        assert len(found.store.brought) == POINT
        points = {point.study: len(point.runs) for point in found.database.points()}
        assert points == {study_record(twin).key: TASK, study_record(study).key: POINT}


def test_what_is_stored_of_fine_tuning_is_not_done_again(one: Bench, study: OpenStudy) -> None:
    list(one.trial_of(tuned(study)).units())
    before = len(one.store.brought)
    again = one.trial_of(tuned(study))
    assert again.unit().done
    assert len(one.store.brought) == before
    longer = one.trial_of(tuned(study, lrs=(1e-2, 1e-3, 1e-4)))
    list(longer.units())
    assert len(one.store.brought) == before + POINT // 2  # one more rate
    settings = [point.settings["downstream"]["lrs"] for point in one.database.points()]
    assert sorted(map(len, settings)) == [2, 3]


def test_plain_prompt_tuning_has_no_settings_and_no_upstream_key(study: OpenStudy) -> None:
    spec = baseline_trials(study.plan)[0]
    assert spec.upstream.config == PromptTuningConfig()
    assert spec.upstream.rungs == (0,)


# --- zero-shot ---------------------------------------------------------------------------------

BARE = len(VALIDATION) * len(SEEDS)
"""Runs of a point of zero-shot: nothing is tuned, so there are no learning rates."""


def test_zero_shot_is_one_evaluation_a_data_seed_scored_against_prompt_tuning(
    one: Bench, study: OpenStudy
) -> None:
    list(one.trial_of(bare(study)).units())
    (point,) = one.database.points()
    assert (point.method, point.steps, point.status, point.prompt) == ("zero_shot", 0, "ok", None)
    one.run_baseline()
    score = one.store.scores([point.key])[point.key]
    assert score.runs == BARE
    assert score.gain is not None
    assert score.selected is not None
    stored = one.database.runs(point.runs)
    for run in stored.values():
        task = study.scored[run.identity.task][run.identity.data_seed]
        alone = zero_shot(study.backbone, task, study.config.downstream, study.config.text)
        assert (run.test, run.dev) == (alone.test, alone.dev)
        assert score.selected[task.name][task.seed] == alone.test
        assert (run.identity.tuned, run.identity.init, run.identity.lr) == ("nothing", None, 0.0)
        assert (run.cost.steps, run.cost.tokens, run.curve) == (0, 0, ((0, alone.dev, None),))


def test_zero_shot_goes_on_at_the_run_where_it_ended(
    one: Bench, job: SearchJob, study: OpenStudy, tmp_path: Path
) -> None:
    list(one.trial_of(bare(study)).units())
    with bench(job, study, results=tmp_path / "killed") as found:
        for _ in itertools.islice(found.trial_of(bare(study)).units(), 3):
            pass
        assert len(found.store.brought) == 3
        again = found.trial_of(bare(study))
        list(again.units())
        assert again.progress.runs == BARE - 3
        assert found.trial_of(bare(study)).unit().done
        assert len(found.store.brought) == BARE
    assert bits(tmp_path / "killed") == bits(job.results)


def test_zero_shot_on_a_task_serves_all_studies_that_score_it(
    job: SearchJob, study: OpenStudy
) -> None:
    twin = twin_of(study, VALIDATION[1])
    with bench(job, study, twin) as found:
        list(found.trial_of(*(bare(one, VALIDATION[1]) for one in (study, twin))).units())
        list(found.trial_of(bare(study, VALIDATION[0])).units())
        assert len(found.store.brought) == BARE
        points = {point.study: len(point.runs) for point in found.database.points()}
        assert points == {study_record(twin).key: len(SEEDS), study_record(study).key: BARE}


def test_a_run_of_zero_shot_is_known_by_how_it_is_evaluated_alone(study: OpenStudy) -> None:
    def keys(**changes: Any) -> set[str]:
        down = dataclasses.replace(study.config.downstream, **changes)
        return set(keys_of(zero_shot_packs(_with(study, downstream=down))))

    plain = keys()
    assert len(plain) == BARE
    assert plain == keys(lrs=(0.1,), steps=7, batch_size=5, dropout=0.1, patience=3)
    longer = dataclasses.replace(study.config.prompt, length=study.config.prompt.length + 1)
    assert plain == set(keys_of(zero_shot_packs(_with(study, prompt=longer))))
    for changes in ({"max_test": 3}, {"max_generated": 2}, {"sample": "stratified"}, {"beams": 2}):
        assert not plain & keys(**changes)
    cut = dataclasses.replace(study.config.text, max_input=5)
    assert not plain & set(keys_of(zero_shot_packs(_with(study, text=cut))))
    # the point is no other method's, and that of another study with the same evaluation
    key = upstream_key(study, ZeroShotConfig())
    assert key not in ("", upstream_key(study, FineTuningConfig(downstream=OWN)))


def _with(study: OpenStudy, **changes: Any) -> OpenStudy:
    config = dataclasses.replace(study.config, **changes)
    return dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))
