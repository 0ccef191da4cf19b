"""Computing downstream runs: a queue of them through one model, stored as they finish.

The queue's state is part of its trial's checkpoint. Whoever takes over after a kill goes on with
the same queue: a run loses one checkpoint interval at most, and its bits are the same.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.errors import DataError
from mpt.store.records import Cost, Run
from mpt.trial.origin import now, origin_of
from mpt.trial.pack_limits import remember_limits
from mpt.trial.runs import PlannedRun, RunPack

if TYPE_CHECKING:
    from mpt.downstream.limits import PackLimits
    from mpt.downstream.progress import QueueProgress
    from mpt.downstream.prompt_tuning import TuningResult
    from mpt.downstream.queue import TuningQueue
    from mpt.study.study import OpenStudy
    from mpt.trial.store import TrialStore


@dataclass(frozen=True, kw_only=True)
class QueueStatus:
    """Where a queue of runs stands, and how fast it was when this process last worked on it."""

    finished: int
    running: int
    waiting: int
    steps_s: float
    """Optimiser steps per second, summed over runs; evaluation is part of the time."""
    examples_s: float
    tokens_s: float
    """Real tokens per second, prompts included."""
    useful: float
    """Share of the tokens in training that are no padding."""


class RunQueue:
    """The missing runs of some packs, computed side by side.

    Of several downstream starts one goes after the other. Runs of one start ride together alone,
    so that their bits are those of a study with no other start.

    Args:
        study: the open study.
        packs: what is to be stored in the end; runs that are there already are left alone.
        store: where runs go.
        limits: how runs are packed; called once a start.
        keep: called with every finished run and its result, before it is stored.
    """

    def __init__(
        self,
        study: OpenStudy,
        packs: Sequence[RunPack],
        store: TrialStore,
        limits: Callable[[Sequence[PlannedRun]], PackLimits],
        keep: Callable[[PlannedRun, TuningResult], None] | None = None,
    ) -> None:
        self._study, self._store, self._limits, self._keep = study, store, limits, keep
        self._runs = {run.key: run for pack in packs for run in pack.runs}
        self._queue: TuningQueue | None = None
        self._speed = (0.0, 0.0, 0.0)
        self._before = 0
        self._take(_todo(study, packs, store))

    def _take(self, keys: Sequence[str]) -> None:
        """Take runs as what is to be done: those of the first start now, the others later."""
        by_start: dict[int, list[str]] = {}
        for key in keys:
            by_start.setdefault(self._runs[key].identity.train_seed, []).append(key)
        starts = list(by_start.values())
        self._todo, self._later = (starts[0] if starts else []), starts[1:]

    @property
    def done(self) -> bool:
        """Whether every run is stored."""
        return not self._todo

    @property
    def share(self) -> float:
        """How much of the work is done, in runs: a run that is half through counts half."""
        if self._queue is None:
            return 0.0
        now = self._queue.progress
        whole = now.steps + now.steps_left
        return self._before + (now.runs * now.steps / whole if whole else float(now.runs))

    @property
    def status(self) -> QueueStatus | None:
        """Where the queue stands; None before any work."""
        if self._queue is None:
            return None
        now = self._queue.progress
        steps, examples, tokens = self._speed
        return QueueStatus(
            finished=self._before + now.finished,
            running=now.running,
            waiting=now.waiting + sum(map(len, self._later)),
            steps_s=steps,
            examples_s=examples,
            tokens_s=tokens,
            useful=now.useful_share if now.padded_tokens else 0.0,
        )

    def advance(self, seconds: float | None = None) -> None:
        """Go on for about `seconds` (None: to the end), but to the end of one interval at least.

        With `seconds` it ends where a start does, at the latest.

        Raises:
            UsageError: a single row does not fit into memory.
        """
        while not self.done:
            self._advance(seconds)
            if seconds is not None:
                break

    def _advance(self, seconds: float | None) -> None:
        """Go on with the runs of one start."""
        queue = self._queue = self._queue or self._new_queue(self._todo)
        began, before = time.perf_counter(), queue.progress
        while True:
            finished = queue.advance(0)
            self._commit(
                [(self._runs[self._todo[position]], result) for position, result in finished]
            )
            if queue.done:
                remember_limits(self._study, queue.limits, self._store)
                break
            if seconds is not None and time.perf_counter() - began >= seconds:
                break
        self._measure(queue, before, began)
        if queue.done:
            self._next_start(queue)

    def _next_start(self, queue: TuningQueue) -> None:
        """Go over to the runs of the next start, if there is one."""
        if self._later:
            self._before += queue.progress.runs
            self._todo = self._later.pop(0)
            self._queue = self._new_queue(self._todo)
        else:
            self._todo = []

    def _measure(self, queue: TuningQueue, before: QueueProgress, began: float) -> None:
        """Note how fast a queue was since it had made some progress at a time."""
        now, spent = queue.progress, max(time.perf_counter() - began, 1e-9)
        self._speed = (
            (now.steps - before.steps) / spent,
            (now.examples - before.examples) / spent,
            (now.tokens - before.tokens) / spent,
        )

    def state(self) -> dict[str, Any] | None:
        """Return the whole state for a checkpoint; None where nothing is left to do.

        Before any work it names the runs that will ride together, on which the bits depend; so it
        does for the starts whose turn has not come.
        """
        if self.done:
            return None
        queue = None if self._queue is None else self._queue.state_dict()
        return {"keys": [*self._todo, *itertools.chain(*self._later)], "queue": queue}

    def load_state(self, state: dict[str, Any]) -> bool:
        """Go on from a state; return False, and change nothing, if it is of other runs.

        Raises:
            DataError: it is of these runs but incomplete.
        """
        keys = state.get("keys")
        if not isinstance(keys, list) or not set(keys) <= set(self._runs):
            return False
        if "queue" not in state:
            raise DataError("state of a queue is incomplete: it has no queue")
        queue, before = None, (self._todo, self._later)
        self._take(keys)
        try:
            if state["queue"] is not None:
                queue = self._new_queue(self._todo)
                queue.load_state_dict(state["queue"])
        except DataError:
            self._todo, self._later = before
            raise
        self._queue = queue
        return True

    def _new_queue(self, keys: Sequence[str]) -> TuningQueue:
        """Return the queue of some runs of one start."""
        from mpt.downstream.prompt_tuning import TuningRun
        from mpt.downstream.queue import TuningQueue

        config = self._study.config
        runs = [self._runs[key] for key in keys]
        return TuningQueue(
            self._study.backbone,
            [TuningRun(run.task, run.lr, run.prompt) for run in runs],
            config.downstream,
            config.text,
            runs[0].identity.train_seed,
            self._limits(runs),
        )

    def _commit(self, finished: Sequence[tuple[PlannedRun, TuningResult]]) -> None:
        """Store finished runs; those of a resumed state may be there already."""
        if not finished:
            return
        assert self._queue is not None
        for run, result in finished:
            if self._keep is not None and result.status == "ok":
                self._keep(run, result)
        limits = self._queue.limits.to_dict()
        records = [run_record(run, result, {"pack": limits}) for run, result in finished]
        self._store.add_runs(records)


def _todo(study: OpenStudy, packs: Sequence[RunPack], store: TrialStore) -> list[str]:
    """Return the keys of the runs to be done, in order.

    Where learning rates race each other (`catch_up`), those of one family are done together: what
    is left of a family would race alone.
    """
    stored_keys = store.present([run.key for pack in packs for run in pack.runs])
    together = study.config.downstream.catch_up is not None
    keys = []
    for pack in packs:
        missing = {run.key for run in pack.missing(stored_keys)}
        torn = {run.task.seed for run in pack.runs if run.key in missing} if together else set()
        keys += [run.key for run in pack.runs if run.key in missing or run.task.seed in torn]
    return keys


def run_record(run: PlannedRun, result: TuningResult, origin: dict[str, Any]) -> Run:
    """Return a finished run as the database holds it; `origin` adds to its provenance."""
    return Run(
        identity=run.identity,
        dev=_finite(result.dev),
        test=_finite(result.test),
        best_step=result.best_step,
        curve=tuple((step, _finite(dev), _finite(loss)) for step, dev, loss in result.curve),
        status=result.status,
        stopped=result.stopped,
        cost=Cost(**result.cost),
        provenance=origin_of(**origin),
        created=now(),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
