"""Ray Tune as the dispatcher of trials (imports `ray`: only after `prepare_environment`)."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from mpt.search.trainable import SearchTrial

if TYPE_CHECKING:
    from mpt.search.display import Display
    from mpt.search.job import Execution, SearchJob
    from mpt.search.standing import Standings
    from mpt.search.time_left import TimeLeft


def tune_trials(
    job: SearchJob,
    execution: Execution,
    indices: Sequence[int],
    folder: Path,
    watcher: Watcher,
) -> None:
    """Run the trials of these courses, in order; return when all ended or Tune was stopped.

    Which trials failed is in `watcher.failures`: `Tuner.fit` does not raise for them.
    """
    tuner = tune.Tuner(
        # not `tune.with_parameters`: it would hide the class's name from `ps` and the dashboard
        SearchTrial,
        param_space={
            "trial": tune.grid_search([_trial(watcher.standings, index) for index in indices]),
            "gpus": execution.gpus_per_trial,
            "device": execution.device,
            "results": job.results,
            "chunk_s": job.chunk_s,
            "keep_prompts": job.keep_prompts,
        },
        tune_config=tune.TuneConfig(
            # A process that goes on with the next trajectory saves its start. On a cluster every
            # trial has a process of its own, which the dashboard shows under the trial's name.
            reuse_actors=execution.address == "local" and execution.gpus_per_trial == 0,
            trial_dirname_creator=_short_name,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            callbacks=[watcher],
            failure_config=tune.FailureConfig(max_failures=execution.max_failures),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0, checkpoint_at_end=False
            ),
        ),
    )
    with warnings.catch_warnings(), _quiet_output():
        warnings.simplefilter("ignore")  # Ray's deprecation notes to itself
        tuner.fit()


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
        self.failures: dict[int, str] = {}
        """Course → why it failed for good."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its callbacks, and nobody reads that."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Take in one report."""
        with self._shielded():
            self._left.report(result)
            for problem in result["problems"]:
                self._show.problem(problem)
            if result["failure"] is not None:
                self.failures[result["index"]] = result["failure"]
            for steps in result["landed"]:
                self._landed(result["index"], steps)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a trial goes on in another process."""
        with self._shielded():
            name = trial.config["trial"]["course"].name
            self._show.say(f"note: {name}: its worker died; it goes on from its last checkpoint")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial that failed for good."""
        with self._shielded():
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
    def _shielded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):
                self._show.problem(f"the display failed: {error!r}; the search goes on")
