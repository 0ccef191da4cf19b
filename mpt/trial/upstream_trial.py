"""The trial of a method that learns a prompt upstream and tunes it at every rung."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpt.config import UpstreamConfig
from mpt.errors import DataError
from mpt.store.records import Cost
from mpt.trial.files import Rung, load_rung, save_rung
from mpt.trial.racing import PlannedScore
from mpt.trial.run_queue import RunQueue
from mpt.trial.runs import RunPack, keys_of, learned_packs
from mpt.trial.trial import Cell, Stopped, Trial

if TYPE_CHECKING:
    from mpt.upstream.engine import UpstreamRun


class UpstreamTrial(Trial):
    """Learns a prompt upstream and tunes it at every rung."""

    _run: UpstreamRun | None = None
    _queue: RunQueue | None = None
    _rung: Rung | None = None
    _step_s: float | None = None
    _saved: dict[str, Any] | None = None
    _saved_queue: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """Return the states of upstream learning and of the queue of runs."""
        run = self._run
        return {
            "upstream": self._saved if run is None else run.state_dict(),
            "queue": self._saved_queue if self._queue is None else self._queue.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of this trial; it is looked at when it is needed."""
        self._saved, self._saved_queue = state.get("upstream"), state.get("queue")

    def _work(self, cell: Cell, rung: int) -> None:
        from mpt.upstream.engine import Diverged

        if self._start(rung) is None:
            try:
                self._learn(rung)
            except Diverged as error:
                self._record_divergence(rung, str(error))
        start = self._rung
        if start is None:
            return
        self.progress.steps = max(self.progress.steps, rung)
        packs = learned_packs(cell.study, start.prompt)
        if self._queue is None:
            if self._given_up(cell, rung, packs):
                return
            stage = self._stage(cell, packs)
            self._queue, ready = self._open_queue(cell.study, stage, self._saved_queue)
            self._saved_queue = None
            if not ready:
                return
        if not self._queue.done:
            self._work_on(self._queue)
        if not self._queue.done:
            return
        self._queue = None
        runs = keys_of(packs)
        if not set(runs) - self._store.present(runs):
            self._put(cell, rung, prompt=start.digest, runs=tuple(runs), cost=start.cost)

    def _start(self, steps: int) -> Rung | None:
        """Return the prompt at a rung, if it has been learned."""
        if self._rung is None or self._rung.steps != steps:
            self._rung = self._load(steps)
        return self._rung

    def _load(self, steps: int) -> Rung | None:
        device = self._cells[0].study.backbone.device
        try:
            return load_rung(self._store, self._artifacts, self.key, steps, device)
        except DataError as error:
            self._problem(f"{error}; the rung is computed again")
            return None

    def _learn(self, rung: int) -> None:
        """Take upstream steps for about `chunk_s` seconds, at most up to the rung.

        How many steps make a unit depends on the clock; the state after n steps does not.
        """
        run = self._upstream(rung)
        chunk = 1 if self._step_s is None else max(1, int(self._options.chunk_s / self._step_s))
        steps = min(rung - run.step_count, chunk)
        started = time.perf_counter()
        run.advance(steps)
        if steps:
            self._step_s = (time.perf_counter() - started) / steps
        if run.step_count == rung:
            self._rung = save_rung(self._store, self._artifacts, run)
        self.progress.steps = run.step_count

    def _upstream(self, rung: int) -> UpstreamRun:
        """Return the upstream run, at the saved state if that is not beyond the rung."""
        from mpt.upstream.engine import UpstreamRun

        if self._run is not None and self._run.step_count <= rung:
            return self._run
        cell = self._cells[0]
        method, config = cell.spec.upstream.config, cell.study.config
        assert isinstance(method, UpstreamConfig)
        self._run = UpstreamRun(
            cell.study.upstream_backbone(cell.spec.method),
            cell.study.items,
            method,
            config.prompt,
            config.upstream_text,
            config.train_seed,
        )
        if self._saved is not None and self._saved["meta"]["step_count"] <= rung:
            try:
                self._run.load_state_dict(self._saved)
            except DataError as error:  # it leaves the run as it was: at step 0
                self._problem(str(error))
        self._saved = None
        return self._run

    def _stage(self, cell: Cell, packs: list[RunPack]) -> list[RunPack]:
        """Return what is tuned side by side: everything, or in a race the next data seed."""
        if not self._options.racing:
            return packs
        there = self._store.present(keys_of(packs))
        for seed in cell.study.config.data_seeds:
            stage = [pack.of_seed(seed) for pack in packs]
            if any(pack.missing(there) for pack in stage):
                return stage
        return packs

    def _given_up(self, cell: Cell, rung: int, packs: Sequence[RunPack]) -> bool:
        """Return whether the point at a rung cannot reach the leader any more; note why."""
        if not self._options.racing:
            return False
        runs = [
            PlannedScore(run.key, run.task.name, run.task.seed, float(run.lr))
            for pack in packs
            for run in pack.runs
        ]
        reason = self._store.racing_reason(cell.key, cell.spec.method, runs)
        if reason is not None:
            self.progress.stopped = Stopped(rung, reason)
        return reason is not None

    def _record_divergence(self, rung: int, note: str) -> None:
        """Record this rung and all later ones as diverged: the trajectory has no more states."""
        assert self._run is not None
        cost = Cost(**dataclasses.asdict(self._run.cost))
        for cell in self._cells:
            for later in cell.rungs:
                if later >= rung and self._point(cell, later) not in self._stored:
                    self._put(
                        cell, later, prompt=None, runs=(), cost=cost, status="diverged", note=note
                    )
