"""Where a search stands: its points with their scores, read from the database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpt.store.records import BASELINE, Point, Stop, point_key
from mpt.study.record import study_record
from mpt.trial.origin import now
from mpt.trial.runs import upstream_key
from mpt.trial.score import PointScore
from mpt.trial.store import TrialStore

if TYPE_CHECKING:
    from mpt.metrics.relative_gain import Scores
    from mpt.search.job import SearchJob
    from mpt.store.database import Database
    from mpt.store.records import StudyRecord
    from mpt.study.specs import TrialSpec
    from mpt.study.study import OpenStudy, StudyPlan


@dataclass(frozen=True, kw_only=True)
class PointStatus:
    """One point of a search."""

    index: int
    """Position of its trial on the leaderboard."""
    trial: TrialSpec
    steps: int
    record: Point | None
    """The stored point; None if there is none."""
    score: PointScore | None
    """None without a stored point, or while its baseline is not whole."""
    stopped: Stop | None = None
    """Why there is no point and none is waited for; None if there is one, or it is to come."""


class RecordedLeaderboard:
    """The points of trials whose keys are known, as the database has them.

    What is whole is read once.

    Stops count of `stoppers` alone, by name; None: everybody's.
    """

    def __init__(
        self,
        job: SearchJob,
        studies: Mapping[StudyPlan, StudyRecord],
        trials: Iterable[tuple[TrialSpec, str]],
        database: Database,
        stoppers: Collection[str] | None = None,
    ) -> None:
        self.job = job
        """What it is the leaderboard of."""
        self._database, self._store = database, TrialStore(database)
        stops = [s for s in database.stops() if stoppers is None or s.by in stoppers]
        self._stops = {stop.point: stop for stop in stops}
        self.trials: list[TrialSpec] = []
        self.upstream: list[str] = []
        """Key of each trial's upstream trajectory."""
        self.studies = dict(studies)
        """The record of every study."""
        self._keys: dict[tuple[int, int], str] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._index: dict[TrialSpec, int] = {}
        self._known: dict[tuple[int, int], PointStatus] = {}
        for trial, upstream in trials:
            self._add(trial, upstream)
        self.refresh()

    def _add(self, trial: TrialSpec, upstream: str) -> None:
        index = len(self.trials)
        study = self.studies[trial.plan].key
        for rung in trial.upstream.rungs:
            key = point_key(study, upstream, rung)
            self._keys[index, rung] = key
            self._places[key] = (index, rung)
        self.trials.append(trial)
        self.upstream.append(upstream)
        self._index[trial] = index

    def index_of(self, trial: TrialSpec) -> int | None:
        """Return the position of a trial, or None if it is not one of them."""
        return self._index.get(trial)

    def refresh(self, keys: Collection[str] | None = None) -> None:
        """Read what the database has of points that are not known yet.

        Of the points with some `keys` only; None: of all.
        """
        places = self._keys if keys is None else [self._places[key] for key in keys]
        open_ = {
            self._keys[position]: position
            for position in places
            if position not in self._known or self._known[position].score is None
        }
        points = self._database.points_of(list(open_))
        scores = self._store.scores(list(points))
        for key, position in open_.items():
            index, steps = position
            record = points.get(key)
            self._known[position] = PointStatus(
                index=index,
                trial=self.trials[index],
                steps=steps,
                record=record,
                score=scores.get(key),
                stopped=self._stop_at(index, steps) if record is None else None,
            )

    def entry(self, index: int, steps: int) -> PointStatus:
        """Return one point, as the last `refresh` found it."""
        if (index, steps) not in self._known:
            self.refresh([self._keys[index, steps]])
        return self._known[index, steps]

    def by_key(self, key: str) -> PointStatus | None:
        """Return the point with a key, as the last `refresh` found it; None: it is not here."""
        position = self._places.get(key)
        return None if position is None else self.entry(*position)

    def entries(self) -> list[PointStatus]:
        """Return all points in the job's order."""
        self.refresh()
        return [self._known[position] for position in self._keys]

    def point_key(self, entry: PointStatus) -> str:
        """Return the key of a point."""
        return self._keys[entry.index, entry.steps]

    def scored_of(self, plan: StudyPlan, method: str) -> list[tuple[Point, PointScore]]:
        """Return the scored points of a method in a study, whether the job has them or not."""
        points = self._database.points(self.studies[plan].key, method)
        scores = self._store.scores([point.key for point in points])
        return [(point, scores[point.key]) for point in points if point.key in scores]

    def of_trial(self, index: int) -> list[PointStatus]:
        """Return the points of a trial, by rung."""
        return [self.entry(index, rung) for rung in self.trials[index].upstream.rungs]

    def over(self, index: int) -> bool:
        """Return whether nothing is left to do on a trial: it is complete, or was stopped."""
        return all(e.record is not None or e.stopped is not None for e in self.of_trial(index))

    def baseline_there(self, plan: StudyPlan) -> bool:
        """Return whether plain prompt tuning of a study is whole."""
        return bool(self._database.points_of([point_key(self.studies[plan].key, "", 0)]))

    def baseline_scores(self, plan: StudyPlan) -> Scores | None:
        """Return task → data seed → test score of plain prompt tuning; None: it is not whole."""
        return self._store.baseline(self.studies[plan].key)

    def stop(self, index: int, steps: int, by: str, reason: str) -> Stop:
        """Store that a trial is stopped at a rung, or on the way to it."""
        stop = Stop(
            point=self._keys[index, steps],
            trial=self.trials[index].name,
            steps=steps,
            by=by,
            reason=reason,
            created=now(),
        )
        self._database.add_stop(stop)
        self._stops[stop.point] = stop
        self.refresh([self._keys[index, rung] for rung in self.trials[index].upstream.rungs])
        return stop

    def _stop_at(self, index: int, steps: int) -> Stop | None:
        """Return the stop because of which a point is not computed: at it, or at a rung before."""
        for rung in self.trials[index].upstream.rungs:
            stop = self._stops.get(self._keys[index, rung])
            if stop is not None and rung <= steps:
                return stop
        return None

    def run_costs(
        self, entries: Sequence[PointStatus], *, baselines: bool = True
    ) -> dict[str, float]:
        """Return the summed cost of every different run behind some points.

        Those of plain prompt tuning count where `baselines` are asked for.
        """
        points = [self.point_key(entry) for entry in entries if entry.record is not None]
        if baselines:
            studies = {self.studies[entry.trial.plan].key for entry in entries}
            points += [point_key(study, "", 0) for study in sorted(studies)]
        rows = {row.run: row for row in self._database.score_rows(points)}
        total = {"runs": float(len(rows)), "steps": 0.0, "tokens": 0.0, "seconds": 0.0}
        for row in rows.values():
            for name in ("steps", "tokens", "seconds"):
                total[name] += getattr(row, name)
        return total


class Leaderboard(RecordedLeaderboard):
    """The points of a job."""

    def __init__(
        self, job: SearchJob, studies: Callable[[StudyPlan], OpenStudy], database: Database
    ) -> None:
        records: dict[StudyPlan, StudyRecord] = {}
        upstream: dict[TrialSpec, str] = {}
        for plan in job.plans:  # each study is opened once
            study = studies(plan)
            records[plan] = study_record(study)
            for trial in job.known:
                if trial.plan == plan:
                    upstream[trial] = upstream_key(study, trial.upstream.config)
        known = [(trial, upstream[trial]) for trial in job.known]
        super().__init__(job, records, known, database, job.stoppers)

    def add(self, trial: TrialSpec, study: OpenStudy) -> int:
        """Take in a trial that the job did not list; return its position."""
        if trial not in self._index:
            self._add(trial, upstream_key(study, trial.upstream.config))
        return self._index[trial]


def ranked(entries: Sequence[PointStatus]) -> list[PointStatus]:
    """Return the scored points, best first.

    Equal scores keep the job's order, and within a trial fewer steps come first.
    """
    done = [e for e in entries if e.score is not None and e.trial.method != BASELINE]
    return sorted(done, key=lambda entry: -entry.score.score if entry.score else 0.0)
