"""The arithmetic of a plan, in closed form."""

from __future__ import annotations

import pytest

from mpt.search.cost.plan import (
    CourseLoad,
    LeafLoad,
    LeafRate,
    Load,
    Rates,
    Sizes,
    disk_bytes,
    estimate,
    makespan,
    work_seconds,
)
from mpt.search.cost.time_left import TimeLeft, clock_text


def _leaves(runs: int, kind: str = "prompt") -> LeafLoad:
    """Leaves of 10 s at `RATES`: 4 steps of 2 s and 20 rows of 0.1 s."""
    return LeafLoad(kind=kind, runs=runs, steps=4 * runs, rows=20 * runs)


def _load(*courses: tuple[int, int], shared: int = 0, kind: str = "maml") -> Load:
    return Load(
        courses=tuple(
            CourseLoad(kind=kind, steps=steps, leaves=_leaves(runs), points=1)
            for steps, runs in courses
        ),
        points=1,
        points_there=0,
        leaves=1,
        leaves_there=0,
        shared=shared,
        shared_there=0,
        shared_left=(_leaves(shared),),
    )


RATES = Rates(
    steps={"maml": 2.0, "reptile": 7.0},
    leaves={"prompt": LeafRate(step_s=2.0, row_s=0.1), "weights": LeafRate(step_s=3.0, row_s=0.5)},
    start_s=5.0,
    sizes=Sizes(leaf=10, rung=1000, checkpoint=100_000, queue=10**7),
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


def test_work_is_steps_and_leaves_at_the_rates_of_their_kinds() -> None:
    assert work_seconds(_load((10, 3), (0, 1), shared=2), RATES) == ([50.0, 10.0], 20.0)
    assert work_seconds(_load((10, 0), kind="reptile"), RATES) == ([70.0], 0.0)
    weights = CourseLoad(kind="none", steps=0, leaves=_leaves(2, "weights"), points=1)
    load = Load(
        courses=(weights,),
        points=1,
        points_there=0,
        leaves=2,
        leaves_there=0,
        shared=0,
        shared_there=0,
    )
    assert work_seconds(load, RATES) == ([2 * (4 * 3.0 + 20 * 0.5)], 0.0)


def test_a_kind_that_was_not_measured_counts_as_the_slowest() -> None:
    assert RATES.step_seconds("fomaml") == 7.0
    assert RATES.leaf_rate("other") == LeafRate(step_s=3.0, row_s=0.5)


def test_rates_of_two_probes_are_put_together() -> None:
    more = Rates(
        steps={"maml": 9.0, "fomaml": 1.0},
        leaves={},
        start_s=6.0,
        sizes=Sizes(leaf=7, queue=10**8),
    )
    both = RATES.with_more(more)
    assert both.steps == {"maml": 2.0, "reptile": 7.0, "fomaml": 1.0}
    assert both.leaves == RATES.leaves
    assert both.start_s == 6.0
    assert both.sizes == Sizes(leaf=10, rung=1000, checkpoint=100_000, queue=10**8)


def test_an_estimate_counts_start_shared_work_and_the_trajectories() -> None:
    # one worker: 5 s start + 20 s baseline + 50 s + 10 s
    assert estimate(_load((10, 3), (0, 1), shared=2), RATES, 1) == 85.0
    # two workers: the baseline is shared out, the longer trajectory decides
    assert estimate(_load((10, 3), (0, 1), shared=2), RATES, 2) == 5 + 10 + 50
    # workers without a trajectory do nothing
    assert estimate(_load((10, 3)), RATES, 8) == 55.0
    assert estimate(_load((0, 0)), RATES, 2) == 0.0
    # nothing but the baseline is left
    assert estimate(_load((0, 0), (0, 0), shared=4), RATES, 2) == 25.0


def test_disk_counts_every_part_and_prompts_where_they_are_kept() -> None:
    load = _load((10, 3), (0, 1), shared=2)
    # 6 leaves, 2 points, 1 trajectory with two checkpoints, 1 worker with two queue checkpoints
    assert disk_bytes(load, RATES.sizes, 1) == 60 + 2000 + 200_000 + 2 * 10**7
    assert disk_bytes(load, RATES.sizes, 1, prompt_bytes=50) == 360 + 2000 + 200_000 + 2 * 10**7
    assert disk_bytes(load, RATES.sizes, 9) == 60 + 2000 + 200_000 + 4 * 10**7


def test_time_left_starts_with_the_estimate_and_then_follows_the_clock() -> None:
    now = 100.0
    left = TimeLeft(_load((20, 2), (20, 2)), RATES, 2, clock=lambda: now)  # 120 s of work
    assert left.seconds == 65.0
    now += 5
    assert left.seconds == 60.0  # nothing is done yet: the estimate runs down
    left.report({"index": 0, "steps": 20, "leaves": 1})  # 50 of 120 s
    now = 125.0
    assert left.seconds == pytest.approx(25 * 70 / 50)
    # a trial that was started again counts leaves from 0: what is done stays done
    left.report({"index": 0, "steps": 20, "leaves": 0})
    assert left.seconds == pytest.approx(25 * 70 / 50)
    left.report({"index": 0, "steps": 20, "leaves": 2})
    left.report({"index": 1, "steps": 20, "leaves": 2})
    assert left.seconds == 0.0


def test_a_course_that_the_plan_did_not_know_counts_as_its_last_one() -> None:
    now = 0.0
    left = TimeLeft(_load((20, 2), (20, 2)), RATES, 2, clock=lambda: now)
    left.report({"index": 7, "steps": 20, "leaves": 2})  # 60 of 120 s
    now = 30.0
    assert left.seconds == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (91, "2 min"),
        (5399, "90 min"),
        (5401, "1.5 h"),
        (2e5, "2.3 days"),
    ],
)
def test_durations_are_told_in_fitting_units(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
