"""Average relative gain (ARG) over prompt tuning, with a bootstrap interval.

Per (task, data seed) the run with the best dev score is taken; equal dev scores keep the earlier
learning rate. With s = mean over data seeds of the taken runs' test scores,

    RG(task) = (s − s_PT) / s_PT,        ARG = 100 · mean over tasks of RG(task)      (in %)

A relative gain needs a positive baseline: over s_PT ≤ 0 it is undefined, and a task without a
gain makes the ARG undefined. It is then not given as a number; `Gain.arg_of_defined` is the mean
over the other tasks, for callers that say "n of N".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Scores = Mapping[str, Mapping[int, float]]
"""task → data seed → test score (a fraction) of the taken run; an absent seed is missing."""

MIN_DEFINED = 0.95
"""Share of bootstrap resamples that must have a defined ARG for an interval to be given."""


NEAR_ZERO = 0.05
"""Baseline (a fraction) below which a relative gain is flagged: there, one point of the test score
more or less is a relative gain of over 20 %, and the task can rule the mean."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One downstream run of a (task, data seed): what the choice of a learning rate looks at."""

    lr: float
    """Downstream learning rate."""
    dev: float
    """Best dev score; NaN if the run diverged."""
    test: float
    """Test score of the prompt with the best dev score; NaN if the run diverged."""


def or_nan(score: float | None) -> float:
    """Return a recorded score; NaN for None, which a run that diverged has on record."""
    return math.nan if score is None else float(score)


