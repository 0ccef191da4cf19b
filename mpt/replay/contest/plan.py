"""What a contest will cost: hours by stage, and of the confirmation by each of its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mpt.replay.whole_study_plan import table_lines
from mpt.search.cost.plan import estimate, run_seconds, work_seconds
from mpt.search.cost.planner import plan_lines
from mpt.search.run import measured, peek
from mpt.study.contest.definition import Contest
from mpt.study.contest.passes import planned_passes, unequal

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
        start = ", start chosen by the target" if one.start == "chosen" else ""
        lines.append(f"         {one.name}: {len(one.points)} points of {one.method}{start}")
    differing = unequal(passes, contest.row_passes)
    return [*lines, *(f"unequal  {line}" for line in differing)]


def plan_contest(
    jobs: Mapping[str, SearchJob],
    execution: Execution,
    planning: Planning,
    say: Callable[[str], None],
) -> tuple[Rates | None, float]:
    """Measure what is left of some stages and say it; write nothing.

    Args:
        jobs: stage → its job.
        execution: where they would run.
        planning: price, and a cluster to be simulated.
        say: where lines go.

    Returns:
        The rates that were measured (None: nothing is left), and seconds of wall-clock time.
    """
    works = {}
    for name, job in jobs.items():
        with peek(job) as look:
            works[name] = look.work
    left = {
        name: job for name, job in jobs.items() if works[name].points_there < works[name].points
    }
    rates, seconds = None, 0.0
    lines: list[str] = []
    if left:
        job = next(iter(left.values()))
        job = dataclasses.replace(
            job, trials=tuple(t for one in left.values() for t in one.trials)
        )
        with peek(job) as look:
            work = look.work
        rates, slots = measured(job.trials, work, execution, say)
        lines = plan_lines(
            job, work, rates, slots, gpus_per_trial=execution.gpus_per_trial, planning=planning
        )
        seconds = sum(estimate(works[name], rates, slots) for name in left)
    rows: list[tuple[str, ...]] = [HEAD]
    for name, job in jobs.items():
        rows += _rows(name, job, works[name], rates)
    for line in table_lines(rows):
        say(line)
    for line in lines or ["nothing is left to compute"]:
        say(line)
    return rates, seconds


def _rows(
    stage: str, job: SearchJob, work: RemainingWork, rates: Rates | None
) -> list[tuple[str, ...]]:
    """Return one row for a stage, and one for each part that a user can leave out."""
    each = [0.0] * len(job.trials) if rates is None else work_seconds(work, rates)[0]
    rows = [_row(stage, "", job.trials, work, each, job.trials)]
    shared = sum(part.runs for part in work.shared_left)
    seconds = sum(run_seconds(part, rates) for part in work.shared_left) if rates else 0.0
    groups: dict[str, list[TrialSpec]] = {}
    for trial in job.trials:
        for part in _parts(trial):
            groups.setdefault(part, []).append(trial)
    rows += [_row("", part, own, work, each, job.trials) for part, own in groups.items()]
    hours = f"{seconds / 3600:.2f}"
    return [*rows, ("", "plain prompt tuning, shared by all", "", "", str(shared), hours)]


def _parts(trial: TrialSpec) -> tuple[str, ...]:
    """Return the parts of its stage that a trial is in."""
    config = trial.plan.config
    if trial.plan.role != "target":
        return ()
    tuning = f"{config.backbone}, {config.downstream.steps} tuning steps"
    return f"  {tuning}", f"  {config.partition}"


def _row(
    stage: str,
    part: str,
    own: Sequence[TrialSpec],
    work: RemainingWork,
    each: Sequence[float],
    trials: Sequence[TrialSpec],
) -> tuple[str, ...]:
    mine = set(own)
    places = [place for place, trial in enumerate(trials) if trial in mine]
    works = [work.trials[place] for place in places]
    return (
        stage,
        part,
        str(sum(len(trial.upstream.rungs) for trial in own)),
        str(sum(one.points for one in works)),
        str(sum(one.runs.runs for one in works)),
        f"{sum(each[place] for place in places) / 3600:.2f}",
    )
