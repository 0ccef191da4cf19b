"""The winner's ARG on seeds that did not choose it, and which seeds these are."""

from __future__ import annotations

import numpy as np
import pytest

from mpt.metrics.choice import Reported, compared_seeds, cross_fitted, reported
from mpt.metrics.replicates import Replicates, compare

TASKS, DATA = 6, 5
BASELINE = np.full((TASKS, DATA), 0.5)
RNG = np.random.default_rng


def _rows(args: dict[str, dict[int, float]]) -> list[Replicates]:
    """Configurations with these ARGs, the same on all tasks and data seeds."""
    return [
        Replicates(name=name, scores={s: BASELINE * (1 + arg / 100) for s, arg in of.items()})
        for name, of in args.items()
    ]


def _said(args: dict[str, dict[int, float]], fresh: dict[int, float] | None = None) -> Reported:
    rows = _rows(args)
    found = compare(rows, BASELINE, rng=RNG(0), resamples=100)
    (own,) = _rows({found.leader: fresh}) if fresh else [None]
    return reported(rows, found, own, BASELINE, rng=RNG(1), resamples=100)


def test_fresh_seeds_are_taken_before_anything_else() -> None:
    said = _said({"a": {1: 10, 2: 12}, "b": {1: 1, 2: 3}}, {7: 5.0, 8: 6.0})
    assert said.how == "on fresh upstream seeds 7, 8"
    assert said.arg == pytest.approx(5.5)
    assert _said({"a": {1: 10}, "b": {1: 1}}, {7: 5.0}).how == "on fresh upstream seed 7"


def test_without_them_the_choice_is_cross_fitted_and_has_no_interval() -> None:
    args = {"a": {1: 20.0, 2: 0.0, 3: 2.0}, "b": {1: 4.0, 2: 5.0, 3: 6.0}}
    said = _said(args)
    # the others choose b for seed 1 (5.5 to 1), and a for the other two (11 to 5, 10 to 4.5)
    assert said.how == "cross-fitted over upstream seeds"
    assert said.arg == pytest.approx((4 + 0 + 2) / 3)
    assert cross_fitted(args) == pytest.approx(said.arg)
    assert said.summary is None
    assert said.expected is None


def test_of_a_single_configuration_nothing_was_chosen() -> None:
    said = _said({"a": {1: 10, 2: 12}})
    assert (said.arg, said.how) == (pytest.approx(11), "mean of 2 upstream seeds")


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"a": {1: 10.0}, "b": {1: 1.0}}, "one upstream seed: nothing shows"),
        ({"a": {1: 10.0}}, "one upstream seed: nothing shows"),
        # its own mean is what the choice has raised
        ({"a": {1: 10.0, 2: 12.0}, "b": {1: 1.0}}, "no other configuration has as many"),
    ],
)
def test_where_nothing_shows_what_the_choice_added_no_number_is_reported(
    args: dict[str, dict[int, float]], why: str
) -> None:
    said = _said(args)
    assert (said.arg, said.expected) == (None, None)
    assert said.how.startswith(why)


def test_seeds_that_one_configuration_has_were_not_compared_on() -> None:
    assert compared_seeds([(42, 1042), (42, 1042, 7, 8), (42,)]) == (42, 1042)
    assert compared_seeds([(42, 1042)]) == (42, 1042)
    assert compared_seeds([(1,), (2,)]) == (1, 2)
    assert compared_seeds([]) == ()
