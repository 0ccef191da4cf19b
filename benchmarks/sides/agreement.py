"""How far two sides agree: their downstream runs, one by one, and the mean scores of a point."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sides.peer_search import BASELINE

SAME = 1e-9
"""Scores are means of a few dozen rows: further apart, some row's text differs."""

Runs = dict[tuple[str, str, int, float], tuple[float, float]]
"""(point, task, data seed, learning rate) → (dev, test)."""


def runs_of(trials: Sequence[Mapping[str, Any]]) -> Runs:
    """Return the runs of trials as `Scorer.trial` gives them."""
    return {
        (trial["point"], task, seed, lr): (dev, test)
        for trial in trials
        for task, seed, lr, dev, test in trial["runs"]
    }


def agreement(runs: Runs, ours: Runs) -> dict[str, dict[str, Any]]:
    """Compare a side's runs with ours.

    Returns:
        "baseline" and "learned" (where there are such runs) → runs, how many of them are equal,
        the largest difference of a score, the mean test scores of both, and the largest difference
        of a point's mean.

    Raises:
        RuntimeError: the sides did not do the same runs.
    """
    if runs.keys() != ours.keys():
        lacking = sorted(map(str, runs.keys() ^ ours.keys()))
        raise RuntimeError(f"the sides did not do the same runs: {', '.join(lacking[:3])}")
    by_kind = {}
    for kind in ("baseline", "learned"):
        keys = [key for key in runs if (key[0] == BASELINE) == (kind == "baseline")]
        if not keys:
            continue
        apart = [max(abs(a - b) for a, b in zip(runs[k], ours[k], strict=True)) for k in keys]
        means = [_means(side, keys) for side in (runs, ours)]
        by_kind[kind] = {
            "runs": len(keys),
            "equal": sum(one <= SAME for one in apart),
            "largest": max(apart, default=0.0),
            "mean_test": [statistics.mean(own.values()) for own in means],
            "largest_of_points": max(abs(means[0][p] - means[1][p]) for p in means[0]),
        }
    return by_kind


def _means(runs: Runs, keys: Sequence[tuple[str, str, int, float]]) -> dict[str, float]:
    """Return the mean test score of every point."""
    tests: dict[str, list[float]] = {}
    for key in keys:
        tests.setdefault(key[0], []).append(runs[key][1])
    return {point: statistics.mean(own) for point, own in tests.items()}
