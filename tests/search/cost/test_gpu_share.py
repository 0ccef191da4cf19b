from __future__ import annotations

import pytest

from mpt.errors import UsageError
from mpt.search.cost.gpu_share import (
    CONTEXT_BYTES,
    GIB,
    MARGIN,
    MOST_SHARING,
    RAY_UNIT,
    share_line,
    suggest_gpu_share,
)


def trials_of(share: float) -> int:
    """How many trials Ray places on one GPU: it rounds a share to ten-thousandths, then counts."""
    return RAY_UNIT // round(share * RAY_UNIT)


@pytest.mark.parametrize("trials", range(1, MOST_SHARING + 1))
def test_ray_places_exactly_as_many_trials_as_fit(trials: int) -> None:
    gpu = 80 * GIB
    room = (1 - MARGIN) * gpu
    most = int(room / trials) - CONTEXT_BYTES
    assert trials_of(suggest_gpu_share(most - 1, gpu)) == trials
    if trials > 1:  # a little more, and one trial less fits
        assert trials_of(suggest_gpu_share(most + 2, gpu)) == trials - 1


def test_a_trial_that_fills_the_gpu_gets_all_of_it() -> None:
    assert suggest_gpu_share(20 * GIB, 24 * GIB) == 1.0


def test_small_trials_do_not_crowd_a_gpu() -> None:
    assert trials_of(suggest_gpu_share(0, 80 * GIB)) == MOST_SHARING


def test_a_trial_that_does_not_fit_is_an_error_that_says_by_how_much() -> None:
    text = "needs 22.0 GiB and its process 1.0 GiB, but a GPU of 24.0 GiB has 21.6 GiB"
    with pytest.raises(UsageError, match=text):
        suggest_gpu_share(22 * GIB, 24 * GIB)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (1.0, "--gpus-per-trial 0.0625 lets 16 trials share a GPU"),
        (4.0, "--gpus-per-trial 0.0625 lets 16 trials share a GPU"),
        (0.0625, None),
        (0.05, "with --gpus-per-trial 0.05 trials that share a GPU may run out of its memory"),
    ],
)
def test_the_share_that_was_asked_for_is_compared_with_the_measured_need(
    asked: float, says: str | None
) -> None:
    line = share_line(
        2 * GIB, 80 * GIB, asked
    )  # 3 GiB with the context: 24 would fit, 16 are most
    assert (line is None) if says is None else (line is not None and says in line)
    assert share_line(None, None, asked) is None


def test_a_trial_that_fills_its_gpu_is_told_nothing() -> None:
    assert share_line(60 * GIB, 80 * GIB, 1.0) is None
