"""Which configurations differ more between their upstream seeds than the others do.

Under equal variances the ratio of a configuration's own variance between seeds to the pooled
variance of all others has the F distribution with its and their degrees of freedom. The tests of
all configurations are one family at 1 % (Bonferroni). Whatever is found leaves the pool, and the
rest is tested again with the same correction, so that a few wild configurations do not hide each
other. Configurations that share seeds and rows are correlated, which makes the ratio differ less
than F does: the test marks too few rather than too many. More seeds make it sharper, not stricter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mpt.metrics.differences import variance_of
from mpt.metrics.distributions import f_tail

ERROR = 0.01
"""Probability that any configuration is marked if all have one variance."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A configuration whose upstream seeds lie wider apart than those of the others."""

    own: float
    """Standard deviation between its seeds, ARG points."""
    others: float
    """Pooled one of those that are not marked before it."""
    p: float
    """Corrected for all configurations that have several seeds."""
    tests: int
    """Their number."""

    @property
    def text(self) -> str:
        """For people."""
        return (
            f"standard deviation between its seeds {self.own:.1f}, of the others "
            f"{self.others:.1f} (F test, p {self.p:.1g} after Bonferroni over {self.tests})"
        )


def wide_spreads(by_seed: Mapping[str, Mapping[int, float]]) -> dict[str, Spread]:
    """Return the configurations with a larger variance between upstream seeds than the others.

    Args:
        by_seed: configuration → upstream seed → ARG; those with one seed take no part.

    Returns:
        Name → spread, the most certain first.
    """
    rows = {name: list(of.values()) for name, of in by_seed.items() if len(of) > 1}
    names, tests = list(rows), len(rows)
    df = np.array([len(rows[name]) - 1 for name in names], dtype=np.float64)
    squares = np.array([variance_of(rows[name]) for name in names]) * df
    wide: dict[str, Spread] = {}
    remaining = np.ones(tests, dtype=bool)
    while remaining.sum() > 1:
        tried = [
            _tested(int(at), squares, df, remaining, tests) for at in np.flatnonzero(remaining)
        ]
        at, best = min(tried, key=lambda one: (one[1].p, -one[1].own))
        if best.p > ERROR:
            break
        wide[names[at]] = best
        remaining[at] = False
    return wide


def _tested(
    at: int, squares: np.ndarray, df: np.ndarray, remaining: np.ndarray, tests: int
) -> tuple[int, Spread]:
    """Return the spread at a place against those of the others that are left."""
    rest = remaining.copy()
    rest[at] = False
    own, others = squares[at] / df[at], squares[rest].sum() / df[rest].sum()
    p = float(own <= 0)
    if others > 0:
        p = f_tail(own / others, df[at], df[rest].sum())
    spread = Spread(
        own=math.sqrt(own), others=math.sqrt(others), p=min(1.0, tests * p), tests=tests
    )
    return at, spread
