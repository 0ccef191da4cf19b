"""What a job will cost, told before it starts: steps, runs, hours, price, memory, disk, time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpt.errors import UsageError
from mpt.search.cost.gpu_share import share_line, smallest, trials_on_gpus
from mpt.search.cost.plan import disk_bytes, estimate, run_seconds, step_seconds, work_seconds
from mpt.search.cost.time_left import clock_text
from mpt.words import counted

if TYPE_CHECKING:
    from mpt.search.cost.plan import Rates, RemainingWork
    from mpt.search.cost.stated import Throughput
    from mpt.search.cost.trial_memory import TrialMemory
    from mpt.search.job import SearchJob

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What a plan is to tell besides the work itself."""

    price: float | None = None
    """Price of one GPU-hour (of one CPU-hour without GPUs), in any currency; None: not told."""
    gpus: int | None = None
    """GPUs (CPUs without) of a cluster that is simulated; None: none."""
    throughput: Throughput | None = None
    """What a GPU sustains, stated in place of a measurement here; None: it is measured."""

    def __post_init__(self) -> None:
        if self.price is not None and self.price < 0:
            raise UsageError(f"--price is {self.price:g}, but must be ≥ 0")


def plan_lines(
    job: SearchJob,
    work: RemainingWork,
    rates: Rates,
    slots: int,
    *,
    gpus_per_trial: float,
    planning: Planning,
    memory: Sequence[TrialMemory] = (),
    rates_are: str = "measured just now",
    further: Sequence[RemainingWork] = (),
) -> list[str]:
    """Return the plan as lines of text.

    A trial has `gpus_per_trial` of a GPU, or runs on a CPU where that is 0; `memory` has one entry
    a backbone, `rates_are` says where the rates are from, and `further` is the most that rounds
    with more upstream seeds may add, in their order.
    """
    device = "GPU" if gpus_per_trial else "CPU"
    each, shared = work_seconds(work, rates)
    hours = (sum(each) + shared) / 3600 * (gpus_per_trial or 1)
    steps_hours = sum(step_seconds(part, rates) for part in work.trials) / 3600
    prompt_bytes = rates.sizes.rung if job.keep_prompts else 0
    disk = disk_bytes(work, rates.sizes, slots, prompt_bytes)
    lines = [*_upstream(work, rates), *_runs(work, rates)]
    lines.append(
        f"work       {_hours(hours)} {device}-hours, "
        f"{_hours(steps_hours * (gpus_per_trial or 1))} of them upstream"
    )
    if planning.price is not None:
        lines.append(
            f"price      {hours * planning.price:.2f} at {planning.price:g} per {device}-hour"
        )
    lines += [f"memory     {entry}" for entry in memory]
    share = share_line(rates.gpu_need, rates.gpu_bytes, gpus_per_trial)
    lines += [] if share is None else [f"sharing    {share}"]
    lines.append(f"disk       {disk / MIB:.1f} MiB in {job.results}")
    lines.append(
        f"estimate   {clock_text(estimate(work, rates, slots))} on {counted(slots, 'worker')} "
        f"(rates {rates_are}; nothing was written)"
    )
    if planning.gpus is not None:
        planned_slots = cluster_slots(planning.gpus, gpus_per_trial)
        lines.append(
            f"           {clock_text(estimate(work, rates, planned_slots))} on a cluster of "
            f"{counted(planning.gpus, device)} ({counted(planned_slots, 'trial')} at once)"
        )
    if further:
        stay = job.in_one_session and not gpus_per_trial
        lines += _further(work, further, rates, slots, gpus_per_trial, planning, stay=stay)
    return lines


def seconds_in_all(
    work: RemainingWork,
    further: Sequence[RemainingWork],
    rates: Rates,
    slots: int,
    *,
    stay: bool,
) -> float:
    """Return the wall-clock seconds of a search with all the rounds that it may have.

    Workers that `stay` are ready when a further round begins.
    """
    alone = (dataclasses.replace(one, shared_left=()) for one in further)
    later = rates.of_ready_workers() if stay else rates
    return estimate(work, rates, slots) + sum(estimate(one, later, slots) for one in alone)


