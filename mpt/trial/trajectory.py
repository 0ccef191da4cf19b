"""One trajectory of a search as a row of small units, each of which is on disk when it ends.

A unit is one of: some upstream steps and a checkpoint, some intervals of a queue of leaves, or a
point record; each takes seconds. Whoever takes over after a kill finds the finished units on disk
and goes on behind them; what a unit computes follows from its inputs alone, so the result is the
same bit for bit.

    results/trajectories/<key>/checkpoint-a.bin, checkpoint-b.bin    state, written in turn
                               rung-<steps>.safetensors              the prompt φ at a rung
                               lock                                  who is learning upstream
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.checkpoints import TrajectoryCheckpoints
from mpt.errors import DataError
from mpt.provenance import provenance
from mpt.records import LeafStore, PointStore, leaf_key
from mpt.storage import digest, exclusive
from mpt.trial.leaf_work import LeafProgress, LeafWork
from mpt.trial.objective import (
    Pack,
    baseline_packs,
    leaf_table,
    missing_runs,
    packs_of,
    score_point,
)
from mpt.trial.points import point_identity, point_is_whole, point_labels
from mpt.trial.racing import hopeless, leader_low, rivals
from mpt.trial.rungs import Rung, folder_of, load_rung, save_rung

if TYPE_CHECKING:
    from mpt.study.spaces import Trajectory
    from mpt.study.study import Study
    from mpt.upstream.engine import UpstreamRun


@dataclass(frozen=True)
class Stopped:
    """A trajectory that cannot reach the leader."""

    steps: int
    """The rung on the way to which it was stopped."""
    reason: str
    """With the numbers that decided."""


@dataclass
class Progress:
    """Where a trajectory stands after a unit."""

    steps: int = 0
    """Upstream steps taken (those of the last rung once all is done)."""
    rung_scores: dict[str, float] = field(default_factory=dict)
    """Rung → score of the points that are on disk, see `PointScore.score`."""
    landed: list[int] = field(default_factory=list)
    """Rungs whose points this unit completed."""
    leaves: float = 0.0
    """Leaves that this process computed so far; one that is half through counts half."""
    tuning: LeafProgress | None = None
    """Where the downstream runs of this unit stand; None in a unit without any."""
    problems: list[str] = field(default_factory=list)
    """What was found broken on disk so far, and the course taken."""
    stopped: Stopped | None = None
    """Where and why the trajectory was given up; None if it was not."""
    done: bool = False
    """Every point of the trajectory is on disk, or it was given up."""


class TrajectoryWork:
    """The units of one trajectory.

    Args:
        study: the open study.
        trajectory: settings and rungs.
        results: results directory.
        chunk_s: seconds of a unit of upstream learning or tuning.
        keep_prompts: keep every tuned prompt beside its leaf.
        racing: tune one data seed after the other, and give up where the point cannot reach the
            leader on disk any more, however good its other leaves are.
    """

    def __init__(
        self,
        study: Study,
        trajectory: Trajectory,
        results: Path,
        chunk_s: float = 5.0,
        *,
        keep_prompts: bool = False,
        racing: bool = False,
    ) -> None:
        self._study, self._trajectory, self._chunk_s = study, trajectory, chunk_s
        self._keep_prompts, self._racing = keep_prompts, racing
        self.key = study.trajectory_key(trajectory.config)
        self._store, self._points = LeafStore(results), PointStore(results)
        self._results = results
        self._folder = folder_of(results, self.key)
        self._checkpoints = TrajectoryCheckpoints(self._folder, self._store.disk)
        self._labels = point_labels(study, trajectory.config.method)
        self._baseline = baseline_packs(study)
        self._unclaimed = list(self._baseline)
        self._leaves: LeafWork | None = None
        self._held_pack: tuple[LeafWork, contextlib.ExitStack] | None = None
        self._learning = contextlib.ExitStack()
        self._learns = False
        self._run: UpstreamRun | None = None
        self._step_s: float | None = None
        self._broken: list[str] = []
        self.progress = Progress()
        for rung in trajectory.rungs:
            self._note(rung)

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which no other process works on this course: on its leaves."""
        scored = [run.key for pack in self._baseline for run in pack.runs]
        return exclusive(self._results / "locks" / digest([self.key, scored]), timeout_s=None)

    def close(self) -> None:
        """Let go of what is held: a baseline pack that is in work, the trajectory."""
        if self._held_pack is not None:
            self._held_pack[1].close()
            self._held_pack = None
        self._let_others_learn()

    def units(self) -> Iterator[Progress]:
        """Do all that is left, one unit after the other; yield the state after each."""
        while not self.progress.done:
            yield self.unit()

    def unit(self) -> Progress:
        """Do the next unit.

        Raises:
            StorageError: the results directory has gone away, or cannot be read or written.
        """
        self._store.disk.check()
        self.progress.landed, self.progress.tuning = [], None
        rung = self._next_rung()
        if rung is None:
            self.progress.done = True
        elif not self._claim_baseline():
            self._work_towards(rung)
            self.progress.done = self._next_rung() is None or self.progress.stopped is not None
        self.progress.problems = [
            *self._broken,
            *self._checkpoints.problems,
            *self._store.problems,
            *self._points.problems,
        ]
        return self.progress

    def _next_rung(self) -> int | None:
        scores = self.progress.rung_scores
        return next((r for r in self._trajectory.rungs if str(r) not in scores), None)

    def _claim_baseline(self) -> bool:
        """Work on a baseline pack that nobody else has; return whether there was one."""
        while self._held_pack or self._unclaimed:
            if self._held_pack is None:
                self._held_pack = self._claim(self._unclaimed.pop(0))
            if self._held_pack is not None:
                work, lock = self._held_pack
                self._work_on(work)
                if work.done:
                    lock.close()
                    self._held_pack = None
                return True
        return False

    def _claim(self, pack: Pack) -> tuple[LeafWork, contextlib.ExitStack] | None:
        """Return the work on a baseline pack and its lock; None if it is done or in work."""
        if not pack.missing(self._store):
            return None
        lock = contextlib.ExitStack()
        with contextlib.suppress(TimeoutError):
            lock.enter_context(self._pack_lock(pack, timeout_s=0))
            work = self._leaf_work([pack])
            if not work.done:
                return work, lock
        lock.close()
        return None

    def _leaf_work(self, packs: list[Pack]) -> LeafWork:
        return LeafWork(self._study, packs, self._store, keep_prompts=self._keep_prompts)

    def _work_on(self, work: LeafWork) -> None:
        """Go on with leaves for about `chunk_s` seconds."""
        before = work.share
        work.advance(self._chunk_s)
        self.progress.leaves += work.share - before
        self.progress.tuning = work.progress
        self._broken += [text for text in work.problems if text not in self._broken]

    def _pack_lock(
        self, pack: Pack, timeout_s: float | None
    ) -> contextlib.AbstractContextManager[None]:
        return exclusive(self._results / "locks" / pack.name, timeout_s)

    def _work_towards(self, steps: int) -> None:
        from mpt.upstream.engine import Diverged

        rung = self._rung(steps)
        if rung is None:
            if self._may_learn() and self._rung(steps) is None:
                try:
                    self._advance(steps)
                except Diverged as error:
                    self._record_divergence(steps, str(error))
            return
        if steps == self._trajectory.rungs[-1]:
            self._let_others_learn()
        self.progress.steps = max(self.progress.steps, steps)
        packs = packs_of(self._study, lambda _: rung.prompt)
        if self._leaves is None and missing_runs(packs, self._store):
            if self._given_up(steps, packs):
                return
            self._leaves = self._leaf_work(self._stage(packs))
        if self._leaves is not None:
            self._work_on(self._leaves)
            if self._leaves.done:
                self._leaves = None
            return
        self._finish_baseline()
        self._record(rung, packs)

    def _may_learn(self) -> bool:
        """Return whether the trajectory is this process's, from now on until its last rung.

        Settings with the same sources share their trajectories: while another course learns, this
        one waits for its rungs, a unit at a time.
        """
        if not self._learns:
            with contextlib.suppress(TimeoutError):
                timeout_s = max(1.0, self._chunk_s)
                self._learning.enter_context(exclusive(self._folder / "lock", timeout_s))
                self._learns = True
        return self._learns

    def _let_others_learn(self) -> None:
        self._learning.close()
        self._learns = False

    def _stage(self, packs: list[Pack]) -> list[Pack]:
        """Return what is tuned side by side: everything, or in a race the next data seed."""
        if not self._racing:
            return packs
        for seed in self._study.config.data_seeds:
            stage = [
                Pack(pack.task, tuple(run for run in pack.runs if run.task.seed == seed))
                for pack in packs
            ]
            if missing_runs(stage, self._store):
                break
        return stage

    def _given_up(self, rung: int, packs: list[Pack]) -> bool:
        """Return whether the point at a rung cannot reach the leader any more; note why."""
        if not self._racing:
            return False
        point = {"identity": point_identity(self._study, self.key, rung), **self._labels}
        low = leader_low(rivals(self._points.all(), point), self._store)
        reason = hopeless(leaf_table(packs), leaf_table(self._baseline), self._store, low)
        if reason is not None:
            self.progress.stopped = Stopped(rung, reason)
        return reason is not None

    def _finish_baseline(self) -> None:
        """Wait for the baseline packs of other workers, or compute what they left undone."""
        for pack in self._baseline:
            if pack.missing(self._store):
                with self._pack_lock(pack, timeout_s=None):
                    work = self._leaf_work([pack])
                    while not work.done:
                        self._work_on(work)

    def _advance(self, rung: int) -> None:
        """Take upstream steps for about `chunk_s` seconds, at most up to the rung; save the state.

        How many steps make a chunk depends on the clock; the state after n steps does not.
        """
        run = self._upstream(rung)
        left = rung - run.step_count
        chunk = 1 if self._step_s is None else max(1, int(self._chunk_s / self._step_s))
        steps = min(left, chunk)
        started = time.perf_counter()
        run.advance(steps)
        if steps:
            self._step_s = (time.perf_counter() - started) / steps
        self._checkpoints.save(run.step_count, run.state_dict())
        if run.step_count == rung:
            save_rung(self._results, run)
        self.progress.steps = run.step_count

    def _upstream(self, rung: int) -> UpstreamRun:
        """Return the upstream run, at the newest state on disk that is not beyond the rung."""
        from mpt.upstream.engine import UpstreamRun

        if self._run is not None and self._run.step_count <= rung:
            return self._run
        config, study = self._study.config, self._study
        settings = (self._trajectory.config, config.prompt, config.upstream_text)
        self._run = UpstreamRun(study.backbone, study.items, *settings, config.train_seed)
        found = self._checkpoints.load(at_most=rung)
        if found is not None:
            try:
                self._run.load_state_dict(found[1])
            except DataError as error:  # it leaves the run as it was: at step 0
                self._broken.append(f"{self._folder}: {error}")
        return self._run

    def _rung(self, steps: int) -> Rung | None:
        """Return a rung from disk, or None if it is not there (or not whole)."""
        try:
            return load_rung(self._results, self.key, steps)
        except DataError as error:
            text = f"{error}; the rung is computed again"
            if text not in self._broken:
                self._broken.append(text)
            return None

    def _record(self, rung: Rung, packs: list[Pack]) -> None:
        self._put(
            rung.steps,
            prompt=rung.digest,
            leaves=leaf_table(packs),
            baseline=leaf_table(self._baseline),
            status="ok",
            note="",
            cost=rung.cost,
        )

    def _record_divergence(self, rung: int, note: str) -> None:
        """Record this rung and all later ones as diverged: the trajectory has no more states."""
        assert self._run is not None
        cost = {**dataclasses.asdict(self._run.cost)}
        for later in self._trajectory.rungs:
            if later >= rung:
                self._put(
                    later,
                    prompt=None,
                    leaves={},
                    baseline={},
                    status="diverged",
                    note=note,
                    cost=cost,
                )

    def _put(self, rung: int, **body: Any) -> None:
        self._points.put(
            point_identity(self._study, self.key, rung),
            {
                **self._labels,
                "config": dataclasses.asdict(self._trajectory.config),
                "steps": rung,
                "trajectory": self.key,
                "provenance": provenance(),
                **body,
            },
        )
        self._note(rung)
        self.progress.landed.append(rung)

    def _note(self, rung: int) -> None:
        """Take a rung that is whole on disk into the rung history."""
        point = self._points.get(leaf_key(point_identity(self._study, self.key, rung)))
        if point is not None and point_is_whole(point, self._store):
            self.progress.rung_scores[str(rung)] = score_point(point, self._store).score
            self.progress.steps = rung
