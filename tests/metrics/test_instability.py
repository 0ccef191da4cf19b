"""Which configurations are named for the spread of their seeds, whatever the number of seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mpt.metrics.instability import ERROR, wide_spreads
from mpt.metrics.replicates import Replicates, compare

POINTS = 27


def _args(rng: np.random.Generator, seeds: int, wild: float = 1.0) -> dict[str, dict[int, float]]:
    """Return ARGs whose standard deviation between seeds is 4, of the first `wild` times that."""
    values = rng.normal(0, 4.0, (POINTS, seeds)) + np.linspace(0, 6, POINTS)[:, None]
    values[0] *= wild
    return {f"p{n}": dict(enumerate(row)) for n, row in enumerate(values)}


@pytest.mark.parametrize("seeds", [2, 3, 6, 12])
def test_of_equal_spreads_next_to_none_is_marked_with_any_number_of_seeds(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    searches = [wide_spreads(_args(rng, seeds)) for _ in range(300)]
    # one search in a hundred: 3 of 300, whose 99.9 % point is 9
    assert sum(bool(found) for found in searches) <= 9


@pytest.mark.parametrize("seeds", [6, 12])
def test_four_times_the_spread_is_marked_most_of_the_time(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    searches = [wide_spreads(_args(rng, seeds, 4.0)) for _ in range(100)]
    assert sum("p0" in found for found in searches) > 80
    assert sum(len(found) > 1 for found in searches) <= 6


def test_p_is_that_of_the_f_distribution_times_the_tests() -> None:
    by_seed = {
        "a": {1: 0.0, 2: 6.0, 3: 12.0},
        "b": {1: 1.0, 2: 2.0},
        "c": {1: 0.0, 2: 1.0, 3: 2.0},
    }
    by_seed["one seed"] = {1: 50.0}
    # variances 36, .5 and 1 with 2, 1 and 2 degrees of freedom; .5 · 1 + 1 · 2 = 2.5 over 3
    p = 3 * float(stats.f.sf(36 / (2.5 / 3), 2, 3))
    assert p > ERROR
    assert wide_spreads(by_seed) == {}
    by_seed["a"] = {seed: 10 * arg for seed, arg in by_seed["a"].items()}
    (found,) = wide_spreads(by_seed).values()
    assert found.p == pytest.approx(3 * float(stats.f.sf(3600 / (2.5 / 3), 2, 3)), rel=1e-9)
    assert (found.own, found.tests) == (pytest.approx(60.0), 3)
    assert found.others == pytest.approx((2.5 / 3) ** 0.5)
    assert found.text.startswith("standard deviation between its seeds 60.0, of the others 0.9 (F")


def test_some_that_are_wild_do_not_hide_each_other() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 4.0, (POINTS, 12))
    values[:6] *= 5
    found = wide_spreads({f"p{n}": dict(enumerate(row)) for n, row in enumerate(values)})
    assert set(found) == {f"p{n}" for n in range(6)}


def test_nothing_to_compare_with_marks_nothing() -> None:
    assert wide_spreads({}) == {}
    assert wide_spreads({"a": {1: 0.0, 2: 99.0}}) == {}
    assert wide_spreads({"a": {1: 0.0, 2: 99.0}, "b": {1: 5.0}}) == {}
    assert wide_spreads({"a": {1: 3.0, 2: 3.0}, "b": {1: 5.0, 2: 5.0}}) == {}


@pytest.mark.parametrize("seeds", [3, 6, 12])
def test_a_comparison_does_not_mark_more_points_the_more_seeds_there_are(seeds: int) -> None:
    """With more seeds the tie set shrinks and spans grow; that alone made 18 of 27 unstable."""
    rng, baseline = np.random.default_rng(seeds), np.full((4, 5), 0.5)
    marked = []
    for wild in (1.0, 1.0, 1.0, 1.0, 4.0, 4.0):
        rows = [
            Replicates(name=name, scores={s: baseline * (1 + a / 100) for s, a in of.items()})
            for name, of in _args(rng, seeds, wild).items()
        ]
        found = compare(rows, baseline, rng=np.random.default_rng(1), resamples=50)
        marked.append([name for name, one in found.summaries.items() if one.unstable])
    assert marked[:4] == [[]] * 4
    if seeds > 3:
        assert marked[4:] == [["p0"]] * 2


def test_what_happened_while_learning_makes_unstable_too_and_is_told() -> None:
    baseline = np.full((4, 5), 0.5)
    event = "seed 1: loss jumped to 9"
    rows = [
        Replicates(name=name, scores={1: baseline, 2: baseline * 1.01}, events=events)
        for name, events in (("a", ()), ("b", (event,)))
    ]
    found = compare(rows, baseline, rng=np.random.default_rng(1)).summaries
    assert (found["a"].unstable, found["a"].reasons) == (False, ())
    assert (found["b"].unstable, found["b"].reasons) == (True, (event,))
