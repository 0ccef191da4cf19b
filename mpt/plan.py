"""What a search will cost: what is left to do, measured rates, and the time that follows.

A search is `trajectories` of upstream steps, with packs of leaves at their rungs, and packs of the
shared baseline. With s seconds per upstream step and p seconds per pack, a trajectory takes
steps·s + packs·p; the trajectories run in order on `slots` workers.
"""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpt.errors import DataError
from mpt.records import LeafStore, PointStore, leaf_key
from mpt.search.objective import Pack, baseline_packs, packs_of
from mpt.search.rungs import load_rung
from mpt.search.trajectory import point_identity, point_is_whole

if TYPE_CHECKING:
    from mpt.search.job import SearchJob
    from mpt.search.spaces import Trajectory
    from mpt.search.study import Study

PROBE_S = 4.0
"""Seconds after which the probe of downstream packs stops at the next task."""


@dataclass(frozen=True, kw_only=True)
class TrajectoryLoad:
    """What is left of one trajectory."""

    steps: int
    """Upstream steps (a checkpoint between two rungs may save some of them)."""
    packs: int
    """Packs of leaves."""
    begin: int = 0
    """Upstream steps that are on disk."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a search consists of, and what is on disk of it."""

    trajectories: tuple[TrajectoryLoad, ...]
    """What is left, in the job's order."""
    points: int
    points_there: int
    leaves: int
    """Leaves of all points, the shared baseline not counted."""
    leaves_there: int
    shared: int
    """Leaves of the baseline, which all points share."""
    shared_there: int
    shared_packs: int
    """Baseline packs left."""

    @property
    def all_leaves(self) -> int:
        """Leaves in all, shared ones counted once."""
        return self.leaves + self.shared

    @property
    def all_there(self) -> int:
        """Leaves on disk."""
        return self.leaves_there + self.shared_there


def take_stock(job: SearchJob, study: Study) -> Load:
    """Compare a search with the records on disk; nothing is written."""
    store = LeafStore(job.results, read_only=True)
    points = PointStore(job.results, read_only=True)
    shared = baseline_packs(study)
    per_point = sum(len(pack.runs) for pack in shared)
    loads, points_there, leaves_there = [], 0, 0
    for trajectory in job.trajectories:
        key = study.trajectory_key(trajectory.config)
        reached, steps, packs = 0, 0, 0
        for rung in trajectory.rungs:
            record = points.get(leaf_key(point_identity(study, key, rung)))
            if point_is_whole(record, store):
                points_there, leaves_there = points_there + 1, leaves_there + per_point
                reached = rung
                continue
            found = _rung_packs(job, study, key, rung)
            if found is None:
                steps, reached = steps + rung - reached, rung
                packs += len(shared)
                continue
            reached = rung
            missing = [len(pack.missing(store)) for pack in found]
            packs += sum(count > 0 for count in missing)
            leaves_there += per_point - sum(missing)
        loads.append(TrajectoryLoad(steps=steps, packs=packs, begin=trajectory.rungs[-1] - steps))
    lacking = [len(pack.missing(store)) for pack in shared]
    return Load(
        trajectories=tuple(loads),
        points=len(job.points),
        points_there=points_there,
        leaves=per_point * len(job.points),
        leaves_there=leaves_there,
        shared=per_point,
        shared_there=per_point - sum(lacking),
        shared_packs=sum(count > 0 for count in lacking),
    )


