"""What a contest will cost: hours by stage, and of the confirmation by each of its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mpt.replay.whole_study_plan import measured_plan, table_lines
from mpt.search.cost.plan import run_seconds, work_seconds
from mpt.study.contest.definition import Contest
from mpt.study.contest.passes import planned_passes, unequal
from mpt.words import counted

if TYPE_CHECKING:
    from mpt.search.cost.plan import Rates, RemainingWork
    from mpt.search.cost.planner import Planning
    from mpt.search.job import Execution, SearchJob
    from mpt.study.specs import TrialSpec

HEAD = ("stage", "part", "points", "left", "runs left", "CPU hours")


def budget_lines(contest: Contest) -> list[str]:
    """Say who competes, with how many points, and whether their budgets are equal."""
    lines = [f"budget   {contest.row_passes:.0f} row passes a point"]
    passes: dict[str, float] = {}
    for one in contest.contestants:
        own = {
            f"{point.name}, {point.rungs[0]} steps": planned_passes(point) for point in one.points
        }
        passes |= {f"{one.name}: {name}": value for name, value in own.items()}
        start = f", {one.told}" if one.told else ""
        points = counted(len(one.points), "point")
        lines.append(f"         {one.name}: {points} of {one.method}{start}")
    differing = unequal(passes, contest.row_passes)
    return [*lines, *(f"unequal  {line}" for line in differing)]


def plan_contest(
    jobs: Mapping[str, SearchJob],
    execution: Execution,
    planning: Planning,
    say: Callable[[str], None],
) -> Rates | None:
    """Measure what is left of some stages and say it; write nothing.

    Returns:
        The rates that were measured; None: nothing is left.
    """
    first = next(iter(jobs.values()))
    trials = tuple(trial for job in jobs.values() for trial in job.trials)
    job = dataclasses.replace(first, trials=trials)
    work, rates, lines, _ = measured_plan(job, execution, planning, say)
    rows: list[tuple[str, ...]] = [HEAD]
    for name, one in jobs.items():
        rows += _rows(name, set(one.trials), job, work, rates)
    shared = sum(part.runs for part in work.shared_left)
    spent = sum(run_seconds(part, rates) for part in work.shared_left) if rates else 0.0
    hours = f"{spent / 3600:.2f}"
    rows.append(("", "plain prompt tuning for all of them", "", "", str(shared), hours))
    for line in [*table_lines(rows), *lines]:
        say(line)
    return rates


def _rows(
    stage: str, own: set[TrialSpec], job: SearchJob, work: RemainingWork, rates: Rates | None
) -> list[tuple[str, ...]]:
    """Return one row for a stage, and one for each part that a user can leave out."""
    each = [0.0] * len(job.trials) if rates is None else work_seconds(work, rates)[0]
    groups: dict[tuple[str, str], list[int]] = {(stage, ""): []}
    for index, trial in enumerate(job.trials):
        if trial in own:
            for part in (stage, ""), *(("", text) for text in _parts(trial)):
                groups.setdefault(part, []).append(index)
    return [
        (
            *part,
            str(sum(len(job.trials[at].upstream.rungs) for at in places)),
            str(sum(work.trials[at].points for at in places)),
            str(sum(work.trials[at].runs.runs for at in places)),
            f"{sum(each[at] for at in places) / 3600:.2f}",
        )
        for part, places in groups.items()
    ]


def _parts(trial: TrialSpec) -> tuple[str, ...]:
    """Return the parts of its stage that a trial is in."""
    config = trial.plan.config
    if trial.plan.role != "target":
        return ()
    tuning = f"{config.backbone}, {config.downstream.steps} tuning steps"
    return f"  {tuning}", f"  {config.partition}"
