"""The points and runs of one stored study as a table to simulate on: scores and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.errors import UsageError
from mpt.store.database import open_results
from mpt.store.records import ScoreRow, StudyRecord, lr_order
from mpt.study.choice import chosen, only_protocol, point_config
from mpt.study.study import absolute_backbone
from mpt.trial.racing import hopeless, leader_low
from mpt.trial.score import PlannedScore, PointScore
from mpt.trial.store import TrialStore

if TYPE_CHECKING:
    from mpt.store.database import Database
    from mpt.store.records import Point
    from mpt.study.specs import MethodConfig, TrialSpec


class Recorded:
    """The stored points of one method in one study.

    Args:
        results: the results directory; nothing is written there.
        like: a trial of the search that is simulated; its method counts, and of its study
            partition, backbone, train seed, starts if there are several, and what is scored.
        store: URL of the database; None: the one in the directory.
        study: first digits of the study or protocol; None: there must be only one that fits.

    Raises:
        UsageError: there are no such points, or those of several studies (all are listed).
        DataError: the database is broken, or a point's settings are not those of this program.
    """

    def __init__(
        self,
        results: Path,
        like: TrialSpec,
        *,
        store: str | None = None,
        study: str | None = None,
    ) -> None:
        with open_results(results, store, read_only=True) as database:
            self._name = f"--simulate {results if store is None else database.name}"
            scores = TrialStore(database)
            stored = _stored(database, scores, like, study)
            studies = [study for study, _ in stored.values()]
            real = [study for study in studies if not study.smoke] or studies
            config = like.plan.config
            what = f"{like.method} on {config.partition} with backbone {config.backbone}"
            if not real:
                starts = "" if config.starts == 1 else f", {config.starts} starts"
                raise UsageError(
                    f"{self._name} holds no point of {what} and train seed {config.train_seed}"
                    f"{starts}; run that search there first"
                )
            only_protocol(real, self._name, what)
            self.study = real[0]
            """The study."""
            _, points = stored[self.study.key]
            self._points: dict[tuple[MethodConfig, int], Point] = {
                (point_config(one), one.steps): one for one in points
            }
            self._scores = scores.scores([one.key for one in points])
            self._rows: dict[str, list[ScoreRow]] = {one.key: [] for one in points}
            for row in database.score_rows(list(self._rows)):
                self._rows[row.point].append(row)
            self._baseline = scores.baseline(self.study.key) or {}

    @property
    def best(self) -> float:
        """The best score of all recorded points."""
        return max(score.score for score in self._scores.values())

    @property
    def seconds(self) -> float:
        """The cost of all recorded points, in seconds of one worker, without the baselines."""
        upstream: dict[MethodConfig, float] = {}
        for (config, _), point in self._points.items():
            upstream[config] = max(upstream.get(config, 0.0), point.cost.seconds)
        runs = {row.run: row.seconds for rows in self._rows.values() for row in rows}
        return sum(upstream.values()) + sum(runs.values())

    def missing(self, trial: TrialSpec) -> list[str]:
        """Return the points of a trial that are not recorded, by name."""
        spec = trial.upstream
        lacking = [n for n in spec.rungs if not self._has(spec.config, n)]
        return [f"{trial.name} at {steps}" for steps in lacking]

    def point(self, trial: TrialSpec, steps: int) -> Point:
        """Return a point.

        Raises:
            UsageError: it is not recorded.
        """
        config = trial.upstream.config
        if not self._has(config, steps):
            raise UsageError(
                f"{self._name}: {trial.name} at {steps} steps is not recorded; run that search "
                "there first, without --scheduler and --racing"
            )
        return self._points[config, steps]

    def score(self, trial: TrialSpec, steps: int) -> PointScore:
        """Return a point's score."""
        return self._scores[self.point(trial, steps).key]

    def seed_seconds(self, point: Point) -> dict[int, float]:
        """Return data seed → seconds of a point's runs, in the order in which they are tuned."""
        spent = dict.fromkeys(self.study.data_seeds, 0.0)
        for row in self._rows[point.key]:
            spent[row.data_seed] += row.seconds
        return spent if self._rows[point.key] else {}

    def hopeless(
        self, point: Point, seeds: Sequence[int], leaders: Sequence[PointScore]
    ) -> str | None:
        """Return why a point cannot reach the leader any more, or None if it may.

        Args:
            point: the point.
            seeds: data seeds whose runs are there.
            leaders: scores of the points that are there, in the order in which they came.
        """
        low = leader_low(leaders)
        if low is None:
            return None
        order = lr_order(point, self.study)
        rows = sorted(self._rows[point.key], key=lambda row: order.index(row.lr))
        planned = [
            PlannedScore(row.run, row.task, row.data_seed, row.lr, row.train_seed) for row in rows
        ]
        stored: dict[str, Any] = {row.run: row for row in rows if row.data_seed in seeds}
        return hopeless(planned, stored, self._baseline, self.study, low)

    def _has(self, config: MethodConfig, steps: int) -> bool:
        return (config, steps) in self._points


def _stored(
    database: Database, scores: TrialStore, like: TrialSpec, wanted: str | None
) -> dict[str, tuple[StudyRecord, list[Point]]]:
    """Return the studies that fit, by key, with the scored points of the method."""
    stored: dict[str, tuple[StudyRecord, list[Point]]] = {}
    for study in chosen([one for one in database.studies() if _fits(one, like)], wanted):
        first = getattr(like.upstream.config, "seed", None)  # replicates are not simulated
        points = [
            one
            for one in database.points(study.key)
            if one.method == like.method and one.settings.get("seed") == first
        ]
        scored = scores.scores([one.key for one in points])
        if scored:
            stored[study.key] = study, [one for one in points if one.key in scored]
    return stored


def _fits(study: StudyRecord, like: TrialSpec) -> bool:
    plan, config = like.plan, like.plan.config
    return (
        study.partition == config.partition
        and study.backbone in (config.backbone, absolute_backbone(config.backbone))
        and study.role == plan.role
        and study.train_seed == config.train_seed
        and config.starts in (1, study.starts)
    )