def _rung_packs(job: SearchJob, study: Study, key: str, steps: int) -> list[Pack] | None:
    """Return the packs of a rung whose prompt is on disk, else None."""
    try:
        rung = load_rung(job.results, key, steps)
    except DataError:
        return None
    return None if rung is None else packs_of(study, lambda _: rung.prompt)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How fast this machine is, measured by `probe`."""

    step_s: float
    """Seconds per upstream step."""
    pack_s: float
    """Seconds per pack, mean over the validation tasks."""
    start_s: float
    """Seconds until a worker is ready: imports, weights, data."""


def probe(study: Study, trajectory: Trajectory, start_s: float) -> Rates:
    """Measure the rates with a few steps of the real work; nothing is kept.

    A pack's time is linear in steps and evaluated rows: two small packs of different length give
    both coefficients.

    Args:
        study: open study.
        trajectory: whose upstream steps are timed.
        start_s: seconds that opening the study took.
    """
    return Rates(
        step_s=_upstream_step_seconds(study, trajectory),
        pack_s=_pack_seconds(study),
        start_s=start_s,
    )


def _upstream_step_seconds(study: Study, trajectory: Trajectory) -> float:
    from mpt.upstream.engine import Diverged, UpstreamRun

    config = study.config
    run = UpstreamRun(
        study.backbone,
        study.items,
        trajectory.config,
        config.prompt,
        config.text,
        config.train_seed,
    )
    try:
        run.advance(1)  # the first step pays for tables and caches
        started, steps = time.perf_counter(), 0
        while steps < 10 and (steps == 0 or time.perf_counter() - started < PROBE_S / 4):
            run.advance(1)
            steps += 1
    except Diverged:
        return 0.0
    return (time.perf_counter() - started) / steps


def _pack_seconds(study: Study) -> float:
    """Return the mean over tasks of: steps · t_step + evaluations · t_dev + t_test."""
    packs = baseline_packs(study)
    few = [dataclasses.replace(pack, runs=pack.runs[:1]) for pack in packs]
    for single in few:  # the first use of a metric pays for its imports
        _timed(study, single, steps=1, evals=1, rows=2)
    first = _timed(study, few[0], steps=1, evals=1, rows=2)
    # A model for which one run of two rows takes long is probed with one run, scaled up.
    slow = first * len(packs[0].runs) > PROBE_S / 4
    started = time.perf_counter()
    found = []
    for whole, single in zip(packs, few, strict=True):
        chosen = single if slow else whole
        found.append(_one_pack(study, chosen) * len(whole.runs) / len(chosen.runs))
        if time.perf_counter() - started > PROBE_S:
            break
    return sum(found) / len(found)


def _one_pack(study: Study, pack: Pack) -> float:
    down = study.config.downstream
    sample = pack.runs[0].task
    dev = min(len(sample.dev), down.max_dev or len(sample.dev))
    test = min(len(sample.test), down.max_test or len(sample.test))
    rows = min(16, dev, test)
    short = _timed(study, pack, steps=1, evals=1, rows=rows)
    longer = _timed(study, pack, steps=3, evals=1, rows=rows)
    evals = _timed(study, pack, steps=3, evals=3, rows=rows)
    step = max(0.0, (longer - short) / 2)
    row = max(0.0, (evals - longer) / 2 / rows)
    number = -(-down.steps // down.eval_every)
    return step * down.steps + row * (number * dev + test)


def _timed(study: Study, pack: Pack, *, steps: int, evals: int, rows: int) -> float:
    from mpt.downstream.prompt_tuning import TuningRun, tune

    config = study.config
    small = dataclasses.replace(
        config.downstream,
        steps=steps,
        eval_every=-(-steps // evals),
        max_dev=rows,
        max_test=rows,
    )
    runs = [TuningRun(run.task, run.lr, run.prompt) for run in pack.runs]
    started = time.perf_counter()
    tune(study.backbone, runs, small, config.text, config.train_seed)
    return time.perf_counter() - started


def work_seconds(load: Load, rates: Rates) -> tuple[list[float], float]:
    """Return the seconds of work of each trajectory, and of the shared baseline."""
    each = [part.steps * rates.step_s + part.packs * rates.pack_s for part in load.trajectories]
    return each, load.shared_packs * rates.pack_s


def estimate(load: Load, rates: Rates, slots: int) -> float:
    """Return the wall-clock seconds a search will take on `slots` workers."""
    each, shared = work_seconds(load, rates)
    todo = [seconds for seconds in each if seconds > 0]
    if not todo:
        return 0.0
    slots = max(1, min(slots, len(todo)))
    return rates.start_s + makespan([shared / slots] * slots + todo, slots)


def makespan(seconds: Sequence[float], slots: int) -> float:
    """Return when the last job ends if each starts, in order, on the first free of `slots`."""
    free = [0.0] * slots
    for job in seconds:
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)
