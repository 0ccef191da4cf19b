"""The driver of a search: take stock, compute what is missing with Ray Tune, rank from records.

Tune is only the dispatcher. What is done is read from our own records at the start; trials whose
points are all there are not started, the others find their own state. The winner is the argmax
over the point records. Nothing of Tune's is ever restored.
"""

from __future__ import annotations

import datetime
import functools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from mpt.records import LeafStore
from mpt.search.choosers import open_chooser
from mpt.search.cost.gpu_share import share_line
from mpt.search.cost.plan import Load, Rates
from mpt.search.cost.planner import Planning, plan_lines
from mpt.search.cost.probe import courses_to_probe, probe_courses
from mpt.search.cost.time_left import TimeLeft, clock_text
from mpt.search.cost.trial_memory import largest_trials
from mpt.search.display.display import Display
from mpt.search.display.document import document_of, plan_document
from mpt.search.feed import Feed, planned, with_suggestions
from mpt.search.job import Execution, SearchJob
from mpt.search.lock import driver_lock
from mpt.search.ray.interrupts import Interrupts
from mpt.search.ray.session import on_this_cpu, ray_session, remote_probe
from mpt.search.standing import Standings, ranked
from mpt.search.stock import take_stock
from mpt.storage import Disk
from mpt.storage_errors import storage_error
from mpt.study.study import Study, StudyPlan, open_study

DONE, FAILED, INTERRUPTED = 0, 4, 75
_OURS = (
    "leaves",
    "points",
    "pending",
    "trajectories",
    "locks",
    "packs.jsonl",
    "tune",
    "tmp",
    "packs",
    "prompts",
    "searches",
    "stops.jsonl",
    "tensorboard",
)


def run_search(
    job: SearchJob,
    execution: Execution,
    *,
    fresh: bool = False,
    display: Display | None = None,
    rates: Rates | None = None,
) -> int:
    """Run a search to its end, or as far as it gets; return the exit code.

    Args:
        job: what is searched.
        execution: where and how.
        fresh: move the records in the results directory aside first.
        display: where progress goes.
        rates: of `measured`; None: they are measured now.

    Returns:
        0 done, 4 some trials failed, 75 interrupted (the same call resumes).

    Raises:
        UsageError: the results directory is unusable or in use, or Ray cannot run a trial.
        DataError: backbone or few-shot files are broken.
        StorageError: the results directory is full or gone.
    """
    show = display or Display(job)
    interrupts = Interrupts()
    with interrupts.watching():
        try:
            LeafStore(job.results)  # creates the directory, or says why it cannot be used
            with driver_lock(job.results):
                Disk(job.results).sweep()
                if fresh:
                    _set_aside(job.results, show.say)
                return _run(job, execution, show, interrupts, rates)
        except KeyboardInterrupt:
            show.document(lambda: {"exit_code": INTERRUPTED, "next": execution.resume})
            return _interrupted(execution, show)
        except OSError as error:
            if job.results in Path(str(error.filename)).parents:
                raise storage_error(Path(str(error.filename)), error) from error
            raise


def plan_search(
    job: SearchJob,
    execution: Execution,
    display: Display | None = None,
    planning: Planning | None = None,
) -> int:
    """Print every point, the leaves and a measured estimate; write no results."""
    show = display or Display(job)
    job = with_suggestions(job, open_chooser(job, read_only=True))
    standings = Standings(job, open_plan, read_only=True)
    entries, known = standings.entries(), len(job.courses)
    job = planned(job, standings)
    load = take_stock(job, open_plan)
    show.header(load)
    show.points_table(entries)
    if len(job.courses) > known:
        show.say(f"{len(job.courses) - known} more trajectories are chosen while the search runs")
    if load.points_there == load.points:
        show.say("nothing is left to do; the same command without --dry-run prints the ranking")
        show.document(lambda: plan_document(job, entries, ()))
        return DONE
    rates, slots = measured(job, load, execution, show.say)
    gpus = execution.gpus_per_trial
    lines = plan_lines(
        job,
        load,
        rates,
        slots,
        gpus_per_trial=gpus,
        planning=planning or Planning(),
        memory=largest_trials(courses_to_probe(job, load), on_gpu=gpus > 0),
    )
    for line in lines:
        show.say(line)
    show.document(lambda: plan_document(job, entries, lines))
    return DONE


def measured(
    job: SearchJob, load: Load, execution: Execution, say: Callable[[str], None]
) -> tuple[Rates, int]:
    """Measure how fast what is left of a job is, where its trials would run.

    Returns:
        The rates, and how many trials would run at once.
    """
    if on_this_cpu(execution):
        return _probe(job, load), min(len(job.courses), execution.workers or _cpus())
    with ray_session(execution, len(job.courses), say=say) as slots:
        return remote_probe(courses_to_probe(job, load), execution), slots


