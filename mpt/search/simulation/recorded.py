"""The points and leaves of a results directory as a table to simulate on: scores and seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpt.errors import UsageError
from mpt.records import LeafStore, PointStore, Record
from mpt.search.job import Course
from mpt.storage import canonical
from mpt.trial.objective import LeafTable, PointScore, score_point
from mpt.trial.points import point_is_whole
from mpt.trial.racing import rivals


class Memory:
    """Leaves in memory; those that are not there yet, in simulated time, are left out."""

    def __init__(self, leaves: Mapping[str, Record], there: set[str] | None = None) -> None:
        self._leaves, self._there = leaves, there

    def get(self, key: str) -> Record | None:
        """Return the leaf under a key, or None if it is not there."""
        if self._there is not None and key not in self._there:
            return None
        return self._leaves.get(key)


class Recorded:
    """The recorded points of one method, setting, backbone and train seed.

    Args:
        results: the results directory; nothing is written there.
        like: a course of the search that is simulated; of its study, partition, backbone and train
            seed count.

    Raises:
        UsageError: the directory holds no such point, or those of several studies.
    """

    def __init__(self, results: Path, like: Course) -> None:
        store = LeafStore(results, read_only=True)
        points = [
            point
            for point in PointStore(results, read_only=True).all()
            if _fits(point, like) and point_is_whole(point, store)
        ]
        if not points:
            raise UsageError(
                f"--simulate is {str(results)!r}, but holds no point of "
                f"{like.trajectory.config.method} on {like.plan.config.partition} with backbone "
                f"{like.plan.config.backbone} and train seed {like.plan.config.train_seed}"
            )
        if len(rivals(points, points[0])) < len(points):
            raise UsageError(
                f"--simulate is {str(results)!r}, which holds points of several studies that "
                "cannot be compared; give a directory with one"
            )
        self._results = results
        self._points = {(_mark(point["config"]), point["steps"]): point for point in points}
        keys = {key for point in points for table in _tables(point) for key in _keys(table)}
        self._leaves = {key: leaf for key in sorted(keys) if (leaf := store.get(key)) is not None}
        self._scores: dict[tuple[str, int], PointScore] = {}

    @property
    def best(self) -> float:
        """The best score of all recorded points."""
        return max(self._score(place).score for place in self._points)

    @property
    def seconds(self) -> float:
        """The cost of all recorded points, in seconds of one worker, without the baselines."""
        upstream: dict[str, float] = {}
        for (config, _), point in self._points.items():
            upstream[config] = max(upstream.get(config, 0.0), point["cost"]["seconds"])
        leaves = sum(sum(self.leaf_seconds(point).values()) for point in self._points.values())
        return sum(upstream.values()) + leaves

    def missing(self, course: Course) -> list[str]:
        """Return the points of a course that are not recorded, by name."""
        mark = _mark(dataclasses.asdict(course.trajectory.config))
        rungs = course.trajectory.rungs
        return [f"{course.name} at {n}" for n in rungs if (mark, n) not in self._points]

    def point(self, course: Course, steps: int) -> Record:
        """Return a point's record.

        Raises:
            UsageError: it is not recorded.
        """
        place = (_mark(dataclasses.asdict(course.trajectory.config)), steps)
        if place not in self._points:
            raise UsageError(
                f"--simulate is {str(self._results)!r}, where {course.name} at {steps} steps is "
                "not recorded; run that search there first, without --scheduler and --racing"
            )
        return self._points[place]

    def score(self, course: Course, steps: int) -> PointScore:
        """Return a point's score."""
        self.point(course, steps)
        return self._score((_mark(dataclasses.asdict(course.trajectory.config)), steps))

    def leaf_seconds(self, point: Record) -> dict[str, float]:
        """Return data seed → seconds of a point's leaves, ascending by seed."""
        found: dict[str, float] = {}
        for seeds in point["leaves"].values():
            for seed, lrs in seeds.items():
                spent = sum(self._leaves[key]["cost"].get("seconds", 0.0) for _, key in lrs)
                found[seed] = found.get(seed, 0.0) + spent
        return {seed: found[seed] for seed in sorted(found, key=int)}

    def leaves(self, point: Record, seeds: set[str]) -> Memory:
        """Return the baseline's leaves and those of a point at some data seeds."""
        there = _keys(point["baseline"])
        there |= {
            key
            for by_seed in point["leaves"].values()
            for seed, lrs in by_seed.items()
            if seed in seeds
            for _, key in lrs
        }
        return Memory(self._leaves, there)

    def _score(self, place: tuple[str, int]) -> PointScore:
        if place not in self._scores:
            self._scores[place] = score_point(self._points[place], Memory(self._leaves))
        return self._scores[place]


def _fits(point: Record, like: Course) -> bool:
    config = like.plan.config
    backbones = {config.backbone, str(Path(config.backbone).expanduser().resolve())}
    return (
        point.get("method") == like.trajectory.config.method
        and point.get("partition") == config.partition
        and point.get("backbone") in backbones
        and point.get("role") == like.plan.role
        and point["identity"].get("train_seed") == config.train_seed
    )


def _mark(config: Mapping[str, Any]) -> str:
    return canonical(dict(config))


def _tables(point: Record) -> tuple[LeafTable, LeafTable]:
    return point["leaves"], point["baseline"]


def _keys(table: LeafTable) -> set[str]:
    return {key for seeds in table.values() for lrs in seeds.values() for _, key in lrs}
