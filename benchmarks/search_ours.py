"""Our side of `search_cost.py`: trials as a search's workers do them, one or several."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from search_sides import PARTS, Timed, point_name

from mpt.downstream.evaluation import Evaluator
from mpt.store.artifacts import Artifacts
from mpt.store.database import open_results
from mpt.store.records import BASELINE, point_key
from mpt.study.record import study_record
from mpt.study.specs import TrialSpec, UpstreamSpec, baseline_trials
from mpt.study.study import Study
from mpt.trial.files import load_rung
from mpt.trial.opening import open_trial
from mpt.trial.runs import baseline_packs, learned_packs, upstream_key
from mpt.trial.store import TrialStore
from mpt.upstream.engine import UpstreamRun

WAITING = "waiting"
"""Part of a crew: workers that have nothing left to do while another one still works."""
START_S = 600
"""Seconds within which every worker must have opened the study."""


class Ours(Timed):
    """Trajectories with rungs, shared baselines, packs and one-pass evaluation, in a database.

    Args:
        study: what is scored.
        results: folder of the database.
        clock: what to take seconds from.
    """

    name = "ours"

    def __init__(
        self, study: Study, results: Path, clock: Callable[[], float] = time.process_time
    ):
        super().__init__(clock)
        self._study, self._results = study, results
        self._database = open_results(results)
        self._store, self._files = TrialStore(self._database), Artifacts(str(results))
        self._store.add_study(study_record(study))
        self._at_baselines = False

    def steps(self, trajectory: UpstreamSpec) -> int:
        """Return the steps of the longest: the others are passed on the way."""
        return max(trajectory.rungs)

    def baselines(self, points: int) -> int:
        """Return one tuning for all."""
        return 1

    def points(self, trajectory: UpstreamSpec) -> Iterator[None]:
        """Score the points and read their numbers; yield after each."""
        for spec in baseline_trials(self._study.plan):
            self.work(spec)
        self.work(TrialSpec(plan=self._study.plan, upstream=trajectory))
        for steps in trajectory.rungs:
            self.read(trajectory, steps)
            yield

    def work(self, spec: TrialSpec) -> None:
        """Do a trial as a search's worker does; what is stored already is left alone."""
        trial = open_trial([self._study], [spec], self._store, self._files)
        self._at_baselines = spec.method == BASELINE
        # All that is not upstream, evaluation or baseline: steps, tables, the database.
        part = "baselines" if self._at_baselines else "training"
        with self.timed(part), self._watched():
            for _ in trial.units():
                continue
        self._at_baselines = False

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Time upstream learning and evaluation wherever they are called."""
        watched = (
            (UpstreamRun, "advance", self._timing("upstream")),
            (Evaluator, "scores", self._timing("evaluation")),
        )
        with contextlib.ExitStack() as stack:
            for kind, method, timing in watched:
                timed = timing(getattr(kind, method))
                stack.enter_context(mock.patch.object(kind, method, timed))
            yield

    def _timing(self, part: str) -> Callable[[Any], Any]:
        def around(method: Any) -> Any:
            def timed(*arguments: Any, **named: Any) -> Any:
                if self._at_baselines:  # evaluation there is theirs
                    return method(*arguments, **named)
                with self.timed(part):
                    return method(*arguments, **named)

            return timed

        return around

    def read(self, trajectory: UpstreamSpec, steps: int) -> None:
        """Take the numbers of a point from the database."""
        study, name = self._study, point_name(trajectory, steps)
        upstream = upstream_key(study, trajectory.config)
        device = study.backbone.device
        rung = load_rung(self._store, self._files, upstream, steps, device)
        if rung is None:
            raise RuntimeError(f"{name} diverged; take another point")
        owners = ((name, learned_packs(study, rung.prompt)), (f"baseline of {name}", None))
        for owner, packs in owners:
            runs = [run for pack in packs or baseline_packs(study) for run in pack.runs]
            stored = self._database.runs([run.key for run in runs])
            for run in runs:
                found = stored[run.key]
                assert found.dev is not None
                assert found.test is not None
                place = owner, run.task.name, run.task.seed, run.lr
                self.runs[place] = found.dev, found.test
        score = self._store.score(point_key(study_record(study).key, upstream, steps))
        gain = None if score is None else score.gain
        self.args[name] = None if gain is None else gain.arg_of_defined


@dataclass(frozen=True)
class Shift:
    """A trial in the hands of a worker."""

    began: float
    """By a clock that all processes of the machine share."""
    ended: float
    seconds: dict[str, float]
    """What its parts took."""


class Crew(Ours):
    """Several workers that share the points as a search's do: one process and one thread each.

    A worker takes the next trial when it has finished one, those of the baselines first. The clock
    runs from when all of them have opened the study until the last is through.

    Args:
        study: what is scored.
        results: folder of the database.
        opener: opens the same study in a worker; it is pickled.
        workers: how many.
    """

    def __init__(
        self, study: Study, results: Path, opener: Callable[[], Study], workers: int
    ) -> None:
        super().__init__(study, results, time.perf_counter)
        self._opener, self.workers = opener, workers
        self.seconds[WAITING] = 0.0

    def score(self, trajectories: Sequence[UpstreamSpec]) -> None:
        """Score the points of the trajectories, and then read their numbers."""
        plan = self._study.plan
        specs = [TrialSpec(plan=plan, upstream=trajectory) for trajectory in trajectories]
        context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
        trials = [*baseline_trials(plan), *specs]
        count = min(self.workers, len(trials))
        initial = (self._opener, self._results, context.Barrier(count))
        with ProcessPoolExecutor(count, context, _start, initial) as pool:
            shifts = list(pool.map(_shift, trials))
        self.seconds = shares(shifts, self.workers)
        for trajectory in trajectories:
            for steps in trajectory.rungs:
                self.read(trajectory, steps)


def shares(shifts: Sequence[Shift], workers: int) -> dict[str, float]:
    """Return what each part took a worker on average; with `WAITING` they add up to the clock."""
    clock = max(shift.ended for shift in shifts) - min(shift.began for shift in shifts)
    seconds = {part: sum(shift.seconds[part] for shift in shifts) / workers for part in PARTS}
    return {**seconds, WAITING: clock - sum(seconds.values())}


_worker: Ours
"""The side of a worker's process."""


def _start(opener: Callable[[], Study], results: Path, together: Any) -> None:
    """Make this process a worker, and wait until the others are as far."""
    global _worker
    torch.set_num_threads(1)
    _worker = Ours(opener(), results, time.perf_counter)
    together.wait(START_S)


def _shift(spec: TrialSpec) -> Shift:
    """Do a trial."""
    before, began = dict(_worker.seconds), time.perf_counter()
    _worker.work(spec)
    ended = time.perf_counter()
    return Shift(began, ended, {part: _worker.seconds[part] - before[part] for part in PARTS})