def stated_lines(job: SearchJob, gpus_per_trial: float, planning: Planning) -> list[str]:
    """Return the plan of a cluster that is not here, from a stated throughput and from nothing.

    Raises:
        UsageError: it is not said of how many GPUs.
        DataError: a few-shot file is malformed.
    """
    from mpt.search.cost.stated import stated_rates, stated_work
    from mpt.search.cost.trial_memory import largest_trials

    speed = planning.throughput
    if speed is None or planning.gpus is None:
        raise UsageError("--throughput plans a cluster; say of how many GPUs with --plan-gpus")
    share = gpus_per_trial or 1.0
    slots = cluster_slots(planning.gpus, share)
    memory = largest_trials(job.trials, on_gpu=True)
    lines = plan_lines(
        job,
        stated_work(job.trials),
        stated_rates(job.trials, speed),
        slots,
        gpus_per_trial=share,
        planning=Planning(price=planning.price),
        memory=memory,
        rates_are=f"follow from {speed.bfloat16:g} TFLOP/s in bfloat16 and {speed.float32:g} in "
        "float32, as stated; stored results and further seeds were not looked at",
    )
    for need in memory:
        gpu = smallest(need.peak)
        fits = "no GPU that is known here" if gpu is None else f"{gpu.name} ({gpu.instance})"
        lines.append(f"fits       {need.name}: {fits}, alone on it")
    return lines


def cluster_slots(gpus: int, gpus_per_trial: float) -> int:
    """Return how many trials run at once on `gpus` GPUs, or on as many CPUs.

    Raises:
        UsageError: not even one does.
    """
    slots = trials_on_gpus(gpus, gpus_per_trial) if gpus_per_trial else gpus
    if slots < 1:
        raise UsageError(f"--plan-gpus is {gpus}, but a trial needs {gpus_per_trial:g} GPUs")
    return slots


def _upstream(work: RemainingWork, rates: Rates) -> list[str]:
    total = sum(part.steps for part in work.trials)
    trials = sum(part.steps > 0 for part in work.trials)
    lines = [
        f"upstream   {counted(total, 'step')} left in "
        f"{counted(trials, 'trajectory', 'trajectories')}"
    ]
    for kind in dict.fromkeys(part.kind for part in work.trials if part.steps):
        steps = sum(part.steps for part in work.trials if part.kind == kind)
        lines.append(_row(steps, "step", rates.step_seconds(kind), kind))
    return lines


def _runs(work: RemainingWork, rates: Rates) -> list[str]:
    unfinished = [part for part in work.run_works if part.runs]
    steps = sum(part.steps for part in unfinished)
    shared = sum(part.runs for part in work.shared_left)
    lines = [
        f"runs       {sum(part.runs for part in unfinished)} left of {work.all_runs} ({shared} of "
        f"them shared baselines, counted once), {counted(steps, 'step')} of tuning"
    ]
    for kind in dict.fromkeys(part.kind for part in unfinished):
        parts = [part for part in unfinished if part.kind == kind]
        runs = sum(part.runs for part in parts)
        seconds = sum(run_seconds(part, rates) for part in parts)
        lines.append(_row(runs, "run", seconds / runs, kind))
    return lines


def _further(
    work: RemainingWork,
    further: Sequence[RemainingWork],
    rates: Rates,
    slots: int,
    gpus_per_trial: float,
    planning: Planning,
    *,
    stay: bool,
) -> list[str]:
    """Return what rounds with more upstream seeds may add, and the time with them."""
    device = "GPU" if gpus_per_trial else "CPU"
    trials = [trial for one in further for trial in one.trials]
    seconds = sum(step_seconds(one, rates) + run_seconds(one.runs, rates) for one in trials)
    hours = seconds / 3600 * (gpus_per_trial or 1)
    cost = f"{_hours(hours)} {device}-hours"
    if planning.price is not None:
        cost += f", {hours * planning.price:.2f} at {planning.price:g} per {device}-hour"
    steps, runs = sum(one.steps for one in trials), sum(one.runs.runs for one in trials)

    def in_all(slots: int, *, stay: bool) -> str:
        return clock_text(seconds_in_all(work, further, rates, slots, stay=stay))

    points = counted(sum(one.points for one in trials), "point")
    lines = [
        f"further    at most {points} with more upstream seeds; the scores decide",
        f"           {counted(steps, 'step')}, {counted(runs, 'run')}, {cost}",
        f"           at most {in_all(slots, stay=stay)} in all on {counted(slots, 'worker')}",
    ]
    if planning.gpus is not None:
        cluster = cluster_slots(planning.gpus, gpus_per_trial)
        lines.append(f"           at most {in_all(cluster, stay=False)} in all on the cluster")
    return lines


def _row(count: int, what: str, seconds: float, kind: str) -> str:
    return f"           {counted(count, what)}, {seconds:.3g} s each: {kind}"


def _hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 10 else f"{hours:.0f}"
