"""What a trial asks of the database. Workers reach it directly, or through one writer's process.

All arguments and answers are plain values, so that a call can go over to another process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mpt.metrics.relative_gain import Scores
from mpt.store.database import Database
from mpt.store.records import Artifact, Point, Run, ScoreRow, Stop, StudyRecord, point_key
from mpt.store.sql.inserting import RunParts
from mpt.trial.racing import hopeless, leader_low
from mpt.trial.score import PlannedScore, PointScore, score_point, selected_scores

_LIMITS = "pack limits"
_STARTS = "start choice"


Evidence = tuple[Point, list[ScoreRow]]
"""A point and its runs: what its score is computed from, with its study and plain prompt tuning's
scores."""


class Scoring:
    """Scores of points, each computed once and kept in memory.

    Args:
        evidence: return the evidence for those of some points that are stored, by their keys.
        study: return the stored study of a key.
    """

    def __init__(
        self,
        evidence: Callable[[list[str]], Mapping[str, Evidence]],
        study: Callable[[str], StudyRecord],
    ) -> None:
        self._ask, self._ask_study = evidence, study
        self._studies: dict[str, StudyRecord] = {}
        self._baselines: dict[str, Scores] = {}
        self._waiting: dict[str, Evidence] = {}
        self._scores: dict[str, PointScore] = {}

    def scores(self, keys: Collection[str]) -> dict[str, PointScore]:
        """Return the scores of the points that are stored and whose baseline is."""
        new = [key for key in keys if key not in self._scores and key not in self._waiting]
        if new:
            self._waiting.update(self._ask(new))
        for key in [key for key in keys if key in self._waiting]:
            point, rows = self._waiting[key]
            baseline = self.baseline(point.study)
            if baseline is not None:
                self._scores[key] = score_point(point, rows, baseline, self.study(point.study))
                del self._waiting[key]  # until now: rows never change, to ask once is enough
        return {key: self._scores[key] for key in keys if key in self._scores}

    def baseline(self, study: str) -> Scores | None:
        """Return the selected scores of plain prompt tuning; None while they are not whole."""
        if study not in self._baselines:
            key = point_key(study, "", 0)
            stored = self._ask([key])
            if key not in stored:
                return None
            record = self.study(study)
            rows = stored[key][1]
            self._baselines[study] = selected_scores(rows, record.lrs, record.start_seeds)
        return self._baselines[study]

    def study(self, key: str) -> StudyRecord:
        """Return the study of a key."""
        if key not in self._studies:
            self._studies[key] = self._ask_study(key)
        return self._studies[key]


class TrialStore:
    """The database as trials see it; scores are computed here, and kept in memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._scoring = Scoring(self.evidence, self.study)

    def present(self, keys: Collection[str]) -> set[str]:
        """Return which of these runs are stored."""
        return self._database.present(keys)

    def signs(self, runs: Collection[str], owners: Sequence[str]) -> tuple[int, list[str | None]]:
        """Return how many of some runs are stored, and where owners' newest checkpoints are."""
        newest = [self.checkpoint(owner) for owner in owners]
        return len(self.present(runs)), [one.uri if one else None for one in newest]

    def add_runs(self, runs: Sequence[Run]) -> list[str]:
        """Store runs as a whole; return the keys that were not there. The first writer wins."""
        return self._database.add_runs(runs)

    def add_parts(self, parts: Mapping[str, RunParts]) -> list[str]:
        """Store runs as `add_runs` does, of which somebody has formed the rows."""
        return self._database.add_parts(parts)

    def add_study(self, study: StudyRecord) -> str:
        """Store a study; return its key."""
        return self._database.add_study(study)

    def study(self, key: str) -> StudyRecord:
        """Return the stored study of a key."""
        record = self._database.study(key)
        assert record is not None, f"study {key} is not stored"
        return record

    def add_point(self, point: Point) -> bool:
        """Store a point unless one of its runs is missing; return whether it is stored now."""
        if set(point.runs) - self.present(point.runs):
            return False
        self._database.add_point(point)
        return True

    def points(self, keys: Collection[str]) -> dict[str, Point]:
        """Return the points that are stored, by key."""
        return self._database.points_of(keys)

    def evidence(self, keys: Collection[str]) -> dict[str, Evidence]:
        """Return what the scores of those of the points that are stored are computed from."""
        return self._database.evidence(keys)

    def scores(self, keys: Collection[str]) -> dict[str, PointScore]:
        """Return the scores of the points that are stored and whose baseline is."""
        return self._scoring.scores(keys)

    def baseline(self, study: str) -> Scores | None:
        """Return the selected scores of plain prompt tuning; None while they are not whole."""
        return self._scoring.baseline(study)

    def racing_reason(self, study: str, method: str, runs: Sequence[PlannedScore]) -> str | None:
        """Return why a point of a method cannot reach the leader any more, or None if it may."""
        rivals = [p for p in self._database.points(study) if p.method == method]
        low = leader_low(list(self.scores([p.key for p in rivals]).values()))
        baseline = self.baseline(study)
        if low is None or baseline is None:
            return None
        stored = self._database.runs([run.key for run in runs])
        return hopeless(runs, stored, baseline, self._scoring.study(study), low)

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
