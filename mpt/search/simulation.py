"""A search on recorded results: the real searcher and scheduler, simulated workers and time.

The points and runs of one stored study are a table of scores and seconds. A trial is a row of
stages: upstream learning up to a rung, then the runs of one data seed after the other. Each takes
the seconds on record. Between stages the same rules decide as in a live search. The plain prompt
tuning that all points share is taken as done.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from mpt.errors import UsageError
from mpt.search.dispatch import TrialGroup, flat_config, rung_report
from mpt.search.ray.schedulers import STOP, RecordedTrial, RungScheduler, StopDecision, asha
from mpt.search.ray.searchers import OptunaSearcher, TrialQueue
from mpt.store.database import open_results
from mpt.store.records import ScoreRow, StudyRecord, lr_order
from mpt.study.choice import chosen, only_protocol, point_config
from mpt.study.specs import TrialSpec
from mpt.study.study import absolute_backbone
from mpt.trial.racing import hopeless, leader_low
from mpt.trial.score import PlannedScore, PointScore
from mpt.trial.store import TrialStore

if TYPE_CHECKING:
    from mpt.search.job import SearchJob
    from mpt.store.database import Database
    from mpt.store.records import Point
    from mpt.study.specs import MethodConfig


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

        There are the runs of some data `seeds`; `leaders` stand in the order in which they came.
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


@dataclass
class SimulatedTrial:
    """What became of one trial."""

    spec: TrialSpec
    began: float
    """Simulated seconds."""
    ended: float = 0.0
    busy: float = 0.0
    """Seconds of work."""
    scores: dict[int, float] = field(default_factory=dict)
    """Rung → score, of the rungs it reached."""
    stopped: StopDecision | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a simulated search found, and at what cost."""

    trials: tuple[SimulatedTrial, ...]
    """In the order they were started."""
    winner: tuple[TrialSpec, int, float]
    """Trial, rung and score of the best point found."""
    regret: float
    """Best score of all recorded points minus the winner's (ARG, points of %)."""
    saved: float
    """Share of the cost of all recorded points that was not spent."""
    seconds: float
    """Simulated seconds until the end."""


