"""Searches for tests: a grid with a score that is a formula of its settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from analysis.figures.charts.data import Estimate, Search, SearchPoint, missing

Score = Callable[[float, float, float], float | None]


def grid(
    score: Score,
    inner: tuple[float, ...] = (0.1, 1.0, 10.0),
    outer: tuple[float, ...] = (0.03, 0.1, 0.3),
    steps: tuple[float, ...] = (25, 50, 100),
) -> Search:
    """Every combination; a score of None is a point that diverged."""
    points = []
    for a, b, n in itertools.product(inner, outer, steps):
        value = score(a, b, n)
        estimate = (
            missing("diverged")
            if value is None
            else Estimate(value=value, low=value - 1, high=value + 2)
        )
        settings = {"inner_lr": a, "outer_lr": b, "steps": n}
        points.append(SearchPoint(settings=settings, score=estimate, trajectory=f"{a} {b}"))
    return Search(title="MAML, R→R", points=tuple(points))
