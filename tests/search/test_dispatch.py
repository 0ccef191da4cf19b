"""Which trials have to run: what is missing, plain prompt tuning first, shared work once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence

import pytest
from search_toys import VALIDATION, with_rungs
from trial_toys import Bench, bench

from mpt.config import DownstreamConfig, UpstreamConfig
from mpt.search.dispatch import TrialGroup, flat_config, open_groups
from mpt.search.job import SearchJob
from mpt.search.leaderboard import Leaderboard
from mpt.study.specs import (
    FineTuningConfig,
    TrialSpec,
    UpstreamSpec,
    ZeroShotConfig,
    baseline_trials,
)
from mpt.study.study import OpenStudy

DOWN = DownstreamConfig(lrs=(1e-2, 1e-3), batch_size=2, steps=3, eval_every=2, max_generated=3)


@pytest.fixture
def one(job: SearchJob, study: OpenStudy) -> Iterator[Bench]:
    with bench(job, study) as found:
        yield found


def groups_of(found: Bench, *trials: TrialSpec, **changes: object) -> list[TrialGroup]:
    opened = {study.plan: study for study in found.studies}
    job = dataclasses.replace(found.job, **changes)
    job = dataclasses.replace(job, trials=trials or job.trials)
    board = Leaderboard(job, opened.__getitem__, found.database)
    return open_groups(board, opened.__getitem__, found.database)


def tasks(groups: Sequence[TrialGroup]) -> list[tuple[str, ...]]:
    """Return which groups are of plain prompt tuning, by their tasks; () is a listed trial."""
    return [group.specs[0].tasks if not group.indices else () for group in groups]


def twin_of(study: OpenStudy, *scored: str, partition: str = "another") -> OpenStudy:
    config = dataclasses.replace(study.config, partition=partition)
    plan = dataclasses.replace(study.plan, config=config, scored=scored)
    return dataclasses.replace(study, plan=plan, scored={n: study.scored[n] for n in scored})


def test_plain_prompt_tuning_comes_first_by_task_then_the_trials_in_their_order(
    one: Bench,
) -> None:
    groups = groups_of(one)
    assert tasks(groups) == [("v-one",), ("v_two",), (), ()]
    assert [group.indices for group in groups[2:]] == [(0,), (1,)]
    assert [group.specs for group in groups[2:]] == [(trial,) for trial in one.job.trials]
    assert groups[0].name == "prompt_tuning-random_to_random-v-one"
    assert groups[2].name == one.job.trials[0].name


def test_what_is_stored_is_not_started(one: Bench) -> None:
    one.run(0)
    (first, second) = baseline_trials(one.job.plans[0])
    list(one.trial_of(first).units())
    assert tasks(groups_of(one)) == [("v_two",), ()]
    assert groups_of(one)[1].indices == (1,)
    list(one.trial_of(second).units())
    one.run(1)
    assert groups_of(one) == []
    more = with_rungs(one.job, (2, 4, 6, 8)).trials
    assert [group.indices for group in groups_of(one, *more)] == [(0,), (1,)]


def test_a_baseline_whose_runs_are_all_there_is_made_whole_without_a_trial(
    one: Bench, study: OpenStudy
) -> None:
    """Another study has them: the point of this one is stored in passing."""
    one.run_baseline()
    twin = twin_of(study, *VALIDATION)
    with bench(one.job, study, twin) as found:
        trial = dataclasses.replace(one.job.trials[0], plan=twin.plan)
        groups = groups_of(found, trial)
        assert [group.indices for group in groups] == [(0,)]
        methods = [point.method for point in found.database.points()]
        assert methods == 2 * ["prompt_tuning"]


def test_what_was_stopped_is_not_started_again_unless_nobody_stops(one: Bench) -> None:
    one.run_baseline()
    board = Leaderboard(
        dataclasses.replace(one.job, racing=True), lambda _: one.studies[0], one.database
    )
    board.stop(0, 2, "racing", "because")
    board.stop(1, 4, "racing", "on the way to a later rung")
    # the second is stopped behind its first rung, which is missing
    assert [group.indices for group in groups_of(one, racing=True)] == [(1,)]
    assert [group.indices for group in groups_of(one)] == [(0,), (1,)]


def test_studies_with_one_trajectory_share_a_trial_and_those_with_the_same_runs_too(
    job: SearchJob, study: OpenStudy
) -> None:
    twin = twin_of(study, VALIDATION[0])
    first, second = job.trials
    there = dataclasses.replace(first, plan=twin.plan)
    with bench(job, study, twin) as found:
        groups = groups_of(found, first, second, there)
        assert tasks(groups) == [("v-one",), ("v_two",), (), ()]
        assert [len(group.specs) for group in groups] == [2, 1, 2, 1]
        assert [group.indices for group in groups[2:]] == [(0, 2), (1,)]
        assert groups[0].name.endswith("-v-one+1")
        assert groups[2].name == f"{first.name}+1"
        found.run(0)
        assert [group.indices for group in groups_of(found, first, second, there)[2:]] == [
            (1,),
            (2,),
        ]


def test_another_seed_or_another_source_is_another_trajectory(
    job: SearchJob, study: OpenStudy
) -> None:
    first = job.trials[0]
    config = dataclasses.replace(study.config, train_seed=7)
    seeded = dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))
    fewer = dataclasses.replace(
        study,
        plan=dataclasses.replace(study.plan, source=study.plan.source[:2], source_set="two"),
        items=study.items[:4],
    )
    with bench(job, study, seeded, fewer) as found:
        specs = [dataclasses.replace(first, plan=s.plan) for s in found.studies]
        groups = [group for group in groups_of(found, *specs) if group.indices]
        assert [group.indices for group in groups] == [(0,), (1,), (2,)]


def test_fine_tuning_is_cut_by_task_and_shared_by_the_studies_that_score_it(
    job: SearchJob, study: OpenStudy
) -> None:
    upstream = UpstreamSpec(config=FineTuningConfig(downstream=DOWN))
    twin = twin_of(study, VALIDATION[1])
    specs = [TrialSpec(plan=one.plan, upstream=upstream) for one in (study, twin)]
    with bench(job, study, twin) as found:
        groups = [group for group in groups_of(found, *specs) if group.indices]
        assert [(group.specs[0].tasks, group.indices) for group in groups] == [
            (("v-one",), (0,)),
            (("v_two",), (0, 1)),
        ]
        assert {spec.upstream for group in groups for spec in group.specs} == {upstream}


def test_zero_shot_is_cut_by_task_and_shared_where_it_is_evaluated_alike(
    job: SearchJob, study: OpenStudy
) -> None:
    upstream = UpstreamSpec(config=ZeroShotConfig())
    down = dataclasses.replace(study.config.downstream, max_generated=2)
    config = dataclasses.replace(study.config, downstream=down, partition="third")
    shorter = dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))
    twin = twin_of(study, VALIDATION[1])
    with bench(job, study, twin, shorter) as found:
        specs = [TrialSpec(plan=one.plan, upstream=upstream) for one in found.studies]
        groups = [group for group in groups_of(found, *specs) if group.indices]
        assert [(group.specs[0].tasks, group.indices) for group in groups] == [
            (("v-one",), (0,)),
            (("v_two",), (0, 1)),
            (("v-one",), (2,)),
            (("v_two",), (2,)),
        ]


def test_a_configuration_is_flat_and_of_numbers_and_names(one: Bench) -> None:
    config = UpstreamConfig(inner_lr=0.1, outer_lr=0.3)
    spec = TrialSpec(plan=one.job.plans[0], upstream=UpstreamSpec(config=config, rungs=(2,)))
    flat = flat_config(TrialGroup(specs=(spec,), indices=(0,)), 7)
    assert json.loads(json.dumps(flat)) == flat
    assert {type(value) for value in flat.values()} <= {int, float, bool, str}
    assert (flat["trial"], flat["method"], flat["inner_lr"], flat["outer_lr"]) == (
        7,
        "maml",
        0.1,
        0.3,
    )
    assert (flat["partition"], flat["train_seed"]) == ("random_to_random", 42)
    assert "task" not in flat
    (first, _) = baseline_trials(one.job.plans[0])
    assert flat_config(TrialGroup(specs=(first,), indices=()), 0)["task"] == "v-one"
