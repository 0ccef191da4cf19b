"""The winner's ARG on upstream seeds that it was not chosen on: the highest of many is too high.

A search takes the configuration with the highest mean ARG, so the mean that it was taken for
holds its luck on these very upstream seeds. Seeds that had no part in the choice hold none of it:
fresh ones, run after it, or by turns one of the compared seeds, with the configuration that the
others choose (cross-fitting).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpt.metrics.replicates import RESAMPLES, Comparison, Replicates, Summary, estimate

if TYPE_CHECKING:
    from mpt.metrics.differences import Interval

NOTHING_SHOWS = "nothing shows what the choice has added"


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What is said of a search's winner."""

    arg: float | None
    """ARG in % on upstream seeds that it was not chosen on; None without any."""
    how: str
    """How it was come by, or why there is none, for people."""
    summary: Summary | None = None
    """With intervals; None of a cross-fitted ARG, see `reported`."""

    @property
    def expected(self) -> Interval | None:
        """95 % of the expected ARG."""
        return None if self.summary is None else self.summary.expected


def reported(
    configurations: Sequence[Replicates],
    comparison: Comparison,
    fresh: Replicates | None,
    baseline: np.ndarray,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Reported:
    """Return the winner's ARG on upstream seeds that it was not chosen on.

    Args:
        configurations: those of the comparison, on the seeds that they were compared on.
        comparison: its leader is the winner.
        fresh: the leader on other seeds; None without any.
        baseline: [T, D] test scores of plain prompt tuning.
        rng: draws data seeds.
        resamples: draws.

    Returns:
        The first that there is: fresh seeds; the mean of a single configuration, which nothing
        was chosen from; cross-fitting. That has no interval: its terms choose on each other's
        seeds, so their mean spreads more widely than s / √U (with 12 seeds of 18 equal
        configurations by √2.8), and the usual interval holds the truth in 71 to 93 %.
    """
    leader = comparison.summaries[comparison.leader]
    if fresh is not None:
        on = estimate(fresh, baseline, comparison.prior, rng=rng, resamples=resamples)
        seeds = ", ".join(map(str, fresh.scores))
        what = "upstream seed" if len(fresh.scores) == 1 else "upstream seeds"
        return Reported(arg=on.arg, summary=on, how=f"on fresh {what} {seeds}")
    if leader.seeds == 1:
        return Reported(arg=None, how=f"one upstream seed: {NOTHING_SHOWS}")
    if len(configurations) == 1:
        return Reported(
            arg=leader.arg, summary=leader, how=f"mean of {leader.seeds} upstream seeds"
        )
    crossed = cross_fitted({name: one.by_seed for name, one in comparison.summaries.items()})
    if crossed is None:
        why = "no other configuration has as many upstream seeds"
        return Reported(arg=None, how=f"{why}: {NOTHING_SHOWS}")
    return Reported(arg=crossed, how="cross-fitted over upstream seeds")


def cross_fitted(by_seed: Mapping[str, Mapping[int, float]]) -> float | None:
    """Return the ARG that choosing the best configuration gives on a seed it was not chosen on.

    For each upstream seed that all candidates have, the configuration with the highest mean over
    their other seeds is taken, and its ARG with this seed; the result is the mean of these. Unlike
    the winner's own mean it is not raised by the choice.

    Args:
        by_seed: configuration → upstream seed → ARG; those with the most seeds are candidates.

    Returns:
        None with fewer than two candidates or seeds.
    """
    most = max(len(values) for values in by_seed.values())
    rows = [values for values in by_seed.values() if len(values) == most]
    common = [seed for seed in rows[0] if all(seed in row for row in rows)]
    if len(rows) < 2 or len(common) < 2:
        return None
    held = []
    for seed in common:
        others = [one for one in common if one != seed]
        winner = max(rows, key=lambda row: float(np.mean([row[one] for one in others])))
        held.append(winner[seed])
    return float(np.mean(held))


def compared_seeds(seeds_of: Iterable[Collection[int]]) -> tuple[int, ...]:
    """Return the upstream seeds that configurations were compared on, as their records tell.

    Args:
        seeds_of: the upstream seeds of each configuration of one method, of each of its rungs.

    Returns:
        Those that more than one has, in the order in which they are met: fresh seeds are run with
        the winner alone. All of them if there is one configuration, or none is shared.
    """
    counts = Counter(seed for seeds in seeds_of for seed in seeds)
    shared = tuple(seed for seed, count in counts.items() if count > 1)
    return shared or tuple(counts)
