"""What the whole study will cost, stage by stage, measured before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mpt.replay.whole_study import Stage
from mpt.search.cost.plan import (
    Rates,
    RemainingWork,
    TrialWork,
    estimate,
    run_seconds,
    step_seconds,
)
from mpt.search.cost.planner import Planning, plan_lines
from mpt.search.cost.probe import trials_to_probe
from mpt.search.cost.time_left import clock_text
from mpt.search.cost.trial_memory import largest_trials
from mpt.search.look import measured, peek

if TYPE_CHECKING:
    from mpt.search.job import Execution, SearchJob
    from mpt.study.specs import TrialSpec

HEAD = ("stage", "for", "points", "left", "runs left", "work left")


def is_done(job: SearchJob) -> bool:
    """Return whether every point of a job is stored."""
    with peek(job) as look:
        return look.work.points_there == look.work.points


def plan_study_cost(
    stages: Sequence[Stage],
    job: SearchJob,
    execution: Execution,
    planning: Planning,
    say: Callable[[str], None],
) -> tuple[Rates | None, float]:
    """Measure what is left of the study and say it: a line a stage, then the whole.

    Returns:
        The rates that were measured (None: nothing is left), and wall-clock seconds that it takes.
    """
    work, rates, lines, seconds = measured_plan(job, execution, planning, say, memory=True)
    for line in [*table_lines([HEAD, *stage_rows(stages, job, work, rates)]), *lines]:
        say(line)
    return rates, seconds


def measured_plan(
    job: SearchJob,
    execution: Execution,
    planning: Planning,
    say: Callable[[str], None],
    *,
    memory: bool = False,
) -> tuple[RemainingWork, Rates | None, list[str], float]:
    """Measure what is left of a job.

    Returns:
        What is left, the rates that were measured (None: nothing is left), the plan as lines
        (with what trials need at their peak, if `memory`), and wall-clock seconds that it takes.
    """
    with peek(job) as look:
        work = look.work
    if work.points_there == work.points:
        return work, None, ["nothing is left to compute"], 0.0
    rates, slots = measured(job.trials, work, execution, say)
    gpus = execution.gpus_per_trial
    needs = largest_trials(trials_to_probe(job.trials, work), on_gpu=gpus > 0) if memory else ()
    lines = plan_lines(
        job, work, rates, slots, gpus_per_trial=gpus, planning=planning, memory=needs
    )
    return work, rates, lines, estimate(work, rates, slots)


def stage_rows(
    stages: Sequence[Stage], job: SearchJob, work: RemainingWork, rates: Rates | None
) -> list[tuple[str, ...]]:
    """Return one row a stage (`HEAD`), and one for the baselines that all stages share."""
    work_of = dict(zip(job.trials, work.trials, strict=True))
    rows = [_row(stage, work_of, rates) for stage in stages]
    runs = sum(part.runs for part in work.shared_left)
    shared = sum(run_seconds(part, rates) for part in work.shared_left) if rates else 0.0
    return [
        *rows,
        ("", "plain prompt tuning for all of them", "", "", str(runs), clock_text(shared)),
    ]


def _row(
    stage: Stage, work_of: Mapping[TrialSpec, TrialWork], rates: Rates | None
) -> tuple[str, ...]:
    parts = [work_of[trial] for trial in stage.trials]
    seconds = 0.0
    if rates is not None:
        seconds = sum(step_seconds(part, rates) + run_seconds(part.runs, rates) for part in parts)
    return (
        stage.name,
        stage.about,
        str(sum(len(trial.upstream.rungs) for trial in stage.trials)),
        str(sum(part.points for part in parts)),
        str(sum(part.runs.runs for part in parts)),
        clock_text(seconds),
    )


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned lines: the first two columns to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