class Simulation:
    """One search on recorded results."""

    def __init__(self, recorded: Recorded, job: SearchJob, workers: int) -> None:
        self._recorded, self._job, self._idle = recorded, job, workers
        self._specs: list[TrialSpec] = []
        self._trials: list[SimulatedTrial] = []
        self._seen: list[RecordedTrial] = []
        """The trials as the scheduler sees them."""
        self._landed: list[PointScore] = []
        self._problems: list[str] = []
        suggestions = job.suggestions
        self._queue = TrialQueue(
            [self._config(spec) for spec in job.trials] if suggestions is None else [],
            None if suggestions is None else OptunaSearcher(suggestions, None),
            self._accept,
            recorded=lambda settings: None,
            shield=lambda what: contextlib.nullcontext(),  # there is no experiment to protect
        )
        halves = job.scheduler == "asha"
        self._scheduler = RungScheduler(
            asha(job.trials[0].upstream.rungs) if halves else None,
            "asha",
            racing=job.racing,
            group_of=lambda config: config["method"],
            on_stop=self._stop,
            on_problem=self._problems.append,
        )

    def _config(self, spec: TrialSpec) -> dict[str, Any]:
        self._specs.append(spec)
        number = len(self._specs) - 1
        return flat_config(TrialGroup(specs=(spec,), indices=(number,)), number)

    def _accept(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration of a trial with suggested settings."""
        assert self._job.suggestions is not None
        return self._config(self._job.suggestions.trial(settings))

    def run(self) -> Outcome:
        """Run to the end.

        Raises:
            UsageError: a point is not recorded (named), or there is nothing to try.
        """
        events: list[tuple[float, int, int, Iterator[float]]] = []
        count, now = itertools.count(), 0.0
        while True:
            while self._idle and self._start(now):
                self._idle -= 1
                index = len(self._trials) - 1
                heapq.heappush(events, (now, next(count), index, self._stages(index)))
            if not events:
                return self._outcome(now)
            now, _, index, stages = heapq.heappop(events)
            trial = self._trials[index]
            trial.ended = now
            seconds = next(stages, None)
            if seconds is None:
                self._idle += 1
                seen = self._seen[index]
                self._queue.on_trial_complete(seen.trial_id, dict(seen.last_result) or None)
            else:
                trial.busy += seconds
                heapq.heappush(events, (now + seconds, next(count), index, stages))

    def _start(self, now: float) -> bool:
        """Start the next trial; return whether there is one."""
        name = f"simulated-{len(self._trials)}"
        config = self._queue.suggest(name)
        finished: Any = Searcher.FINISHED
        if config is None or config == finished:
            return False
        self._trials.append(SimulatedTrial(self._specs[config["trial"]], now, now))
        self._seen.append(RecordedTrial(name, {**config, "trial": len(self._trials) - 1}, {}))
        return True

    def _stages(self, index: int) -> Iterator[float]:
        """Yield the seconds of one stage after the other; what follows happens at its end."""
        trial = self._trials[index]
        spent = 0.0
        for steps in trial.spec.upstream.rungs:
            point = self._recorded.point(trial.spec, steps)
            yield point.cost.seconds - spent
            spent = point.cost.seconds
            if point.status == "diverged":  # and so it is at all later rungs
                self._land(index, [n for n in trial.spec.upstream.rungs if n >= steps])
                return
            seconds = self._recorded.seed_seconds(point)
            for number, seed in enumerate(seconds, start=1):
                yield seconds[seed]
                if self._job.racing and number < len(seconds):
                    seeds = list(seconds)[:number]
                    reason = self._recorded.hopeless(point, seeds, self._landed)
                    if reason is not None:
                        trial.stopped = StopDecision(steps, "racing", reason)
                        return
            if self._land(index, [steps]) == STOP:
                return

    def _land(self, index: int, rungs: Sequence[int]) -> str:
        """Take in points; return what the scheduler says to their report."""
        trial = self._trials[index]
        seen: Any = self._seen[index]  # to a scheduler it is a trial
        for steps in rungs:
            score = self._recorded.score(trial.spec, steps)
            trial.scores[steps] = score.score
            self._landed.append(score)
        every = {steps: self._recorded.score(trial.spec, steps) for steps in trial.scores}
        last = rungs[-1] == trial.spec.upstream.rungs[-1]
        report = {
            **rung_report(trial.spec.upstream.rungs, every),
            "steps": rungs[-1],
            "training_iteration": len(every),
            "done": last,
        }
        seen.last_result = report
        answer = "CONTINUE"
        if last:
            self._scheduler.on_trial_complete(None, seen, report)
        else:
            answer = self._scheduler.on_trial_result(None, seen, report)
        if answer != STOP:
            self._queue.on_trial_result(seen.trial_id, report)
        if self._problems:
            raise RuntimeError(self._problems[0])
        return answer

    def _stop(self, index: int, decision: StopDecision) -> None:
        self._trials[index].stopped = decision

    def _outcome(self, now: float) -> Outcome:
        scored = [
            (trial.spec, steps, score)
            for trial in self._trials
            for steps, score in trial.scores.items()
        ]
        if not scored:
            raise UsageError("the simulated search has no point: there is nothing to try")
        winner = max(scored, key=lambda one: one[2])
        return Outcome(
            trials=tuple(self._trials),
            winner=winner,
            regret=self._recorded.best - winner[2],
            saved=1 - sum(trial.busy for trial in self._trials) / self._recorded.seconds,
            seconds=now,
        )


def simulate(
    recorded: Recorded, job_of: Callable[[int], SearchJob], seeds: int, workers: int
) -> list[Outcome]:
    """Run the same search with several seeds."""
    return [Simulation(recorded, job_of(number), workers).run() for number in range(seeds)]


def check_recorded(recorded: Recorded, trials: Sequence[TrialSpec]) -> None:
    """Refuse a list of trials with points that are not recorded.

    Raises:
        UsageError: some are not; up to five are named.
    """
    missing = [name for trial in trials for name in recorded.missing(trial)]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UsageError(
            f"--simulate lacks {len(missing)} points of this search: {', '.join(missing[:5])}"
            f"{more}; run it there first, without --scheduler and --racing"
        )
