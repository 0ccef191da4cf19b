"""What a search will cost: what is left to do, measured rates, and the time that follows.

A search is trials of upstream steps, with runs at their rungs, and runs of the shared
baselines. Work comes in kinds that differ in speed: upstream steps by backbone, method and batch,
runs by backbone and what is tuned. A run takes (its optimiser steps)·t_step + (the rows it
evaluates)·t_row; a trial takes the sum of its steps and runs; trials run in order on `slots`
workers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mpt.config import adapts
from mpt.trial.starts.cost import NOTHING, ChoiceWork

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig, StudyConfig


@dataclass(frozen=True, kw_only=True)
class RunWork:
    """Runs of one kind that are left."""

    kind: str
    """Key of `Rates.runs`."""
    runs: int
    steps: int
    """Optimiser steps of all of them, and of races of starts."""
    rows: int
    """Rows that they evaluate, dev rows once an evaluation, and by which starts are chosen."""
    choosing: ChoiceWork = NOTHING
    """What of these steps and rows is the choice of starts."""


@dataclass(frozen=True, kw_only=True)
class TrialWork:
    """What is left of one trial."""

    kind: str
    """Key of `Rates.steps`."""
    steps: int
    """Upstream steps (a checkpoint between two rungs may save some of them)."""
    runs: RunWork
    """Runs of its own points."""
    points: int
    begin: int = 0
    """Upstream steps that are on disk."""


@dataclass(frozen=True, kw_only=True)
class RemainingWork:
    """What a search consists of, and what is on disk of it."""

    trials: tuple[TrialWork, ...]
    """What is left, in the job's order."""
    points: int
    points_there: int
    runs: int
    """Runs of all points, the shared baselines not counted."""
    runs_there: int
    shared: int
    """Runs of the baselines, each counted once however many points it serves."""
    shared_there: int
    shared_left: tuple[RunWork, ...] = ()
    """Runs of the baselines that are missing."""

    @property
    def all_runs(self) -> int:
        """Runs in all, shared ones counted once."""
        return self.runs + self.shared

    @property
    def all_there(self) -> int:
        """Runs on disk."""
        return self.runs_there + self.shared_there

    @property
    def run_works(self) -> tuple[RunWork, ...]:
        """All runs that are left, those of the baselines among them."""
        return (*self.shared_left, *(trial.runs for trial in self.trials))


@dataclass(frozen=True, kw_only=True)
class RunRate:
    """How fast runs of one kind are, packed as in a real run."""

    step_s: float
    """Seconds per optimiser step of one run."""
    row_s: float
    """Seconds per evaluated row of one run."""

    def seconds(self, steps: float, rows: float) -> float:
        """Return the seconds of some optimiser steps and evaluated rows."""
        return steps * self.step_s + rows * self.row_s


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes on disk, of real records made by the probe."""

    run: int = 0
    """One run record."""
    rung: int = 0
    """The prompt at a rung, with the record of its point."""
    checkpoint: int = 0
    """One checkpoint of a trajectory; there are two at a time."""
    queue: int = 0
    """One checkpoint of a queue of runs while it is in work; there are two at a time."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How fast this machine is, measured by `mpt.search.cost.probe`."""

    steps: Mapping[str, float]
    """Kind → seconds per upstream step."""
    runs: Mapping[str, RunRate]
    """Kind → speed of runs."""
    start_s: float
    """Seconds until a worker is ready: imports, weights, data."""
    sizes: Sizes = field(default_factory=Sizes)
    gpu_need: int | None = None
    """Most bytes that a trial's tensors took on its GPU in the probe; None: not on a GPU."""
    gpu_bytes: int | None = None
    """Bytes of that GPU."""

    def step_seconds(self, kind: str) -> float:
        """Return seconds per upstream step; what was not measured counts as the slowest."""
        return self.steps.get(kind, max(self.steps.values(), default=0.0))

    def run_rate(self, kind: str) -> RunRate:
        """Return the speed of a kind of runs; what was not measured counts as the slowest."""
        if kind in self.runs:
            return self.runs[kind]
        return RunRate(
            step_s=max((rate.step_s for rate in self.runs.values()), default=0.0),
            row_s=max((rate.row_s for rate in self.runs.values()), default=0.0),
        )

    def of_ready_workers(self) -> Rates:
        """Return these rates where workers have started already."""
        return replace(self, start_s=0.0)

    def with_more(self, other: Rates) -> Rates:
        """Return these rates and those of other kinds; the larger start, sizes and need count."""
        larger = {
            name: max(own, getattr(other.sizes, name)) for name, own in vars(self.sizes).items()
        }
        return Rates(
            steps={**other.steps, **self.steps},
            runs={**other.runs, **self.runs},
            start_s=max(self.start_s, other.start_s),
            sizes=Sizes(**larger),
            gpu_need=_chosen(max, self.gpu_need, other.gpu_need),
            gpu_bytes=_chosen(min, self.gpu_bytes, other.gpu_bytes),
        )


