"""What the whole study will cost, stage by stage, measured before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpt.replay.whole_study import Stage
from mpt.search.cost.plan import CourseLoad, Load, Rates, estimate, leaf_seconds, step_seconds
from mpt.search.cost.planner import Planning, plan_lines
from mpt.search.cost.probe import courses_to_probe
from mpt.search.cost.time_left import clock_text
from mpt.search.cost.trial_memory import largest_trials
from mpt.search.run import measured, open_plan
from mpt.search.stock import take_stock

if TYPE_CHECKING:
    from mpt.search.job import Course, Execution, SearchJob

HEAD = ("stage", "for", "points", "left", "runs left", "work left")


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """What is left of the whole study."""

    load: Load
    """Of all stages together."""
    rates: Rates | None
    """Measured; None if nothing is left to compute."""
    seconds: float
    """Wall-clock seconds that it will take."""


def is_done(job: SearchJob) -> bool:
    """Return whether every point of a job is on disk."""
    load = take_stock(job, open_plan)
    return load.points_there == load.points


def plan_study_cost(
    stages: Sequence[Stage],
    job: SearchJob,
    execution: Execution,
    planning: Planning,
    say: Callable[[str], None],
) -> StudyCost:
    """Measure what is left of the study and say it: a line a stage, then the whole.

    Args:
        stages: of the study.
        job: holds the courses of all of them.
        execution: where they would run.
        planning: price, and a cluster to be simulated.
        say: where lines go.
    """
    load = take_stock(job, open_plan)
    if load.points_there == load.points:
        for line in table_lines([HEAD, *stage_rows(stages, job, load, None)]):
            say(line)
        say("nothing is left to compute")
        return StudyCost(load=load, rates=None, seconds=0.0)
    rates, slots = measured(job, load, execution, say)
    for line in table_lines([HEAD, *stage_rows(stages, job, load, rates)]):
        say(line)
    gpus = execution.gpus_per_trial
    memory = largest_trials(courses_to_probe(job, load), on_gpu=gpus > 0)
    for line in plan_lines(
        job, load, rates, slots, gpus_per_trial=gpus, planning=planning, memory=memory
    ):
        say(line)
    return StudyCost(load=load, rates=rates, seconds=estimate(load, rates, slots))


def stage_rows(
    stages: Sequence[Stage], job: SearchJob, load: Load, rates: Rates | None
) -> list[tuple[str, ...]]:
    """Return one row a stage (`HEAD`), and one for the baselines that all stages share.

    Args:
        stages: of the study.
        job: holds the courses of all of them.
        load: what is left of the job.
        rates: measured rates; None: nothing is left.
    """
    loads = dict(zip(job.courses, load.courses, strict=True))
    rows = [_row(stage, loads, rates) for stage in stages]
    runs = sum(part.runs for part in load.shared_left)
    work = sum(leaf_seconds(part, rates) for part in load.shared_left) if rates else 0.0
    return [
        *rows,
        ("", "plain prompt tuning for all of them", "", "", str(runs), clock_text(work)),
    ]


def _row(stage: Stage, loads: Mapping[Course, CourseLoad], rates: Rates | None) -> tuple[str, ...]:
    parts = [loads[course] for course in stage.courses]
    work = 0.0
    if rates is not None:
        work = sum(step_seconds(part, rates) + leaf_seconds(part.leaves, rates) for part in parts)
    return (
        stage.name,
        stage.about,
        str(sum(len(course.trajectory.rungs) for course in stage.courses)),
        str(sum(part.points for part in parts)),
        str(sum(part.leaves.runs for part in parts)),
        clock_text(work),
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
