"""Ray Tune runs the trials (imports `ray`: only after `prepare_environment`)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ray import cloudpickle, tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from mpt.errors import MptError
from mpt.search.dispatch import Round, TrialGroup, flat_config, rung_report
from mpt.search.display.status import Status
from mpt.search.ray.kept_workers import patient
from mpt.search.ray.schedulers import RungScheduler, StopDecision, Unsaved, asha, rivals_of
from mpt.search.ray.searchers import Counted, OptunaSearcher, TrialQueue
from mpt.search.ray.session import first_line
from mpt.search.ray.trackers import trackers
from mpt.search.ray.trainable import SearchTrial, TrialContext
from mpt.search.ray.writer import start_writer
from mpt.search.replication import replicate_config
from mpt.store.records import Artifact
from mpt.trial.origin import now
from mpt.trial.trial import TrialOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpt.search.cost.time_left import TimeLeft
    from mpt.search.display.display import Display
    from mpt.search.job import Execution, SearchJob
    from mpt.search.leaderboard import Leaderboard
    from mpt.search.watch.note import NoteKeeper
    from mpt.store.database import Database
    from mpt.store.records import Stop
    from mpt.study.study import OpenStudy, StudyPlan
    from mpt.trial.score import PointScore

PENDING = 200
"""Trials of a list that wait for a place at the most: an autoscaler adds nodes for them."""

_NOTE = "the note for those who watch"

CHECKPOINTS = "checkpoints"
"""Folder of Tune's files, below the root of the artifacts."""