def _chosen(choose: Callable[..., int], *values: int | None) -> int | None:
    """Return the largest or smallest of what was measured; None if nothing was."""
    known = [value for value in values if value is not None]
    return choose(known) if known else None


def step_seconds(trial: TrialWork, rates: Rates) -> float:
    """Return the seconds of a trial's upstream steps."""
    return trial.steps * rates.step_seconds(trial.kind) if trial.steps else 0.0


def run_seconds(work: RunWork, rates: Rates) -> float:
    """Return the seconds of some runs."""
    return rates.run_rate(work.kind).seconds(work.steps, work.rows)


def work_seconds(work: RemainingWork, rates: Rates) -> tuple[list[float], float]:
    """Return the seconds of work of each trial, and of the shared baselines."""
    each = [step_seconds(part, rates) + run_seconds(part.runs, rates) for part in work.trials]
    return each, sum(run_seconds(part, rates) for part in work.shared_left)


def estimate(work: RemainingWork, rates: Rates, slots: int) -> float:
    """Return the wall-clock seconds a search will take on `slots` workers."""
    each, shared = work_seconds(work, rates)
    todo = [seconds for seconds in each if seconds > 0]
    if not todo and not shared:
        return 0.0
    slots = max(1, min(slots, len(work.trials)))
    return rates.start_s + makespan([shared / slots] * slots + todo, slots)


def makespan(seconds: Sequence[float], slots: int) -> float:
    """Return when the last job ends if each starts, in order, on the first free of `slots`."""
    free = [0.0] * slots
    for job in seconds:
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)


def disk_bytes(work: RemainingWork, sizes: Sizes, slots: int, prompt_bytes: int = 0) -> int:
    """Return how many bytes the rest of a search adds to the results directory.

    `prompt_bytes` are those of a tuned prompt where they are kept, else 0.
    """
    runs = sum(part.runs for part in work.run_works)
    points = sum(part.points for part in work.trials)
    trajectories = sum(part.steps > 0 for part in work.trials)
    return (
        runs * (sizes.run + prompt_bytes)
        + points * sizes.rung
        + 2 * trajectories * sizes.checkpoint
        + 2 * min(slots, len(work.trials)) * sizes.queue
    )


def run_cost(
    down: DownstreamConfig, tuned: str, *, train: int, dev: int, test: int
) -> tuple[int, int]:
    """Return (optimiser steps, evaluated rows) of a run, dev rows once an evaluation.

    Where its test rows are scored already, `test` is 0.
    """
    steps = 0 if tuned == "nothing" else down.steps_on(train)
    evaluations = max(1, -(-steps // down.eval_every))
    dev, test = min(dev, down.max_dev or dev), min(test, down.max_test or test)
    return steps, evaluations * dev + test


def step_kind(study: StudyConfig, trajectory: Any) -> str:
    """Return the kind of a trajectory's upstream steps, for people too.

    A step of a soup is one of each of its members; a method that is not learned has none.
    """
    if not hasattr(trajectory, "items_per_step"):
        return "no upstream steps"
    words = [
        f"{trajectory.inner_steps} inner" if adapts(trajectory.method) else "",
        f"batch {trajectory.batch_size} × {trajectory.items_per_step}",
        "" if trajectory.items_per_pass == 1 else f"{trajectory.items_per_pass} a pass",
        "" if trajectory.second_order == "auto" else trajectory.second_order,
        "activation checkpoints" if trajectory.activation_checkpointing else "",
        "dropout" if trajectory.dropout else "",
        "" if trajectory.soup == 1 else f"soup of {trajectory.soup}",
        _model(study, study.upstream_format(trajectory.method)),
    ]
    return ", ".join([trajectory.method, *filter(None, words)])


def run_kind(study: StudyConfig, tuned: str) -> str:
    """Return the kind of a study's runs; `tuned` is "prompt", "weights" or "nothing"."""
    down = study.downstream
    search = f", {down.beams} beams" if down.beams > 1 else ""
    if tuned == "nothing":
        return f"zero-shot{search}, {_weights(study, study.precision)}"
    dropout = ", dropout" if down.dropout else ""
    model = _model(study, study.precision)
    return f"{tuned} tuning, batch {down.batch_size}{search}{dropout}, {model}"


def _model(study: StudyConfig, precision: str) -> str:
    return f"{_weights(study, precision)}, {study.prompt.length} prompt tokens"


def _weights(study: StudyConfig, precision: str) -> str:
    return study.backbone if precision == "float32" else f"{study.backbone} {precision}"
