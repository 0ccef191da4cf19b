from __future__ import annotations

import pytest

from mpt.errors import UsageError
from mpt.search.gpu_share import (
    CONTEXT_BYTES,
    GIB,
    MARGIN,
    MOST_SHARING,
    RAY_UNIT,
    measured_need,
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


@pytest.mark.parametrize(("need", "gpu"), [(-1, GIB), (GIB, 0)])
def test_impossible_sizes_are_refused(need: int, gpu: int) -> None:
    with pytest.raises(UsageError, match="must be ≥ 0 and the GPU's memory > 0"):
        suggest_gpu_share(need, gpu)


def test_without_a_gpu_the_need_is_unknown() -> None:
    with measured_need("cpu") as need:
        pass
    assert need.gpu_bytes is None
