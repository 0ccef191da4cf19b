"""Ray Tune as the dispatcher of trials (imports `ray`: only after `prepare_environment`)."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.search import Searcher

from mpt.search.display.status import Status
from mpt.search.lock import driver_mark
from mpt.search.ray.schedulers import Judge, RungScheduler, Verdict
from mpt.search.ray.trackers import trackers
from mpt.search.ray.trainable import SearchTrial

if TYPE_CHECKING:
    from mpt.search.cost.time_left import TimeLeft
    from mpt.search.display.display import Display
    from mpt.search.feed import Feed
    from mpt.search.job import Execution, SearchJob
    from mpt.search.standing import Standings
    from mpt.search.stops import Stop
    from mpt.trial.objective import PointScore


PENDING = 200
"""Trials of a list that wait for a place at the most: an autoscaler adds nodes for them."""


def tune_trials(
    job: SearchJob, execution: Execution, feed: Feed, slots: int, folder: Path, watcher: Watcher
) -> None:
    """Run the trials of a job's courses; return when all ended or Tune was stopped.

    Which trials failed is in `watcher.failures`: `Tuner.fit` does not raise for them.

    Args:
        job: what is searched.
        execution: where and how.
        feed: says which course is next.
        slots: trials that can run at once; a search that learns from scores starts no more.
        folder: for Tune's own files.
        watcher: sees every report, and what is stopped.
    """
    tuner = tune.Tuner(
        # not `tune.with_parameters`: it would hide the class's name from `ps` and the dashboard
        SearchTrial,
        param_space={
            "gpus": execution.gpus_per_trial,
            "device": execution.device,
            "results": job.results,
            "driver": driver_mark(job.results),
            "chunk_s": job.chunk_s,
            "keep_prompts": job.keep_prompts,
            "racing": job.racing,
        },
        tune_config=tune.TuneConfig(
            search_alg=CourseSearcher(feed, watcher),
            scheduler=_scheduler(job, watcher),
            num_samples=-1,  # as many as the feed has
            max_concurrent_trials=slots if job.search else max(PENDING, 2 * slots),
            # A process that goes on with the next trajectory saves its start. On a cluster every
            # trial has a process of its own, which the dashboard shows under the trial's name.
            reuse_actors=execution.address == "local" and execution.gpus_per_trial == 0,
            trial_dirname_creator=_short_name,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            callbacks=[watcher, *trackers(execution, job.results, watcher.problem)],
            failure_config=tune.FailureConfig(max_failures=execution.max_failures),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0, checkpoint_at_end=False
            ),
        ),
    )
    with warnings.catch_warnings(), _quiet_output():
        warnings.simplefilter("ignore")  # Ray's deprecation notes to itself
        tuner.fit()


class CourseSearcher(Searcher):
    """Hands Tune one course after the other, whoever chooses them.

    Tune ends the experiment if a searcher raises; an error here ends the supply of courses, and
    what is missing then is said at the end.
    """

    def __init__(self, feed: Feed, watcher: Watcher) -> None:
        super().__init__()
        self._feed, self._watcher = feed, watcher
        self._indices: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its searcher, and nobody reads that."""
        return {}

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Accept that there is no space of Tune's."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the configuration of the next trial, or that there is none any more."""
        with self._watcher.shielded("the choice of the next course"):
            index = self._feed.next()
            if index is not None:
                self._indices[trial_id] = index
                return {"trial": _trial(self._watcher.standings, index)}
        finished: Any = Searcher.FINISHED
        return finished

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the feed; what the course has reached is on record."""
        with self._watcher.shielded("the choice of the next course"):
            self._feed.ended(self._indices[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the feed is made from the records."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


def _scheduler(job: SearchJob, watcher: Watcher) -> RungScheduler | None:
    """Return who stops trials at rungs, told of what is on record; None if nobody does."""
    if not job.stoppers:
        return None
    standings = watcher.standings

    def score_of(index: int, steps: int) -> PointScore | None:
        return standings.entry(index, steps).score

    judge = Judge(
        standings.courses, asha=job.scheduler == "asha", racing=job.racing, score_of=score_of
    )
    for index in range(len(standings.courses)):
        judge.replay(index, standings.rung_scores(index))
    return RungScheduler(judge, watcher.stop, watcher.problem)


def _trial(standings: Standings, index: int) -> dict[str, Any]:
    """Return what a worker is told of a course."""
    return {"index": index, "course": standings.courses[index], "key": standings.keys[index]}


def _short_name(trial: Any) -> str:
    return f"trial-{trial.config['trial']['index']}"


@contextlib.contextmanager
def _quiet_output() -> Iterator[None]:
    """Keep Tune's rich output off even where the user's environment asks for it."""
    old = os.environ.get("AIR_VERBOSITY")
    os.environ.pop("AIR_VERBOSITY", None)
    try:
        yield
    finally:
        if old is not None:
            os.environ["AIR_VERBOSITY"] = old


class Watcher(tune.Callback):
    """Prints points as they land. Tune ends the experiment if a callback raises: none may."""

    def __init__(self, show: Display, standings: Standings, left: TimeLeft) -> None:
        self._show, self.standings, self._left = show, standings, left
        self._scores = {
            (entry.index, entry.steps): entry.score.score
            for entry in standings.entries()
            if entry.score is not None
        }
        self._status = Status()
        self.failures: dict[int, str] = {}
        """Course → why it failed for good."""

        self._stops: list[Stop] = []

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its callbacks, and nobody reads that."""
        return {}

    def problem(self, text: str) -> None:
        """Say what went wrong, once."""
        self._show.problem(text)

    def stop(self, index: int, verdict: Verdict) -> None:
        """Put a stop on record; it is said after the point that led to it."""
        self._stops.append(self.standings.stop(index, *verdict))
        self._left.stopped(index)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Take in one report."""
        with self.shielded("the display"):
            index = result["index"]
            self._left.report(result)
            self._status.report(index, result.get("tuning"))
            for problem in result["problems"]:
                self._show.problem(problem)
            if result["failure"] is not None:
                self.failures[index] = result["failure"]
            for steps in result["landed"]:
                self._landed(index, steps)
            if result.get("stopped") is not None:  # on the way to a rung, by the trial itself
                self.stop(index, Verdict(by="racing", **result["stopped"]))
            for stop in self._stops:
                self._show.stopped(stop)
            self._stops.clear()
            self._show.status(self._status.text(self._left.seconds))

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Forget a trial's runs."""
        with self.shielded("the display"):
            self._status.report(trial.config["trial"]["index"], None)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a trial goes on in another process."""
        with self.shielded("the display"):
            name = trial.config["trial"]["course"].name
            self._show.say(f"note: {name}: its worker died; it goes on from its last checkpoint")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial that failed for good."""
        with self.shielded("the display"):
            error = trial.get_error()
            text = str(error).strip().splitlines()
            reason = text[-1] if text else "unknown reason"
            self.failures[trial.config["trial"]["index"]] = (
                f"{reason} (details: {trial.error_file})"
            )

    def _landed(self, index: int, steps: int) -> None:
        entry = self.standings.entry(index, steps)
        if entry.score is None:
            return
        self._scores[index, steps] = entry.score.score
        best = max(self._scores.values())
        self._show.landed(entry, len(self._scores), best, self._left.seconds)

    @contextlib.contextmanager
    def shielded(self, what: str) -> Iterator[None]:
        """Turn an error into a note; Tune would end the experiment."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):
                self._show.problem(f"{what} failed: {error!r}; the search goes on")
