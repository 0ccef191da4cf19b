"""What a plan tells, and what it counts as a trial's memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mpt.backbones.memory import estimate
from mpt.config import DownstreamConfig, PromptConfig, StudyConfig, TextConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.search.cost.plan import CourseLoad, LeafLoad, LeafRate, Load, Rates, Sizes
from mpt.search.cost.planner import Planning, cluster_slots, plan_lines
from mpt.search.cost.trial_memory import largest_trials, trial_memory
from mpt.search.job import Course, SearchJob
from mpt.study.spaces import Trajectory
from mpt.study.study import StudyPlan
from mpt.trial.fine_tuning import FineTuning, FineTuningConfig

LARGE = "google/t5-large-lm-adapt"


def _course(
    method: str = "maml", backbone: str = LARGE, precision: str = "bfloat16", **changes: object
) -> Course:
    config = StudyConfig(
        backbone=backbone,
        precision=precision,
        prompt=PromptConfig(length=100),
        text=TextConfig(max_input=512, max_target=64),
    )
    plan = StudyPlan(config=config, source=("s",), scored=("t",), partial=None)
    settings = dataclasses.replace(UpstreamConfig(method=method), **changes)  # type: ignore[arg-type]
    return Course(plan=plan, trajectory=Trajectory(config=settings, rungs=(10,)))


def _tuned(backbone: str | None = None, precision: str = "float32") -> Course:
    course = _course(precision=precision)
    config = FineTuningConfig(downstream=DownstreamConfig(batch_size=8), backbone=backbone)
    return dataclasses.replace(course, trajectory=FineTuning(config=config))


def _lines(
    load: Load, tmp_path: Path, *, gpus: float = 0.0, planning: Planning | None = None
) -> str:
    job = SearchJob(courses=(_course(), _course()), results=tmp_path, title="toy")
    rates = Rates(
        steps={"s": 3.6},
        leaves={"l": LeafRate(step_s=1.0, row_s=0.5)},
        start_s=10.0,
        sizes=Sizes(leaf=2**20, rung=2**20, checkpoint=2**20, queue=2**20),
    )
    lines = plan_lines(job, load, rates, 2, gpus_per_trial=gpus, planning=planning or Planning())
    return "\n".join(lines)


@pytest.fixture
def load() -> Load:
    """Per course 1000 steps of 3.6 s and 100 leaves of 36 s; no baseline: 2 × 7200 s of work."""
    leaves = LeafLoad(kind="l", runs=100, steps=2600, rows=2000)
    course = CourseLoad(kind="s", steps=1000, leaves=leaves, points=3)
    return Load(
        courses=(course, course),
        points=6,
        points_there=0,
        leaves=200,
        leaves_there=0,
        shared=0,
        shared_there=0,
    )


def test_hours_price_disk_and_time_follow_from_the_load(load: Load, tmp_path: Path) -> None:
    text = _lines(load, tmp_path)
    assert "upstream   2000 steps left in 2 trajectories" in text
    assert "2000 steps, 3.6 s each: s" in text
    assert "200 left of 200 (0 of them shared baselines, counted once), 5200 steps" in text
    assert "200 leaves, 36 s each: l" in text
    assert "work       4 CPU-hours, 2 of them upstream" in text
    assert "\nprice" not in text
    # 200 leaves, 6 points, 2 × 2 checkpoints, 2 × 2 queues
    assert "disk       214.0 MiB" in text
    assert "estimate   2.0 h on 2 workers" in text


def test_a_share_of_a_gpu_counts_as_that_share_of_an_hour(load: Load, tmp_path: Path) -> None:
    text = _lines(load, tmp_path, gpus=0.25, planning=Planning(price=3.0))
    assert "work       1 GPU-hours, 0.5 of them upstream" in text
    assert "price      3.00 at 3 per GPU-hour" in text


def test_a_simulated_cluster_has_a_time_of_its_own(load: Load, tmp_path: Path) -> None:
    text = _lines(load, tmp_path, gpus=1.0, planning=Planning(gpus=1))
    # one trial at a time: 10 s + 2 × 7200 s
    assert "4.0 h on a cluster of 1 GPUs (1 trials at once)" in text
    shared = _lines(load, tmp_path, gpus=0.5, planning=Planning(gpus=1))
    assert "2.0 h on a cluster of 1 GPUs (2 trials at once)" in shared


@pytest.mark.parametrize(
    ("gpus", "each", "slots"),
    [(8, 0.0, 8), (8, 1.0, 8), (8, 0.25, 32), (8, 0.3, 24), (8, 2.0, 4), (3, 2.0, 1)],
)
def test_as_many_trials_run_as_fit_whole(gpus: int, each: float, slots: int) -> None:
    assert cluster_slots(gpus, each) == slots


def test_a_cluster_too_small_for_one_trial_and_a_negative_price_are_refused() -> None:
    with pytest.raises(UsageError, match="--plan-gpus is 1, but a trial needs 2 GPUs"):
        cluster_slots(1, 2.0)
    with pytest.raises(UsageError, match="--price is -1, but must be ≥ 0"):
        Planning(price=-1.0)


# --- memory ---


def test_a_trial_holds_its_weights_and_its_largest_pass() -> None:
    found = trial_memory(_course("fomaml", batch_size=16), on_gpu=True)
    alone = estimate(LARGE, rows=16)
    assert found.weights == alone.weights
    assert found.peak == alone.fused
    assert found.where == "an upstream pass, 16 rows"
    # with a small upstream batch the pass of prompt tuning is the largest
    small = trial_memory(_course("fomaml", batch_size=2), on_gpu=True)
    assert small.peak == estimate(LARGE, rows=8).fused
    assert "prompt tuning, 8 rows" in str(small)


def test_an_unrolled_second_order_counts_its_graphs_and_a_lean_one_does_not() -> None:
    lean = trial_memory(_course("maml", batch_size=16), on_gpu=True)
    assert lean.peak == estimate(LARGE, rows=16).fused
    unrolled = trial_memory(_course("maml", batch_size=16, second_order="unrolled"), on_gpu=True)
    alone = estimate(LARGE, rows=16)
    graphs = unrolled.peak - alone.weights
    assert graphs == pytest.approx(3.1 * (alone.activations + alone.attention), rel=1e-6)
    deeper = trial_memory(
        _course("maml", batch_size=16, second_order="unrolled", inner_steps=2), on_gpu=True
    )
    assert deeper.peak - alone.weights == pytest.approx(graphs * 5.2 / 3.1, rel=1e-6)
    # the embedded model is small enough for "auto" to unroll
    auto = trial_memory(_course(backbone="embedded", precision="float32"), on_gpu=True)
    first_order = trial_memory(
        _course("fomaml", backbone="embedded", precision="float32"), on_gpu=True
    )
    assert auto.peak > 0
    assert first_order.peak <= auto.peak


def test_fine_tuning_holds_three_sets_of_weights_and_a_fourth_of_other_ones() -> None:
    weights = estimate(LARGE, rows=1).weights  # two bytes each
    one = trial_memory(_tuned(), on_gpu=True)
    assert one.weights == pytest.approx(3 * 2 * weights, rel=0.01)
    half = trial_memory(_tuned(precision="bfloat16"), on_gpu=True)
    assert half.weights == pytest.approx(3 * 2 * weights + weights, rel=0.01)
    other = trial_memory(_tuned(backbone="google/t5-base-lm-adapt"), on_gpu=True)
    base = estimate("google/t5-base-lm-adapt", rows=1).weights
    assert other.weights == pytest.approx(3 * 2 * base + 2 * weights, rel=0.01)


def test_the_largest_trial_of_every_backbone_is_told() -> None:
    courses = [_course("fomaml"), _tuned(), _course("fomaml", backbone="facebook/bart-large")]
    found = largest_trials(courses, on_gpu=True)
    assert [entry.name for entry in found] == [
        f"{LARGE}, fine_tuning",
        "facebook/bart-large, fomaml",
    ]


def test_t5_xl_fits_a_gpu_of_80_gb_with_maml_and_with_fine_tuning() -> None:
    xl = "google/t5-xl-lm-adapt"
    assert trial_memory(_course(backbone=xl), on_gpu=True).peak < 0.9 * 80e9
    tuned = _tuned()
    config = dataclasses.replace(tuned.plan.config, backbone=xl)
    tuned = dataclasses.replace(tuned, plan=dataclasses.replace(tuned.plan, config=config))
    found = trial_memory(tuned, on_gpu=True)
    assert found.weights > 34e9  # three sets of 2.85 G numbers of four bytes
    assert found.peak < 0.95 * 80e9
