"""A job with the paper's rungs, made-up points of it, and a console that can be read."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from mpt.config import StudyConfig, UpstreamConfig
from mpt.metrics.relative_gain import Gain, TaskGain
from mpt.search.cost.plan import RemainingWork
from mpt.search.display.display import Display
from mpt.search.job import SearchJob
from mpt.search.leaderboard import PointStatus
from mpt.store.records import Point, Stop
from mpt.study.specs import MethodConfig, TrialSpec, UpstreamSpec, settings_of, trials_of
from mpt.study.study import StudyPlan
from mpt.trial.score import BAD_SCORE, PointScore

INNER = (2e-5, 3e-5, 5e-5)
RUNGS = (2500, 5000, 10000)
PLAN = StudyPlan(config=StudyConfig(), source=("s",), scored=("a", "b"), partial=None)


def maml_job(**plan: Any) -> SearchJob:
    """Return a search over three inner learning rates; `plan` changes the study."""
    return job_of(
        *trials_of(
            dataclasses.replace(PLAN, **plan),
            [UpstreamSpec(config=UpstreamConfig(inner_lr=lr), rungs=RUNGS) for lr in INNER],
        )
    )


def job_of(*trials: TrialSpec) -> SearchJob:
    return SearchJob(trials=trials, results=Path("/results"), title='space "paper"')


def trial_of(
    config: MethodConfig | None = None,
    *,
    rungs: tuple[int, ...] = RUNGS,
    study: StudyConfig | None = None,
    **plan: Any,
) -> TrialSpec:
    """Return a trial in a study that differs from `PLAN` as told."""
    changed = dataclasses.replace(PLAN, config=study or PLAN.config, **plan)
    upstream = UpstreamSpec(config=config or UpstreamConfig(), rungs=rungs)
    return TrialSpec(plan=changed, upstream=upstream)


def score_of(arg: float | None, **changes: Any) -> PointScore:
    """Return the score of a point with this ARG in %; None: the baseline is zero."""
    gain = None if arg is None else arg / 100
    reason = "the baseline scores 0" if arg is None else None
    task = TaskGain(task="a", score=0.5, baseline=0.4, gain=gain, reason=reason)
    bounds = {"low": None, "high": None} if arg is None else {"low": arg - 1, "high": arg + 1}
    score = PointScore(
        gain=Gain(tasks=(task,), arg=arg, undefined_resamples=0, **bounds),
        score=BAD_SCORE if arg is None else arg,
        mean_test=0.5,
        runs=50,
        note="",
    )
    return dataclasses.replace(score, **changes)


def point_of(
    trial: TrialSpec, steps: int, arg: float | None, *, index: int = 0, **changes: Any
) -> PointStatus:
    """Return a stored point; `changes` are of its score."""
    record = Point(
        study="study",
        method=trial.method,
        settings=settings_of(trial.upstream.config),
        steps=steps,
        upstream=trial.name,
        prompt="prompt",
        runs=("run",),
    )
    score = score_of(arg, **changes)
    return PointStatus(index=index, trial=trial, steps=steps, record=record, score=score)


def missing_of(trial: TrialSpec, steps: int, **changes: Any) -> PointStatus:
    """Return a point that is not stored."""
    point = PointStatus(index=0, trial=trial, steps=steps, record=None, score=None)
    return dataclasses.replace(point, **changes)


def work_of(**changes: Any) -> RemainingWork:
    """Return the work of nine points of 50 runs: a third of it is stored, all of the baseline."""
    work = RemainingWork(
        trials=(),
        points=9,
        points_there=2,
        runs=450,
        runs_there=100,
        shared=50,
        shared_there=50,
    )
    return dataclasses.replace(work, **changes)


def console_of(width: int = 100) -> tuple[Console, Callable[[], str]]:
    """Return a console that is no terminal, and what tells its text so far."""
    file = io.StringIO()
    console = Console(file=file, width=width, markup=False, soft_wrap=True, highlight=False)
    return console, file.getvalue


def rows_of(text: str) -> list[list[str]]:
    """Return the words of the lines that begin with a number."""
    words = [line.split() for line in text.splitlines()]
    return [row for row in words if row and row[0].isdigit()]


def stop_of(trial: str, steps: int = 5000, point: str = "k") -> Stop:
    """Return the stop of a trial by its name."""
    return Stop(point=point, trial=trial, steps=steps, by="asha", reason="+1 is below +2")


class Shown:
    """A display of a job, and what it has printed so far."""

    def __init__(self, job: SearchJob | None = None, width: int = 100, **options: Any) -> None:
        console, self._text = console_of(width)
        self.job = job or maml_job()
        self.display = Display(self.job, console, **options)

    @property
    def text(self) -> str:
        return self._text()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()
