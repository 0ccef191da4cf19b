"""What the runs of a point are before they are done, and which of them are the same run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from search_toys import SEEDS, VALIDATION, toy_job
from toys import save_toy_t5

from mpt.config import DownstreamConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.search.job import SearchJob
from mpt.store.records import point_key
from mpt.study.record import study_record
from mpt.study.specs import FineTuningConfig, PromptTuningConfig, TrialSpec, UpstreamSpec
from mpt.study.study import OpenStudy
from mpt.trial.runs import (
    RunPack,
    baseline_packs,
    fine_tuning_packs,
    keys_of,
    learned_packs,
    spread,
    tuned_study,
    upstream_key,
)

OWN = DownstreamConfig(lrs=(1e-2, 1e-3), batch_size=2, steps=3, eval_every=2, max_generated=3)


def start_of(study: OpenStudy) -> torch.Tensor:
    return torch.linspace(-1, 1, 3 * study.backbone.d_model).reshape(3, -1)


def changed(study: OpenStudy, **changes: Any) -> OpenStudy:
    """Return a study with other settings and the same model and data."""
    config = dataclasses.replace(study.config, **changes)
    return dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))


# --- packs -----------------------------------------------------------------------------------


def test_a_pack_holds_every_data_seed_and_learning_rate_of_a_task(study: OpenStudy) -> None:
    packs = learned_packs(study, start_of(study))
    assert [pack.task for pack in packs] == list(study.plan.scored)
    for pack in packs:
        runs = [(run.task.seed, run.lr) for run in pack.runs]
        assert runs == [(seed, lr) for seed in SEEDS for lr in (0.5, 0.2)]
        assert {run.prompt.data_ptr() for run in pack.runs} == {packs[0].runs[0].prompt.data_ptr()}
        assert pack.of_seed(21).runs == pack.runs[2:]
        assert pack.missing({run.key for run in pack.runs[1:]}) == pack.runs[:1]
    assert len(set(keys_of(packs))) == len(VALIDATION) * len(SEEDS) * 2


def test_the_baseline_starts_anew_at_every_data_seed_and_alike_at_every_rate(
    study: OpenStudy,
) -> None:
    (pack, other) = baseline_packs(study)
    one, one_again, two, _ = (run.prompt for run in pack.runs)
    assert one.equal(one_again)
    assert not one.equal(two)
    assert not one.equal(other.runs[0].prompt)
    again = baseline_packs(study)[0].runs[0].prompt
    assert again.equal(one)  # drawn from the root seed, not from a global generator
    seeded = baseline_packs(changed(study, train_seed=7))[0].runs[0].prompt
    assert not seeded.equal(one)


def test_runs_are_spread_over_as_many_packs_as_there_are(study: OpenStudy) -> None:
    packs = baseline_packs(study)
    few = spread(packs, 3)
    assert [run.task.name for run in few] == ["v-one", "v_two", "v-one"]
    assert len(spread(packs, 100)) == 8
    assert spread([RunPack("a", packs[0].runs[:1]), packs[1]], 3)[-1] is packs[1].runs[1]


# --- keys ------------------------------------------------------------------------------------


def test_a_runs_identity_holds_all_that_can_change_its_number(study: OpenStudy) -> None:
    run = learned_packs(study, start_of(study))[0].runs[0]
    task, identity = study.scored["v-one"][13], run.identity
    assert identity.backbone == study.backbone.digest
    assert identity.data == task.digest
    assert (identity.task, identity.data_seed, identity.shots) == ("v-one", 13, 4)
    assert (identity.lr, identity.train_seed, identity.tuned) == (0.5, 42, "prompt")
    assert identity.recipe["downstream"]["steps"] == study.config.downstream.steps
    assert "lrs" not in identity.recipe["downstream"]  # another list, the same run
    assert identity.recipe["prompt"] == {"length": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"train_seed": 7},
        {"precision": "bfloat16"},
        {"downstream": {"steps": 5}},
        {"downstream": {"patience": 2}},
        {"text": {"max_input": 25}},
        {"prompt": {"length": 4}},
    ],
    ids=str,
)
def test_another_recipe_has_other_runs(study: OpenStudy, change: dict[str, Any]) -> None:
    parts = {
        name: dataclasses.replace(getattr(study.config, name), **part)
        if isinstance(part, dict)
        else part
        for name, part in change.items()
    }
    first = set(keys_of(learned_packs(study, start_of(study))))
    assert not first & set(keys_of(learned_packs(changed(study, **parts), start_of(study))))


def test_another_start_has_other_runs_and_another_list_of_rates_has_the_same(
    study: OpenStudy,
) -> None:
    first = keys_of(learned_packs(study, start_of(study)))
    assert not set(first) & set(keys_of(learned_packs(study, -start_of(study))))
    fewer = dataclasses.replace(study.config.downstream, lrs=(0.2,))
    part = keys_of(learned_packs(changed(study, downstream=fewer), start_of(study)))
    assert part == first[1::2]


def test_rates_that_race_each_other_are_named_together(study: OpenStudy) -> None:
    racing = dataclasses.replace(study.config.downstream, catch_up=0.5, catch_up_after=1)
    run = learned_packs(changed(study, downstream=racing), start_of(study))[0].runs[0]
    assert run.identity.recipe["downstream"]["lrs"] == [0.5, 0.2]


def test_rungs_targets_and_partition_leave_the_upstream_key_as_it_is(study: OpenStudy) -> None:
    config = UpstreamConfig(inner_lr=0.1, outer_lr=0.3)
    key = upstream_key(study, config)
    named = dataclasses.replace(study.plan, source_set="highest2", scored=VALIDATION[:1])
    assert upstream_key(dataclasses.replace(study, plan=named), config) == key
    down = dataclasses.replace(study.config.downstream, steps=9)
    assert upstream_key(changed(study, downstream=down), config) == key
    assert upstream_key(changed(study, train_seed=7), config) != key
    assert upstream_key(dataclasses.replace(study, items=study.items[:2]), config) != key
    assert upstream_key(study, PromptTuningConfig()) == ""


# --- studies and points ----------------------------------------------------------------------


@pytest.mark.parametrize("part", ["train_seed", "downstream", "text", "prompt", "data_seeds"])
def test_every_part_of_a_study_has_points_of_its_own(
    toy_checkpoint: Path, toy_gym: Path, study: OpenStudy, part: str
) -> None:
    config = study.config
    parts: dict[str, Any] = {
        "train_seed": 7,
        "downstream": dataclasses.replace(config.downstream, lrs=(0.5,)),
        "text": dataclasses.replace(config.text, max_input=25),
        "prompt": dataclasses.replace(config.prompt, length=4),
        "data_seeds": SEEDS[:1],
    }
    other = toy_job(toy_checkpoint, toy_gym, Path("unused"), **{part: parts[part]}).plans[0]
    moved = dataclasses.replace(study, plan=other)
    points = [point_key(study_record(one).key, "u", 5) for one in (study, moved)]
    assert points[0] != points[1]


def test_a_named_choice_of_sources_has_points_of_its_own(study: OpenStudy) -> None:
    """Two choices may come to the same tasks, and share everything but the point."""
    named = [
        dataclasses.replace(study, plan=dataclasses.replace(study.plan, source_set=name))
        for name in ("all", "highest2", "random2")
    ]
    assert len({upstream_key(one, UpstreamConfig()) for one in named}) == 1
    records = [study_record(one) for one in named]
    assert len({point_key(record.key, "u", 5) for record in records}) == 3
    assert [record.source_set for record in records] == ["all", "highest2", "random2"]
    assert {name for name, _, _ in records[1].source} == set(study.plan.source)


def test_a_smoke_run_and_a_partial_one_are_studies_of_their_own(study: OpenStudy) -> None:
    plans = [
        dataclasses.replace(study.plan, **one)
        for one in ({}, {"smoke": True}, {"partial": "partial: 1 of 3 source tasks missing"})
    ]
    keys = {study_record(dataclasses.replace(study, plan=plan)).key for plan in plans}
    assert len(keys) == 3


# --- fine-tuning -----------------------------------------------------------------------------


def test_another_recipe_or_other_weights_have_other_runs_of_fine_tuning(
    study: OpenStudy, tmp_path: Path
) -> None:
    def keys(config: FineTuningConfig) -> set[str]:
        return set(keys_of(fine_tuning_packs(tuned_study(study, config))))

    plain = FineTuningConfig(downstream=OWN)
    others = [
        FineTuningConfig(downstream=dataclasses.replace(OWN, steps=4)),
        FineTuningConfig(downstream=dataclasses.replace(OWN, batch_size=3)),
        FineTuningConfig(downstream=OWN, backbone=str(save_toy_t5(tmp_path, seed=7))),
    ]
    assert len({upstream_key(study, config) for config in (plain, *others)}) == 4
    for other in others:
        assert not keys(plain) & keys(other)
    assert not keys(plain) & set(keys_of(baseline_packs(study)))


def test_tuned_weights_are_float32_whatever_prompts_are_tuned_in(study: OpenStudy) -> None:
    half = changed(study, precision="bfloat16")
    own = tuned_study(half, FineTuningConfig(downstream=OWN))
    assert own.config.precision == "float32"
    assert own.backbone.dtype == torch.float32
    assert own.backbone.digest == study.backbone.digest


def test_settings_that_fine_tuning_cannot_have_are_refused() -> None:
    with pytest.raises(UsageError, match=r"catch_up is 0.1, but must be None in fine-tuning"):
        FineTuningConfig(downstream=dataclasses.replace(OWN, catch_up=0.1))
    with pytest.raises(UsageError, match="method is 'maml', but must be 'fine_tuning'"):
        FineTuningConfig(downstream=OWN, method="maml")


def test_trials_have_readable_names(job: SearchJob) -> None:
    plan = job.plans[0]
    tuned = TrialSpec(plan=plan, upstream=UpstreamSpec(config=FineTuningConfig(downstream=OWN)))
    assert tuned.name == "fine_tuning-2lrs-3steps-random_to_random"
    assert job.trials[0].name == "maml-inner0.1-outer0.3-k1-b2-random_to_random"
    plain = UpstreamSpec(config=PromptTuningConfig())
    part = TrialSpec(plan=plan, upstream=plain, tasks=("v-one",))
    assert part.name == "prompt_tuning-random_to_random-v-one"
