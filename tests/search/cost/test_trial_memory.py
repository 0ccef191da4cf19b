"""What a plan counts as a trial's memory, against the backbones' own estimates."""

from __future__ import annotations

import dataclasses

import pytest

from mpt.backbones.memory import estimate
from mpt.config import DownstreamConfig, PromptConfig, StudyConfig, TextConfig, UpstreamConfig
from mpt.search.cost.trial_memory import largest_trials, trial_memory
from mpt.study.specs import FineTuningConfig, TrialSpec, UpstreamSpec
from mpt.study.study import StudyPlan

BASE = "google/t5-base-lm-adapt"


def _trial(
    method: str = "maml", backbone: str = BASE, precision: str = "bfloat16", **changes: object
) -> TrialSpec:
    config = StudyConfig(
        backbone=backbone,
        precision=precision,
        prompt=PromptConfig(length=100),
        text=TextConfig(max_input=512, max_target=64),
    )
    plan = StudyPlan(config=config, source=("s",), scored=("t",), partial=None)
    settings = dataclasses.replace(UpstreamConfig(method=method), **changes)  # type: ignore[arg-type]
    return TrialSpec(plan=plan, upstream=UpstreamSpec(config=settings, rungs=(10,)))


def _tuned(backbone: str | None = None, precision: str = "float32") -> TrialSpec:
    trial = _trial(precision=precision)
    config = FineTuningConfig(downstream=DownstreamConfig(batch_size=8), backbone=backbone)
    return dataclasses.replace(trial, upstream=UpstreamSpec(config=config))


def test_a_trial_holds_its_weights_and_its_largest_pass() -> None:
    found = trial_memory(_trial("fomaml", batch_size=16), on_gpu=True)
    alone = estimate(BASE, rows=16)
    assert found.weights == alone.weights
    assert found.peak == alone.fused
    assert found.where == "an upstream pass, 16 rows"
    # with a small upstream batch the pass of prompt tuning is the largest
    small = trial_memory(_trial("fomaml", batch_size=2), on_gpu=True)
    assert small.peak == estimate(BASE, rows=8).fused
    assert "prompt tuning, 8 rows" in str(small)


def test_episodes_that_share_passes_count_with_all_their_rows() -> None:
    shared = trial_memory(
        _trial("fomaml", batch_size=4, items_per_step=8, items_per_pass=4), on_gpu=True
    )
    assert shared.peak == estimate(BASE, rows=16).fused
    assert shared.where == "an upstream pass, 16 rows"
    # no more episodes than a step has can share
    few = trial_memory(
        _trial("fomaml", batch_size=8, items_per_step=2, items_per_pass=9), on_gpu=True
    )
    assert few.peak == shared.peak


def test_an_unrolled_second_order_counts_its_graphs_and_a_lean_one_does_not() -> None:
    lean = trial_memory(_trial("maml", batch_size=16), on_gpu=True)
    assert lean.peak == estimate(BASE, rows=16).fused
    unrolled = trial_memory(_trial("maml", batch_size=16, second_order="unrolled"), on_gpu=True)
    alone = estimate(BASE, rows=16)
    graphs = unrolled.peak - alone.weights
    assert graphs == pytest.approx(3.1 * (alone.activations + alone.attention), rel=1e-6)
    deeper = trial_memory(
        _trial("maml", batch_size=16, second_order="unrolled", inner_steps=2), on_gpu=True
    )
    assert deeper.peak - alone.weights == pytest.approx(graphs * 5.2 / 3.1, rel=1e-6)
    # the embedded model is small enough for "auto" to unroll
    auto = trial_memory(_trial(backbone="embedded", precision="float32"), on_gpu=True)
    first_order = trial_memory(
        _trial("fomaml", backbone="embedded", precision="float32"), on_gpu=True
    )
    assert auto.peak > 0
    assert first_order.peak <= auto.peak


def test_fine_tuning_holds_three_sets_of_weights_and_a_fourth_of_other_ones() -> None:
    weights = estimate(BASE, rows=1).weights  # two bytes each
    one = trial_memory(_tuned(), on_gpu=True)
    assert one.weights == pytest.approx(3 * 2 * weights, rel=0.01)
    half = trial_memory(_tuned(precision="bfloat16"), on_gpu=True)
    assert half.weights == pytest.approx(3 * 2 * weights + weights, rel=0.01)
    other = trial_memory(_tuned(backbone="google/t5-large-lm-adapt"), on_gpu=True)
    large = estimate("google/t5-large-lm-adapt", rows=1).weights
    assert other.weights == pytest.approx(3 * 2 * large + 2 * weights, rel=0.01)


def test_the_largest_trial_of_every_backbone_is_told() -> None:
    trials = [_trial("fomaml"), _tuned(), _trial("fomaml", backbone="facebook/bart-large")]
    found = largest_trials(trials, on_gpu=True)
    assert [entry.name for entry in found] == [
        f"{BASE}, fine_tuning",
        "facebook/bart-large, fomaml",
    ]


def test_t5_xl_fits_a_gpu_of_80_gb_with_maml_and_with_fine_tuning() -> None:
    xl = "google/t5-xl-lm-adapt"
    assert trial_memory(_trial(backbone=xl), on_gpu=True).peak < 0.9 * 80e9
    tuned = _tuned()
    config = dataclasses.replace(tuned.plan.config, backbone=xl)
    tuned = dataclasses.replace(tuned, plan=dataclasses.replace(tuned.plan, config=config))
    found = trial_memory(tuned, on_gpu=True)
    assert found.weights > 34e9  # three sets of 2.85 G numbers of four bytes
    assert found.peak < 0.95 * 80e9