def _run(
    job: SearchJob,
    execution: Execution,
    show: Display,
    interrupts: Interrupts,
    rates: Rates | None,
) -> int:
    began = time.perf_counter()
    chooser = open_chooser(job)
    job = with_suggestions(job, chooser)
    standings = Standings(job, open_plan)
    feed = Feed(job, standings, chooser, open_plan)
    whole = planned(job, standings)
    load = take_stock(whole, open_plan)
    show.header(load)
    failures: dict[int, str] = {}
    if feed.left:
        if rates is None and on_this_cpu(execution):
            rates = _probe(whole, load)

        def time_left(slots: int) -> TimeLeft:
            there = rates or remote_probe(courses_to_probe(whole, load), execution)
            share = share_line(there.gpu_need, there.gpu_bytes, execution.gpus_per_trial)
            if share is not None:
                show.problem(share)
            return TimeLeft(load, there, slots)

        failures = _compute(job, execution, show, interrupts, feed, standings, time_left)
    for problem in standings.problems:
        show.problem(problem)
    entries = standings.entries()
    missing = sum(entry.score is None and entry.stopped is None for entry in entries)
    code = DONE
    if missing or feed.open:
        code = INTERRUPTED if interrupts.name else FAILED
    show.document(
        lambda: document_of(
            job,
            standings,
            exit_code=code,
            failures=failures,
            command=execution.resume if code else execution.next_step,
        )
    )
    if code == INTERRUPTED:
        return _interrupted(execution, show)
    if ranked(entries):
        show.ranking(entries)
    for index, reason in failures.items():
        show.say(f"failed: {standings.courses[index].name}: {reason}")
    if code == FAILED:
        show.say(f"{missing} of {len(entries)} points are missing. Try again: {execution.resume}")
    else:
        _closing(job, execution, show, standings, time.perf_counter() - began)
    return code


def _compute(
    job: SearchJob,
    execution: Execution,
    show: Display,
    interrupts: Interrupts,
    feed: Feed,
    standings: Standings,
    time_left: Callable[[int], TimeLeft],
) -> dict[int, str]:
    """Run the trials that are not over; return course → why it failed."""
    folder = job.results / "tune" / _stamp()
    shutil.rmtree(folder.parent, ignore_errors=True)  # Tune's state of killed runs
    session = ray_session(execution, feed.left, results=job.results, say=show.say)
    with session as slots:
        interrupts.listen()
        from mpt.search.ray.tuning import Watcher, tune_trials

        left = time_left(slots)
        show.say(f"  time     about {clock_text(left.seconds)} on {slots} workers")
        show.lines_head()
        watcher = Watcher(show, standings, left)
        with show.live(), interrupts.tuning():
            tune_trials(job, execution, feed, slots, folder, watcher)
    failures = dict(watcher.failures)
    if not failures:  # their error files lie there
        shutil.rmtree(folder.parent, ignore_errors=True)
    return failures


@functools.lru_cache(maxsize=1)
def open_plan(plan: StudyPlan) -> Study:
    """Open a study as a worker would."""
    import torch

    # One thread, as in the workers: the last bit of a mean, and with it a key, may depend on it.
    torch.set_num_threads(1)
    return open_study(plan)


def _probe(job: SearchJob, load: Load) -> Rates:
    """Measure the rates here, of every kind of work that is left."""
    open_plan.cache_clear()  # a worker starts from nothing
    return probe_courses(courses_to_probe(job, load), open_plan)


def _closing(
    job: SearchJob, execution: Execution, show: Display, standings: Standings, seconds: float
) -> None:
    """Say what the search has cost, where it is, and what to do next."""
    entries = [entry for entry in standings.entries() if entry.record is not None]
    upstream: dict[str, dict[str, float]] = {}
    for entry in entries:  # later rungs of a trajectory include the earlier ones
        assert entry.record is not None
        upstream[entry.record["trajectory"]] = entry.record["cost"]
    steps = sum(cost["steps"] for cost in upstream.values())
    spent = sum(cost["seconds"] for cost in upstream.values())
    leaves = standings.leaf_costs(entries)
    show.say(
        f"cost     {steps:.0f} upstream steps ({clock_text(spent)} of computing), "
        f"{leaves['leaves']:.0f} downstream runs ({clock_text(leaves['seconds'])}); "
        f"this call took {clock_text(seconds)}"
    )
    show.say(f"records  {job.results} (points/, leaves/; prompts in trajectories/)")
    show.say(f"next     {execution.next_step}")


def set_records_aside(results: Path, say: Callable[[str], None]) -> None:
    """Move the records of a results directory aside, so that its next search starts anew.

    Raises:
        UsageError: the directory is unusable or in use.
        StorageError: it is full or gone.
    """
    LeafStore(results)
    with driver_lock(results):
        _set_aside(results, say)


def _set_aside(results: Path, say: Callable[[str], None]) -> None:
    """Move our files into ``old-<time>`` inside the results directory; nothing is deleted."""
    ours = [results / name for name in _OURS if (results / name).exists()]
    target = results / f"old-{_stamp()}"
    target.mkdir()
    for path in ours:
        path.rename(target / path.name)
    say(f"--fresh: the records so far were moved to {target}")


def _interrupted(execution: Execution, show: Display) -> int:
    show.say(f"interrupted; what was finished is kept. Resume with: {execution.resume}")
    return INTERRUPTED


def _stamp() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")


def _cpus() -> int:
    return len(os.sched_getaffinity(0))
