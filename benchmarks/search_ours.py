"""Our side of `search_cost.py`: trajectories as a search's workers do them, one or several."""

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
from mpt.records import LeafStore, PointStore, leaf_key
from mpt.study.spaces import Trajectory
from mpt.study.study import Study
from mpt.trial.objective import baseline_packs, packs_of, score_point
from mpt.trial.points import point_identity
from mpt.trial.rungs import load_rung
from mpt.trial.trajectory import TrajectoryWork
from mpt.upstream.engine import UpstreamRun

WAITING = "waiting"
"""Part of a crew: workers that have nothing left to do while another one still works."""
START_S = 600
"""Seconds within which every worker must have opened the study."""


class Ours(Timed):
    """Trajectories with rungs, shared baselines, packs and one-pass evaluation, on disk.

    Args:
        study: what is scored.
        results: folder for the records.
        clock: what to take seconds from.
    """

    name = "ours"

    def __init__(
        self, study: Study, results: Path, clock: Callable[[], float] = time.process_time
    ):
        super().__init__(clock)
        self._study, self._results = study, results
        self._baseline = baseline_packs(study)
        self._at_baselines = False

    def steps(self, trajectory: Trajectory) -> int:
        """Return the steps of the longest: the others are passed on the way."""
        return max(trajectory.rungs)

    def baselines(self, points: int) -> int:
        """Return one tuning for all."""
        return 1

    def points(self, trajectory: Trajectory) -> Iterator[None]:
        """Score the points and read their numbers; yield after each."""
        for steps in self.work(trajectory):
            self.read(trajectory, steps)
            yield

    def work(self, trajectory: Trajectory) -> Iterator[int]:
        """Score the points as a search's worker does; yield the steps of each when it is there."""
        work = TrajectoryWork(self._study, trajectory, self._results)
        for steps in trajectory.rungs:
            # All that is not upstream, evaluation or baseline: steps, tables, records.
            with self.timed("training"), self._watched(), work.hold():
                while str(steps) not in work.progress.rung_scores:
                    work.unit()
            yield steps

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Time upstream learning, evaluation and baselines wherever they are called."""
        watched = (
            (UpstreamRun, "advance", self._timing("upstream")),
            (Evaluator, "scores", self._timing("evaluation")),
            (TrajectoryWork, "_claim_baseline", self._baseline_timing),
            (TrajectoryWork, "_finish_baseline", self._baseline_timing),
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

    def _baseline_timing(self, method: Any) -> Any:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.timed("baselines"):
                self._at_baselines = True
                try:
                    return method(*arguments, **named)
                finally:
                    self._at_baselines = False

        return timed

    def read(self, trajectory: Trajectory, steps: int) -> None:
        """Take the numbers of a point from its records."""
        key = self._study.trajectory_key(trajectory.config)
        store = LeafStore(self._results, read_only=True)
        points = PointStore(self._results, read_only=True)
        rung = load_rung(self._results, key, steps)
        point = points.get(leaf_key(point_identity(self._study, key, steps)))
        if rung is None or point is None:
            raise RuntimeError(f"{point_name(trajectory, steps)} diverged; take another point")
        name = point_name(trajectory, steps)
        own = packs_of(self._study, lambda _: rung.prompt)
        for owner, packs in ((name, own), (f"baseline of {name}", self._baseline)):
            for pack in packs:
                for run in pack.runs:
                    leaf = store.get(run.key)
                    assert leaf is not None
                    scores = leaf["result"]["dev"], leaf["result"]["test"]
                    self.leaves[owner, pack.task, run.task.seed, run.lr] = scores
        gain = score_point(point, store).gain
        self.args[name] = None if gain is None else gain.arg_of_defined


@dataclass(frozen=True)
class Shift:
    """A trajectory in the hands of a worker."""

    began: float
    """By a clock that all processes of the machine share."""
    ended: float
    seconds: dict[str, float]
    """What its parts took."""


class Crew(Ours):
    """Several workers that share the points as a search's do: one process and one thread each.

    A worker takes the next trajectory when it has finished one, and baselines that nobody else
    has. The clock runs from when all of them have opened the study until the last is through.

    Args:
        study: what is scored.
        results: folder for the records.
        opener: opens the same study in a worker; it is pickled.
        workers: how many.
    """

    def __init__(
        self, study: Study, results: Path, opener: Callable[[], Study], workers: int
    ) -> None:
        super().__init__(study, results, time.perf_counter)
        self._opener, self.workers = opener, workers
        self.seconds[WAITING] = 0.0

    def score(self, trajectories: Sequence[Trajectory]) -> None:
        """Score the points of the trajectories, and then read their numbers."""
        context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
        count = min(self.workers, len(trajectories))
        initial = (self._opener, self._results, context.Barrier(count))
        with ProcessPoolExecutor(count, context, _start, initial) as pool:
            shifts = list(pool.map(_shift, trajectories))
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


def _shift(trajectory: Trajectory) -> Shift:
    """Do a trajectory."""
    before, began = dict(_worker.seconds), time.perf_counter()
    for _ in _worker.work(trajectory):
        continue
    ended = time.perf_counter()
    return Shift(began, ended, {part: _worker.seconds[part] - before[part] for part in PARTS})