class Session:
    """One call of Tune: what runs, who chooses, who stops, who watches.

    With `following` it asks, once all trials have ended, for the next round of replicates of the
    job's trials, until there is none: workers that have started stay for it.
    """

    def __init__(
        self,
        job: SearchJob,
        execution: Execution,
        board: Leaderboard,
        groups: Sequence[TrialGroup],
        database: Database,
        studies: Callable[[StudyPlan], OpenStudy],
        show: Display,
        time_left: TimeLeft,
        note: NoteKeeper,
        name: str,
        following: Callable[[Leaderboard], Round | None] | None = None,
    ) -> None:
        self._job, self._execution, self._board = job, execution, board
        self._following = following
        self._groups = list(groups)
        self._database, self._studies, self._name = database, studies, name
        self._queue: TrialQueue | None = None
        folder = _below(job.files, f"{CHECKPOINTS}/{name}")
        self.watcher = Watcher(show, board, self._groups, database, time_left, note, folder)

    def run(self, slots: int) -> None:
        """Run the trials; return when all ended or Tune was stopped.

        Which trials failed is in `watcher.failures`: `Tuner.fit` does not raise for them.

        A search that learns from scores starts no more trials than run at once, `slots`.
        """
        job, execution, suggestions = self._job, self._execution, self._job.suggestions
        if suggestions is not None:  # a searcher may not be fit to be sent to workers
            suggestions = dataclasses.replace(suggestions, searcher="optuna")
        writer = start_writer(job.url)
        context = TrialContext(
            groups=tuple(self._groups),
            suggestions=suggestions,
            url=job.url,
            writer=writer,
            files=job.files,
            options=TrialOptions(
                chunk_s=job.chunk_s,
                keep_prompts=job.keep_prompts,
                racing=job.racing,
                wait=job.decides,
            ),
            device=execution.device,
            keys=self._keys(),
            methods=self._methods(),
            trials=job.trials if self._following is not None else (),
        )
        trainable: Any = tune.with_parameters(SearchTrial, context=context)
        trainable.__qualname__ = SearchTrial.__qualname__  # what `ps` and the dashboard show
        tuner = tune.Tuner(
            trainable,
            param_space={},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                search_alg=self._searcher(),
                scheduler=self._scheduler(),
                num_samples=-1,  # as many as the queue has
                max_concurrent_trials=slots if job.suggestions else max(PENDING, 2 * slots),
                # A process that goes on with the next trial saves its start. On a cluster every
                # trial has a process of its own, which the dashboard shows under its name.
                reuse_actors=execution.address == "local" and execution.gpus_per_trial == 0,
                trial_dirname_creator=_short_name,
            ),
            run_config=tune.RunConfig(
                name=self._name,
                storage_path=_below(job.files, CHECKPOINTS),
                verbose=0,
                callbacks=[self.watcher, *self._trackers()],
                failure_config=tune.FailureConfig(max_failures=execution.max_failures),
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=1, checkpoint_at_end=True, num_to_keep=2
                ),
            ),
        )
        with warnings.catch_warnings(), _quiet_output(), patient():
            warnings.simplefilter("ignore")  # Ray's deprecation notes to itself
            try:
                tuner.fit()
            except MptError:
                raise
            except Exception as error:  # what was finished is in the database
                self.watcher.problem(ended_with(error))
            finally:
                _end(writer)

    def _trackers(self) -> list[tune.Callback]:
        watcher = self.watcher
        return trackers(
            self._execution,
            self._job.results,
            lambda config: watcher.groups[int(config["trial"])].name,
            watcher.problem,
        )

    @property
    def board(self) -> Leaderboard:
        """With the trials of all rounds."""
        return self._board

    @property
    def exhausted(self) -> bool:
        """Whether every trial that is to be chosen has been."""
        return self._queue is not None and self._queue.exhausted

    def _keys(self) -> dict[int, str]:
        """Return the number of a listed trial → key of its upstream trajectory."""
        return {
            number: self._board.upstream[group.indices[0]]
            for number, group in enumerate(self._groups)
            if group.indices and not group.specs[0].tasks
        }

    def _methods(self) -> dict[str, Any]:
        """Return the registered methods that the job uses, ready to be sent to workers.

        Workers cannot import a script, a plugin or a notebook's cell; what is installed they can.
        """
        names = {trial.method for trial in self._job.trials}
        used = {n: one for n, one in self._execution.methods.items() if n in names}
        for method in used.values():
            module = sys.modules.get(getattr(method.outer_gradient, "__module__", ""))
            file = getattr(module, "__file__", None)
            if module is not None and file is not None and "site-packages" not in file:
                cloudpickle.register_pickle_by_value(module)
        return used

    def _searcher(self) -> Searcher:
        listed = [self._config(group, number) for number, group in enumerate(self._groups)]
        self._queue = TrialQueue(
            listed,
            searcher_of(self._job),
            self._accept,
            self._recorded,
            self.watcher.shielded,
            None if self._following is None else self._next_round,
        )
        return self._queue

    def _next_round(self) -> list[dict[str, Any]]:
        """Turn to the next round; return the configurations of its trials, none: there is none."""
        following = None if self._following is None else self._following(self._board)
        if following is None:
            return []
        upstream, begin = following.board.upstream, len(self.watcher.groups)
        configs = [
            {
                **self._config(group, number),
                **replicate_config(self._job.trials, group.specs[0]),
                "upstream_key": upstream[group.indices[0]],
            }
            for number, group in enumerate(following.groups, start=begin)
        ]
        self._board = following.board
        self.watcher.turn_to(following)
        return configs

    def _config(self, group: TrialGroup, number: int) -> dict[str, Any]:
        """Return the configuration of a trial, with the id of the study its reports are of."""
        study = self._board.studies[group.specs[0].plan].id
        gpus = self._execution.gpus_per_trial
        return {**flat_config(group, number), "study": study, "gpus": gpus}

    def _accept(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Take in suggested settings; return a configuration, or None if its trial is over."""
        suggestions = self._job.suggestions
        assert suggestions is not None
        spec = suggestions.trial(settings)
        index = self._board.add(spec, self._studies(spec.plan))
        if self._board.over(index):
            return None
        group = TrialGroup(specs=(spec,), indices=(index,))
        self.watcher.groups.append(group)
        return {**settings, **self._config(group, len(self.watcher.groups) - 1)}

    def _recorded(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Return the last report of a trial that is over."""
        assert self._job.suggestions is not None
        index = self._board.index_of(self._job.suggestions.trial(settings))
        reports = [] if index is None else recorded_reports(self._board, index)
        return reports[-1] if reports else None

    def _scheduler(self) -> TrialScheduler | None:
        """Return who stops trials at rungs, told of what is on record; None if nobody does."""
        job = self._job
        if not job.stoppers:
            return None
        inner, name = job.scheduler, type(job.scheduler).__name__
        if isinstance(inner, str):
            name = inner
            inner = asha(job.trials[0].upstream.rungs) if inner == "asha" else None
        scheduler = RungScheduler(
            inner,
            name,
            racing=job.racing,
            group_of=rivals_of,
            on_stop=self.watcher.stop,
            on_problem=self.watcher.problem,
        )
        scheduler.set_search_properties("score", "max")
        for index, trial in enumerate(self._board.trials):
            reports = recorded_reports(self._board, index)
            if reports:
                config = self._config(TrialGroup(specs=(trial,), indices=(index,)), -1 - index)
                scheduler.replay(config, reports, over=self._board.over(index))
        return scheduler


def ended_with(error: Exception) -> str:
    """Return in one line that Tune has ended with an error, and what helps if memory was full."""
    said = f"Ray Tune ended with {type(error).__name__}: {first_line(error)}"
    if "low on memory" in said:
        said += "; take fewer --workers, or end what else fills the memory"
    return f"{said}; what was finished is kept"


def searcher_of(job: SearchJob) -> Searcher | None:
    """Return who suggests further trials of a job; None if its trials are listed."""
    suggestions = job.suggestions
    if suggestions is None:
        return None
    if suggestions.by_optuna:
        return OptunaSearcher(suggestions, job.url)
    return Counted(suggestions)


def recorded_reports(board: Leaderboard, index: int) -> list[dict[str, Any]]:
    """Return the reports that a trial made at its rungs, from what is stored."""
    rungs = board.trials[index].upstream.rungs
    reports: list[dict[str, Any]] = []
    scores: dict[int, PointScore] = {}
    for iteration, steps in enumerate(rungs, start=1):
        score = board.entry(index, steps).score
        if score is None:
            break
        scores[steps] = score
        own = {"steps": steps, "training_iteration": iteration, "done": iteration == len(rungs)}
        reports.append({**rung_report(rungs, scores), **own})
    return reports


def _end(writer: Any) -> None:
    """Let the writer close its database, and end it."""
    if writer is None:
        return
    import ray

    with contextlib.suppress(Exception):
        ray.get(writer.close.remote(), timeout=30)
        ray.kill(writer)


def _below(uri: str, name: str) -> str:
    """Return the URI of a folder below a root; options in the root's query stay at the end."""
    root, mark, query = uri.partition("?")
    return f"{root.rstrip('/')}/{name}{mark}{query}"


def _short_name(trial: Any) -> str:
    return f"trial-{trial.config['trial']}"


@contextlib.contextmanager
def _quiet_output() -> Iterator[None]:
    """Keep Tune's rich output off even where the user's environment asks for it."""
    old = os.environ.pop("AIR_VERBOSITY", None)
    try:
        yield
    finally:
        if old is not None:
            os.environ["AIR_VERBOSITY"] = old


class Watcher(Unsaved, tune.Callback):
    """Prints points as they land, and stores where checkpoints are.

    Tune ends the experiment if a callback raises: none may.
    """

    def __init__(
        self,
        show: Display,
        board: Leaderboard,
        groups: list[TrialGroup],
        database: Database,
        time_left: TimeLeft,
        note: NoteKeeper,
        folder: str,
    ) -> None:
        self._show, self.board, self.groups = show, board, groups
        self._database, self._time_left, self._folder = database, time_left, folder
        self._note = note
        self._scores: list[float] = []
        self._said: set[str] = set()
        self._take_in_scores()
        self._pending: set[str] = set()
        self._status = Status()
        self.failures: dict[str, str] = {}
        """Name of a trial → why it failed for good."""
        self._stops: list[Stop] = []

    def turn_to(self, following: Round) -> None:
        """Take in the trials of another round."""
        self.board, self._time_left = following.board, following.time_left
        self.groups += following.groups
        self._take_in_scores()

    def _take_in_scores(self) -> None:
        """Take what has a score already as said."""
        for entry in self.board.entries():
            key = self.board.point_key(entry)
            if entry.score is not None and key not in self._said:
                self._said.add(key)
                self._scores.append(entry.score.score)

    def problem(self, text: str) -> None:
        """Say what went wrong, once."""
        self._show.problem(text)

    def stop(self, number: int, decision: StopDecision) -> None:
        """Store a stop; it is said after the point that led to it."""
        for index in self.groups[number].indices[:1]:
            self._stops.append(self.board.stop(index, *decision))
            self._time_left.stopped(index)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Take in one report."""
        number = int(trial.config["trial"])
        with self.shielded("the display"):
            group = self.groups[number]
            self._time_left.report(group.indices[0] if group.indices else None, number, result)
            self._status.report(number, result.get("queue"), result.get("choosing"))
            for problem in result["problems"]:
                self._show.problem(problem)
            if result["failure"] is not None:
                self.failures[group.name] = result["failure"]
            self._land(result["landed"])
            if result.get("stopped") is not None:  # on the way to a rung, by the trial itself
                self.stop(number, StopDecision(by="racing", **result["stopped"]))
            for stop in self._stops:
                self._show.stopped(stop)
            self._stops.clear()
            self._show.status(self._status.text(self._time_left.seconds))
        with self.shielded(_NOTE):
            group, steps = self.groups[number], int(result["steps"])
            self._note.report(group, steps, result.get("queue"), result.get("choosing"))

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Forget a trial's runs; print points that it had stored when a worker of it died."""
        number = int(trial.config["trial"])
        with self.shielded("the display"):
            self._status.report(number, None)
            keys = [
                self.board.point_key(point)
                for index in self.groups[number].indices
                for point in self.board.of_trial(index)
            ]
            self.board.refresh([key for key in keys if key not in self._said])
            points = {key: self.board.by_key(key) for key in keys}
            self._land([key for key, point in points.items() if point and point.record])
        with self.shielded(_NOTE):
            self._note.over(self.groups[number])

    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        """Store where the newest checkpoint of a trial is."""
        with self.shielded("the note of a checkpoint"):
            result: Mapping[str, Any] = trial.last_result or {}
            owner = result.get("owner")
            if owner:
                inside = f"{_short_name(trial)}/{os.path.basename(checkpoint.path)}"
                self._database.add_artifact(
                    Artifact(
                        kind="checkpoint",
                        owner=owner,
                        steps=int(result["steps"]),
                        uri=_below(self._folder, inside),
                        created=now(),
                    )
                )

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a trial goes on in another process."""
        with self.shielded("the display"):
            name = self.groups[int(trial.config["trial"])].name
            self._show.say(f"note: {name}: its worker died; it goes on from its last checkpoint")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial that failed for good."""
        group, reason = self.groups[int(trial.config["trial"])], "unknown reason"
        with self.shielded("the display"):
            with contextlib.suppress(Exception):  # its file may not have been written
                reason = str(trial.get_error()).strip().splitlines()[-1]
            self.failures[group.name] = f"{reason} (details: {trial.error_file})"
        with self.shielded(_NOTE):
            self._note.over(group)

    def _land(self, keys: Sequence[str]) -> None:
        """Print the points that have a score now; one without a baseline is looked at again."""
        new = {key for key in keys if self.board.by_key(key) is not None}
        self._pending |= new - self._said
        if not self._pending:
            return
        self.board.refresh(self._pending)
        for key in sorted(self._pending):
            entry = self.board.by_key(key)
            if entry is not None and entry.score is not None:
                self._pending.discard(key)
                self._said.add(key)
                self._scores.append(entry.score.score)
                best, done = max(self._scores), len(self._scores)
                self._show.landed(entry, done, best, self._time_left.seconds)

    @contextlib.contextmanager
    def shielded(self, what: str) -> Iterator[None]:
        """Turn an error into a note; Tune would end the experiment."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):
                self._show.problem(f"{what} failed: {error!r}; the search goes on")
