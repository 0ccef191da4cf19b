"""What a plan tells of time, price and disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from mpt.config import StudyConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.search.cost.gpu_share import GIB
from mpt.search.cost.plan import Rates, RemainingWork, RunRate, RunWork, Sizes, TrialWork
from mpt.search.cost.planner import Planning, cluster_slots, plan_lines, seconds_in_all
from mpt.search.cost.trial_memory import TrialMemory
from mpt.search.job import SearchJob
from mpt.study.specs import TrialSpec, UpstreamSpec
from mpt.study.study import StudyPlan

RATES = Rates(
    steps={"s": 3.6},
    runs={"l": RunRate(step_s=1.0, row_s=0.5)},
    start_s=10.0,
    sizes=Sizes(run=2**20, rung=2**20, checkpoint=2**20, queue=2**20),
)


def _trial() -> TrialSpec:
    plan = StudyPlan(config=StudyConfig(), source=("s",), scored=("t",), partial=None)
    return TrialSpec(plan=plan, upstream=UpstreamSpec(config=UpstreamConfig(), rungs=(10,)))


def _lines(
    work: RemainingWork,
    tmp_path: Path,
    *,
    gpus: float = 0.0,
    planning: Planning | None = None,
    memory: Sequence[TrialMemory] = (),
    measured: tuple[int, int] | None = None,
    further: Sequence[RemainingWork] = (),
) -> str:
    """Return the plan as one text; `measured` are a trial's bytes on a GPU, and the GPU's."""
    job = SearchJob(trials=(_trial(), _trial()), results=tmp_path, title="toy")
    rates = RATES
    if measured is not None:
        rates = dataclasses.replace(rates, gpu_need=measured[0], gpu_bytes=measured[1])
    told = planning or Planning()
    lines = plan_lines(
        job, work, rates, 2, gpus_per_trial=gpus, planning=told, memory=memory, further=further
    )
    return "\n".join(lines)


@pytest.fixture
def work() -> RemainingWork:
    """Per trial 1000 steps of 3.6 s and 100 runs of 36 s; no baseline: 2 × 7200 s of work."""
    runs = RunWork(kind="l", runs=100, steps=2600, rows=2000)
    trial = TrialWork(kind="s", steps=1000, runs=runs, points=3)
    return RemainingWork(
        trials=(trial, trial),
        points=6,
        points_there=0,
        runs=200,
        runs_there=0,
        shared=0,
        shared_there=0,
    )


def test_hours_price_disk_and_time_follow_from_the_work(
    work: RemainingWork, tmp_path: Path
) -> None:
    text = _lines(work, tmp_path)
    assert "upstream   2000 steps left in 2 trajectories" in text
    assert "2000 steps, 3.6 s each: s" in text
    assert "200 left of 200 (0 of them shared baselines, counted once), 5200 steps" in text
    assert "200 runs, 36 s each: l" in text
    assert "work       4 CPU-hours, 2 of them upstream" in text
    assert "\nprice" not in text
    # 200 runs, 6 points, 2 × 2 checkpoints, 2 × 2 queues
    assert "disk       214.0 MiB" in text
    assert "estimate   2.0 h on 2 workers" in text
    assert "further" not in text


def test_further_upstream_seeds_are_a_bound_beside_the_first(
    work: RemainingWork, tmp_path: Path
) -> None:
    """Two more rounds, of two trials and of one: 2 h and 2 h by the clock, 6 h of computing."""
    shared = RunWork(kind="l", runs=1000, steps=1000, rows=0)  # done with the first seed
    rounds = [
        dataclasses.replace(work, shared_left=(shared,)),
        dataclasses.replace(work, trials=work.trials[:1]),
    ]
    text = _lines(
        work, tmp_path, gpus=1, planning=Planning(price=3, gpus=1), further=rounds
    ).split("further    ")[1]
    assert text.splitlines() == [
        "at most 9 points with more upstream seeds; the scores decide",
        "           3000 steps, 300 runs, 6 GPU-hours, 18.00 at 3 per GPU-hour",
        "           at most 6.0 h in all on 2 workers",
        "           at most 10.0 h in all on the cluster",
    ]


def test_workers_that_stay_start_once_for_all_rounds(work: RemainingWork) -> None:
    """Three rounds of 7200 s, and 10 s for a start."""
    further = [work, work]
    assert seconds_in_all(work, further, RATES, 2, stay=True) == 10 + 3 * 7200
    assert seconds_in_all(work, further, RATES, 2, stay=False) == 3 * (10 + 7200)


def test_a_share_of_a_gpu_counts_as_that_share_of_an_hour(
    work: RemainingWork, tmp_path: Path
) -> None:
    text = _lines(work, tmp_path, gpus=0.25, planning=Planning(price=3.0))
    assert "work       1 GPU-hours, 0.5 of them upstream" in text
    assert "price      3.00 at 3 per GPU-hour" in text


def test_a_simulated_cluster_has_a_time_of_its_own(work: RemainingWork, tmp_path: Path) -> None:
    text = _lines(work, tmp_path, gpus=1.0, planning=Planning(gpus=1))
    # one trial at a time: 10 s + 2 × 7200 s
    assert "4.0 h on a cluster of 1 GPU (1 trial at once)" in text
    shared = _lines(work, tmp_path, gpus=0.5, planning=Planning(gpus=1))
    assert "2.0 h on a cluster of 1 GPU (2 trials at once)" in shared


def test_every_backbone_has_a_line_of_the_memory_of_its_largest_trial(
    work: RemainingWork, tmp_path: Path
) -> None:
    large = TrialMemory(name="xl, maml", peak=9 * GIB, weights=6 * GIB, where="an upstream pass")
    small = TrialMemory(name="base, maml", peak=GIB // 4, weights=GIB // 8, where="a pass")
    lines = _lines(work, tmp_path, memory=(large, small)).splitlines()
    assert [line for line in lines if line.startswith("memory")] == [
        "memory     9.00 GiB a trial (xl, maml): 6.00 of weights, peak in an upstream pass",
        "memory     0.25 GiB a trial (base, maml): 0.12 of weights, peak in a pass",
    ]
    assert "\nmemory" not in _lines(work, tmp_path)


def test_a_plan_says_which_share_of_a_gpu_holds_what_the_probe_measured(
    work: RemainingWork, tmp_path: Path
) -> None:
    # 3 GiB and 1 of its process, in nine tenths of 40 GiB: nine trials, 1/9 rounded down
    need = (3 * GIB, 40 * GIB)
    whole = _lines(work, tmp_path, gpus=1.0, measured=need)
    held = "sharing    a trial held 3.0 of 40.0 GiB in the probe: "
    assert f"{held}--gpus-per-trial 0.1111 lets 9 trials share a GPU" in whole
    tenth = _lines(work, tmp_path, gpus=0.1, measured=need)
    assert f"{held}with --gpus-per-trial 0.1 trials that share a GPU may run out" in tenth
    assert "sharing" not in _lines(work, tmp_path, gpus=0.1111, measured=need)
    assert "sharing" not in _lines(work, tmp_path, gpus=1.0)


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