def select_by_dev(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate with the best dev score; ties keep the earlier one in the sequence.

    A diverged candidate (dev NaN) is passed over; None if there is no other.
    """
    best = None
    for candidate in candidates:
        if not math.isnan(candidate.dev) and (best is None or candidate.dev > best.dev):
            best = candidate
    return best


@dataclass(frozen=True, kw_only=True)
class TaskGain:
    """The relative gain on one task, or the reason why there is none."""

    task: str
    """Name."""
    score: float | None
    """s, mean test score over the data seeds; None if a seed is missing."""
    baseline: float | None
    """s_PT; None if a seed is missing."""
    gain: float | None
    """RG, a fraction; None if undefined."""
    reason: str | None
    """Why `gain` is None."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """ARG over a set of tasks."""

    tasks: tuple[TaskGain, ...]
    """Every task asked for, also those without a gain."""
    arg: float | None
    """ARG in %; None unless every task has a gain."""
    low: float | None
    """Lower end of the 95 % interval of `arg_of_defined`, in %; None if there is no interval."""
    high: float | None
    """Upper end."""
    undefined_resamples: int
    """Bootstrap resamples without a defined ARG; they are left out of the interval."""

    @property
    def defined(self) -> int:
        """Number n of tasks with a gain."""
        return sum(task.gain is not None for task in self.tasks)

    @property
    def of(self) -> int:
        """Number N of tasks asked for."""
        return len(self.tasks)

    @property
    def arg_of_defined(self) -> float | None:
        """ARG in % over the tasks that have a gain; to be shown with "n of N" only."""
        gains = [task.gain for task in self.tasks if task.gain is not None]
        return 100 * sum(gains) / len(gains) if gains else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the 95 % interval of `arg_of_defined`, in %; None if there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def median_of_defined(self) -> float | None:
        """Median relative gain in % over the tasks that have one: no single task rules it."""
        gains = [task.gain for task in self.tasks if task.gain is not None]
        return 100 * statistics.median(gains) if gains else None

    @property
    def near_zero(self) -> tuple[str, ...]:
        """Tasks with a gain over a baseline below `NEAR_ZERO`."""
        return tuple(
            task.task
            for task in self.tasks
            if task.gain is not None and task.baseline is not None and task.baseline < NEAR_ZERO
        )

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line for each task without a gain."""
        return tuple(f"{task.task}: {task.reason}" for task in self.tasks if task.reason)


def relative_gain(score: float, baseline: float) -> float:
    """Return RG = (s − s_PT) / s_PT.

    Raises:
        ValueError: the baseline is not positive, so that a relative gain has no meaning.
    """
    if not baseline > 0:
        raise ValueError(f"baseline is {baseline}, but a relative gain needs one > 0")
    return (score - baseline) / baseline


def average_relative_gain(
    method: Scores,
    baseline: Scores,
    tasks: Sequence[str],
    seeds: Sequence[int],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Gain:
    """Return the ARG of a method over its baseline, with a 95 % bootstrap interval.

    Interval: for each task on its own, the data seeds are drawn with replacement (as many as
    there are), the same draw for method and baseline because they share the few-shot sample of a
    seed; s, s_PT, RG and ARG are formed from the draw. Over `resamples` draws the 2.5 % and 97.5 %
    percentiles (linear interpolation) bound the interval. Draws in which a task's s_PT is not
    positive have no ARG and are left out; with more than 5 % of them no interval is given. Tasks
    are not resampled: the interval is about these tasks. With one data seed there is none.

    Args:
        method: test scores of the method.
        baseline: test scores of prompt tuning.
        tasks: the tasks ARG runs over, each counted once.
        seeds: the data seeds every task must have.
        rng: draws the resamples.
        resamples: number of draws, at least 1.
    """
    if len(set(tasks)) != len(tasks) or not tasks:
        raise ValueError(f"tasks are {list(tasks)}, but must be distinct, at least one")
    if len(set(seeds)) != len(seeds) or not seeds:
        raise ValueError(f"seeds are {list(seeds)}, but must be distinct, at least one")
    gains = tuple(_task_gain(task, method, baseline, seeds) for task in tasks)
    defined = [gain.task for gain in gains if gain.gain is not None]
    low, high, undefined = _interval(
        _table(method, defined, seeds), _table(baseline, defined, seeds), rng, resamples
    )
    whole = len(defined) == len(tasks)
    arg = 100 * math.fsum(g.gain for g in gains if g.gain is not None) / len(tasks)
    return Gain(
        tasks=gains,
        arg=arg if whole else None,
        low=low,
        high=high,
        undefined_resamples=undefined,
    )


def _task_gain(task: str, method: Scores, baseline: Scores, seeds: Sequence[int]) -> TaskGain:
    reasons = []
    means: list[float | None] = []
    for name, scores in (("method", method), ("baseline", baseline)):
        by_seed = scores.get(task, {})
        missing = [seed for seed in seeds if math.isnan(by_seed.get(seed, math.nan))]
        if missing:
            reasons.append(f"{name} lacks data seed {', '.join(map(str, missing))}")
            means.append(None)
        else:
            means.append(math.fsum(by_seed[seed] for seed in seeds) / len(seeds))
    score, reference = means
    gain = None
    if score is not None and reference is not None:
        if reference > 0:
            gain = relative_gain(score, reference)
        else:
            reasons.append(f"the baseline scores {reference:g}, a relative gain needs more than 0")
    return TaskGain(
        task=task,
        score=score,
        baseline=reference,
        gain=gain,
        reason="; ".join(reasons) or None,
    )


def _table(scores: Scores, tasks: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Return test scores as [tasks, seeds]."""
    return np.array([[scores[task][seed] for seed in seeds] for task in tasks], dtype=np.float64)


def _interval(
    method: np.ndarray, baseline: np.ndarray, rng: np.random.Generator, resamples: int
) -> tuple[float | None, float | None, int]:
    """Return (low, high, undefined resamples) for scores of shape [tasks T, seeds S]."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, but must be ≥ 1")
    if method.size == 0 or method.shape[1] < 2:
        return None, None, 0
    tasks, seeds = method.shape
    draw = rng.integers(seeds, size=(resamples, tasks, seeds))  # [B, T, S]
    row = np.arange(tasks)[None, :, None]
    s, s_pt = method[row, draw].mean(axis=2), baseline[row, draw].mean(axis=2)  # [B, T]
    fine = (s_pt > 0).all(axis=1)
    undefined = int(resamples - fine.sum())
    if fine.mean() < MIN_DEFINED:
        return None, None, undefined
    arg = 100 * ((s[fine] - s_pt[fine]) / s_pt[fine]).mean(axis=1)
    low, high = np.percentile(arg, [2.5, 97.5])
    return float(low), float(high), undefined


def interval_over_tasks(
    gain: Gain, *, rng: np.random.Generator, resamples: int = 2000
) -> tuple[float | None, float | None]:
    """Return a 95 % bootstrap interval (low, high) of `Gain.arg_of_defined` over tasks, in %.

    The second view beside `Gain.low` and `Gain.high`: the relative gains of the tasks, taken as
    they are, are drawn with replacement (as many as there are), so the interval is about other
    tasks of the same kind. Percentiles as in `average_relative_gain`; below two tasks there is
    none.
    """
    gains = np.array([task.gain for task in gain.tasks if task.gain is not None])
    if len(gains) < 2:
        return None, None
    draw = rng.integers(len(gains), size=(resamples, len(gains)))  # [B, T]
    low, high = np.percentile(100 * gains[draw].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
