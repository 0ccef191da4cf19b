from __future__ import annotations

import pytest

from mpt.plan import CourseLoad, Load, Rates, estimate, makespan, work_seconds
from mpt.search.time_left import TimeLeft, clock_text


def _load(*trajectories: tuple[int, int], shared: int = 0) -> Load:
    return Load(
        courses=tuple(CourseLoad(steps=s, leaves=p) for s, p in trajectories),
        points=1,
        points_there=0,
        leaves=1,
        leaves_there=0,
        shared=shared,
        shared_there=0,
    )


RATES = Rates(step_s=2.0, leaf_s=10.0, start_s=5.0)


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


def test_work_is_steps_and_leaves_at_their_rates() -> None:
    assert work_seconds(_load((10, 3), (0, 1), shared=2), RATES) == ([50.0, 10.0], 20.0)


def test_an_estimate_counts_start_shared_work_and_the_trajectories() -> None:
    # one worker: 5 s start + 20 s baseline + 50 s + 10 s
    assert estimate(_load((10, 3), (0, 1), shared=2), RATES, 1) == 85.0
    # two workers: the baseline is shared out, the longer trajectory decides
    assert estimate(_load((10, 3), (0, 1), shared=2), RATES, 2) == 5 + 10 + 50
    # workers without a trajectory do nothing
    assert estimate(_load((10, 3)), RATES, 8) == 55.0
    assert estimate(_load((0, 0)), RATES, 2) == 0.0


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
