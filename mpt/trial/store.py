"""What a trial asks of the database. Workers reach it directly, or through one writer's process.

All arguments and answers are plain values, so that a call can go over to another process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mpt.metrics.relative_gain import Scores
from mpt.store.database import Database
from mpt.store.records import Artifact, Point, Run, Stop, StudyRecord, point_key
from mpt.trial.racing import hopeless, leader_low
from mpt.trial.score import PlannedScore, PointScore, score_point, selected_scores

_LIMITS = "pack limits"
_STARTS = "start choice"


class TrialStore:
    """The database as trials see it; scores are computed here, and kept in memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._studies: dict[str, StudyRecord] = {}
        self._baselines: dict[str, Scores] = {}
        self._scores: dict[str, PointScore] = {}

    def present(self, keys: Collection[str]) -> set[str]:
        """Return which of these runs are stored."""
        return self._database.present(keys)

    def add_runs(self, runs: Sequence[Run]) -> list[str]:
        """Store runs as a whole; return the keys that were not there. The first writer wins."""
        return self._database.add_runs(runs)

    def add_study(self, study: StudyRecord) -> str:
        """Store a study; return its key."""
        return self._database.add_study(study)

    def add_point(self, point: Point) -> bool:
        """Store a point whose runs are stored; return whether it was new."""
        return self._database.add_point(point)

    def points(self, keys: Collection[str]) -> dict[str, Point]:
        """Return the points that are stored, by key."""
        return self._database.points_of(keys)

    def scores(self, keys: Collection[str]) -> dict[str, PointScore]:
        """Return the scores of the points that are stored and whose baseline is."""
        unknown = [key for key in keys if key not in self._scores]
        points = self._database.points_of(unknown)
        rows: dict[str, list[Any]] = {key: [] for key in points}
        for row in self._database.score_rows(list(points)):
            rows[row.point].append(row)
        for key, point in points.items():
            baseline = self.baseline(point.study)
            if baseline is not None:
                study = self._study(point.study)
                self._scores[key] = score_point(point, rows[key], baseline, study)
        return {key: self._scores[key] for key in keys if key in self._scores}

    def baseline(self, study: str) -> Scores | None:
        """Return the selected scores of plain prompt tuning; None while they are not whole."""
        if study not in self._baselines:
            key = point_key(study, "", 0)
            if key not in self._database.points_of([key]):
                return None
            rows = self._database.score_rows([key])
            record = self._study(study)
            self._baselines[study] = selected_scores(rows, record.lrs, record.start_seeds)
        return self._baselines[study]

    def racing_reason(self, study: str, method: str, runs: Sequence[PlannedScore]) -> str | None:
        """Return why a point of a method cannot reach the leader any more, or None if it may."""
        rivals = [p for p in self._database.points(study) if p.method == method]
        low = leader_low(list(self.scores([p.key for p in rivals]).values()))
        baseline = self.baseline(study)
        if low is None or baseline is None:
            return None
        stored = self._database.runs([run.key for run in runs])
        return hopeless(runs, stored, baseline, self._study(study), low)

    def add_stop(self, stop: Stop) -> None:
        """Store that a trial was stopped."""
        self._database.add_stop(stop)

    def checkpoint(self, owner: str) -> Artifact | None:
        """Return the newest checkpoint of a trial, if there is one."""
        return self._database.artifact("checkpoint", owner)

    def rung(self, upstream: str, steps: int) -> Artifact | None:
        """Return the learned prompt at a rung, if it is stored."""
        return self._database.artifact("rung", upstream, steps)

    def add_artifact(self, artifact: Artifact) -> None:
        """Store where a file is."""
        self._database.add_artifact(artifact)

    def pack_limits(self, name: str) -> Mapping[str, Any] | None:
        """Return what goes through a kind of GPU at once, if it was measured."""
        return self._database.documents(_LIMITS).get(name)

    def keep_pack_limits(self, name: str, limits: Mapping[str, Any]) -> None:
        """Store what goes through a kind of GPU at once."""
        self._database.put_document(_LIMITS, name, dict(limits))

    def start_choice(self, point: str) -> Mapping[str, Any] | None:
        """Return which starts the targets of a point have chosen, if they have."""
        return self._database.documents(_STARTS, point).get(point)

    def keep_start_choice(self, point: str, record: Mapping[str, Any]) -> None:
        """Store which starts the targets of a point have chosen."""
        self._database.put_document(_STARTS, point, dict(record))

    def _study(self, key: str) -> StudyRecord:
        if key not in self._studies:
            record = self._database.study(key)
            assert record is not None, f"study {key} is not stored"
            self._studies[key] = record
        return self._studies[key]
