"""The arithmetic of a plan, in closed form."""

from __future__ import annotations

import dataclasses

import pytest

from mpt.search.cost.plan import (
    Rates,
    RemainingWork,
    RunRate,
    RunWork,
    Sizes,
    TrialWork,
    disk_bytes,
    estimate,
    makespan,
    work_seconds,
)


def _runs(runs: int, kind: str = "prompt") -> RunWork:
    """Runs of 10 s at `RATES`: 4 steps of 2 s and 20 rows of 0.1 s."""
    return RunWork(kind=kind, runs=runs, steps=4 * runs, rows=20 * runs)


def _work(*trials: tuple[int, int], shared: int = 0, kind: str = "maml") -> RemainingWork:
    return RemainingWork(
        trials=tuple(
            TrialWork(kind=kind, steps=steps, runs=_runs(runs), points=1) for steps, runs in trials
        ),
        points=1,
        points_there=0,
        runs=1,
        runs_there=0,
        shared=shared,
        shared_there=0,
        shared_left=(_runs(shared),),
    )


RATES = Rates(
    steps={"maml": 2.0, "reptile": 7.0},
    runs={"prompt": RunRate(step_s=2.0, row_s=0.1), "weights": RunRate(step_s=3.0, row_s=0.5)},
    start_s=5.0,
    sizes=Sizes(run=10, rung=1000, checkpoint=100_000, queue=10**7),
)


@pytest.mark.parametrize(
    ("jobs", "slots", "end"),
    [
        ([4.0, 3.0, 2.0], 1, 9.0),
        ([4.0, 3.0, 2.0], 2, 5.0),  # 4 | 3 + 2
        ([4.0, 3.0, 2.0], 9, 4.0),
        ([1.0, 1.0, 1.0, 6.0], 2, 7.0),  # in order: the long one starts second on its slot
        ([], 2, 0.0),
    ],
)
def test_makespan_is_that_of_jobs_started_in_order(
    jobs: list[float], slots: int, end: float
) -> None:
    assert makespan(jobs, slots) == end


def test_work_is_steps_and_runs_at_the_rates_of_their_kinds() -> None:
    assert work_seconds(_work((10, 3), (0, 1), shared=2), RATES) == ([50.0, 10.0], 20.0)
    assert work_seconds(_work((10, 0), kind="reptile"), RATES) == ([70.0], 0.0)
    weights = TrialWork(kind="none", steps=0, runs=_runs(2, "weights"), points=1)
    work = RemainingWork(
        trials=(weights,),
        points=1,
        points_there=0,
        runs=2,
        runs_there=0,
        shared=0,
        shared_there=0,
    )
    assert work_seconds(work, RATES) == ([2 * (4 * 3.0 + 20 * 0.5)], 0.0)


def test_a_kind_that_was_not_measured_counts_as_the_slowest() -> None:
    assert RATES.step_seconds("fomaml") == 7.0
    assert RATES.run_rate("other") == RunRate(step_s=3.0, row_s=0.5)


def test_rates_of_two_probes_are_put_together() -> None:
    more = Rates(
        steps={"maml": 9.0, "fomaml": 1.0},
        runs={},
        start_s=6.0,
        sizes=Sizes(run=7, queue=10**8),
    )
    both = RATES.with_more(more)
    assert both.steps == {"maml": 2.0, "reptile": 7.0, "fomaml": 1.0}
    assert both.runs == RATES.runs
    assert both.start_s == 6.0
    assert both.sizes == Sizes(run=10, rung=1000, checkpoint=100_000, queue=10**8)


@pytest.mark.parametrize("first", ["on the GPU", "on none"])
def test_the_memory_of_a_gpu_is_kept_whichever_probe_measured_it(first: str) -> None:
    measured = dataclasses.replace(RATES, gpu_need=3, gpu_bytes=80)
    both = measured.with_more(RATES) if first == "on the GPU" else RATES.with_more(measured)
    assert (both.gpu_need, both.gpu_bytes) == (3, 80)
    # a share of a GPU must hold the largest trial, on the smallest GPU
    other = dataclasses.replace(RATES, gpu_need=2, gpu_bytes=24)
    for pair in ((measured, other), (other, measured)):
        found = pair[0].with_more(pair[1])
        assert (found.gpu_need, found.gpu_bytes) == (3, 24)
    neither = RATES.with_more(RATES)
    assert (neither.gpu_need, neither.gpu_bytes) == (None, None)


def test_an_estimate_counts_start_shared_work_and_the_trajectories() -> None:
    # one worker: 5 s start + 20 s baseline + 50 s + 10 s
    assert estimate(_work((10, 3), (0, 1), shared=2), RATES, 1) == 85.0
    # two workers: the baseline is shared out, the longer trajectory decides
    assert estimate(_work((10, 3), (0, 1), shared=2), RATES, 2) == 5 + 10 + 50
    # workers without a trajectory do nothing
    assert estimate(_work((10, 3)), RATES, 8) == 55.0
    assert estimate(_work((0, 0)), RATES, 2) == 0.0
    # nothing but the baseline is left
    assert estimate(_work((0, 0), (0, 0), shared=4), RATES, 2) == 25.0


def test_disk_counts_every_part_and_prompts_where_they_are_kept() -> None:
    work = _work((10, 3), (0, 1), shared=2)
    # 6 runs, 2 points, 1 trajectory with two checkpoints, 1 worker with two queue checkpoints
    assert disk_bytes(work, RATES.sizes, 1) == 60 + 2000 + 200_000 + 2 * 10**7
    assert disk_bytes(work, RATES.sizes, 1, prompt_bytes=50) == 360 + 2000 + 200_000 + 2 * 10**7
    assert disk_bytes(work, RATES.sizes, 9) == 60 + 2000 + 200_000 + 4 * 10**7
