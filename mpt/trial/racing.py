"""Racing: whether a point can still reach the leader, decided on the leaves that are there.

The optimistic bound of a point with missing leaves is the upper end of its interval, or its ARG if
that is higher, with every missing (task, data seed) at the highest score there is. A further leaf
can only lower it: s enters each resample's ARG with a positive weight, and the resamples are drawn
from the same generator for every point. So a point whose bound is below the lower end of the
leader's interval would end there too, whatever its missing leaves are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpt.metrics.relative_gain import Gain, average_relative_gain
from mpt.seeds import numpy_generator
from mpt.storage import canonical
from mpt.trial.objective import LeafTable, Leaves, leaf_counts, score_point, selected_scores

BEST = 1.0
"""The highest score of every metric of the gym (a fraction, or a correlation)."""


def hopeless(
    point: LeafTable, baseline: LeafTable, store: Leaves, leader_low: float | None
) -> str | None:
    """Return why a point cannot reach the leader, or None if it may.

    Args:
        point: all leaves the point will have, there or not.
        baseline: all leaves of plain prompt tuning on the same tasks and data seeds.
        store: the leaves that are there.
        leader_low: lower end of the leader's interval, ARG in %; None: there is no leader.

    Returns:
        One line with both numbers, or None; also while a leaf of the baseline is missing.
    """
    if leader_low is None:
        return None
    bound = optimistic_bound(point, baseline, store)
    if bound is None or bound >= leader_low:
        return None
    there, of = leaf_counts(store, point)
    return (
        f"with {there} of {of} leaves it ends at most at ARG {bound:+.2f}, below the lower end "
        f"of the leader's interval, {leader_low:+.2f}"
    )


def optimistic_bound(point: LeafTable, baseline: LeafTable, store: Leaves) -> float | None:
    """Return the most that the ARG of a point, or its interval's upper end, can still become.

    None while a leaf of the baseline is missing (over a baseline near 0 a gain has no bound), or
    where no task has a positive baseline.
    """
    there, of = leaf_counts(store, baseline)
    if there < of:
        return None
    known = selected_scores(store, point)
    best = {
        task: {int(seed): known[task].get(int(seed), BEST) for seed in seeds}
        for task, seeds in point.items()
    }
    gain = average_relative_gain(
        best,
        selected_scores(store, baseline),
        sorted(point),
        sorted({int(seed) for seeds in point.values() for seed in seeds}),
        rng=numpy_generator(_train_seed(baseline, store), "bootstrap"),
    )
    return upper_end(gain)


def upper_end(gain: Gain) -> float | None:
    """Return the upper end of an interval, or the ARG where that is higher or has no interval."""
    ends = [end for end in (gain.high, gain.arg_of_defined) if end is not None]
    return max(ends) if ends else None


def leader_low(points: Sequence[Mapping[str, Any]], store: Leaves) -> float | None:
    """Return the lower end of the leader's interval, in %.

    The leader is the complete point with the highest score; the first of equal ones.

    Args:
        points: point records that compete with each other (see `rivals`).
        store: the leaves they name.

    Returns:
        None if no point is complete, or the leader has no interval.
    """
    best: tuple[float, float | None] | None = None
    for point in points:
        if point["status"] == "ok" and _complete(point, store):
            score = score_point(point, store)
            if score.gain is not None and (best is None or score.score > best[0]):
                best = (score.score, score.gain.low)
    return None if best is None else best[1]


def rivals(
    points: Sequence[Mapping[str, Any]], point: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Return the point records that a point competes with.

    They differ from it in settings and steps alone: backbone, downstream recipe, scored files and
    train seed are the same, and so are method and source tasks.

    Args:
        points: records, e.g. all of a results directory.
        point: the point's record, or what is known of it already: ``identity``, ``method``,
            ``partition``, ``sources``, ``source_set`` and ``source_shots``.
    """
    return [other for other in points if _mark(other) == _mark(point)]


_SAME = ("method", "partition", "sources", "source_set", "source_shots")


def _mark(point: Mapping[str, Any]) -> str:
    """Return what a point shares with its rivals, as one text."""
    identity = point["identity"]
    study = {
        name: value for name, value in identity.items() if name not in ("trajectory", "steps")
    }
    return canonical([study, *(point.get(name) for name in _SAME)])


def _complete(point: Mapping[str, Any], store: Leaves) -> bool:
    counts = [leaf_counts(store, point[part]) for part in ("leaves", "baseline")]
    return all(there == of for there, of in counts)


def _train_seed(table: LeafTable, store: Leaves) -> int:
    """Return the train seed that all leaves of a study share."""
    key = next(key for seeds in table.values() for lrs in seeds.values() for _, key in lrs)
    leaf = store.get(key)
    assert leaf is not None
    return int(leaf["identity"]["train_seed"])
