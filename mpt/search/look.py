"""What a search has and lacks, looked at without writing: its plan, and what it will cost."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpt.processes import usable_processors
from mpt.search.cost.plan import Rates, RemainingWork
from mpt.search.cost.planner import Planning, plan_lines
from mpt.search.cost.probe import probe_trials, trials_to_probe
from mpt.search.cost.trial_memory import largest_trials
from mpt.search.display.display import Display
from mpt.search.display.document import plan_document
from mpt.search.job import DONE, Execution, SearchJob
from mpt.search.leaderboard import Leaderboard, PointStatus
from mpt.search.ray.session import on_this_cpu, ray_session, remote_probe
from mpt.search.remaining import remaining_work
from mpt.search.replication import further_replicates, run_rounds, with_first_seed
from mpt.search.suggested import on_record, suggested_before
from mpt.store.artifacts import Artifacts
from mpt.store.database import FILE, Database, open_results
from mpt.study.specs import TrialSpec
from mpt.study.study import OpenStudy, StudyPlan, open_study, release_weights
from mpt.trial.store import TrialStore
from mpt.words import counted

WAIT = "  wait     a few steps of each kind of work are timed first"
"""What is said before the first trial starts, or a plan is shown."""


def plan_search(
    job: SearchJob,
    execution: Execution,
    display: Display | None = None,
    planning: Planning | None = None,
) -> int:
    """Print every point, the runs and a measured estimate; write no results."""
    show = display or Display(job)
    show.opening()
    with peek(job) as look:
        show.header(look.work, look.board)
        show.points_table(look.entries)
        more = len(look.expected) - len(look.job.known)
        if more > 0:
            verb = "is" if more == 1 else "are"
            show.say(f"{counted(more, 'more trial')} {verb} chosen while the search runs")
        if look.work.points_there == look.work.points:
            show.say("nothing is left to do; the same without the dry run ranks the points")
            show.document(lambda: plan_document(job, look.entries, ()))
            return DONE
        show.say(WAIT)
        rates, slots = measured(look.expected, look.work, execution, show.say)
        gpus = execution.gpus_per_trial
        lines = plan_lines(
            job,
            look.work,
            rates,
            slots,
            gpus_per_trial=gpus,
            planning=planning or Planning(),
            memory=largest_trials(trials_to_probe(look.expected, look.work), on_gpu=gpus > 0),
            further=look.further(),
        )
        for line in lines:
            show.say(line)
        show.document(lambda: plan_document(job, look.entries, lines))
    return DONE


@dataclass(frozen=True)
class Look:
    """Where a job stands, without anything being written."""

    job: SearchJob
    """With the trials that earlier sessions suggested."""
    board: Leaderboard
    entries: list[PointStatus]
    expected: list[TrialSpec]
    """The trials that are expected to run, or did."""
    work: RemainingWork
    further: Callable[[], list[RemainingWork]]
    """Says the most that further upstream seeds may add, round by round."""


@contextlib.contextmanager
def peek(job: SearchJob) -> Iterator[Look]:
    """Look at what a job has and lacks; where there are no results yet, it lacks everything."""
    stored = job.store is not None or (job.results / FILE).exists()
    with contextlib.ExitStack() as stack:
        if stored:
            database = open_results(job.results, job.store, read_only=True)
        else:
            nothing = stack.enter_context(tempfile.TemporaryDirectory(prefix="mpt-plan-"))
            database = open_results(Path(nothing))
        stack.enter_context(database)
        job = with_known_trials(with_first_seed(job), database)
        board, _ = run_rounds(
            Leaderboard(job, open_plan, database),
            lambda job: Leaderboard(job, open_plan, database),
            compute=lambda *_: {},
            going=lambda: True,
        )
        job = board.job
        entries, expected = board.entries(), expected_trials(job, board)
        store, files = TrialStore(database), Artifacts(job.files)

        def work(trials: Sequence[TrialSpec]) -> RemainingWork:
            return remaining_work(trials, open_plan, store, files)

        def further() -> list[RemainingWork]:
            return [work(one) for one in further_replicates(expected, job.allocation)]

        yield Look(job, board, entries, expected, work(expected), further)


def measured(
    trials: Sequence[TrialSpec],
    work: RemainingWork,
    execution: Execution,
    say: Callable[[str], None],
) -> tuple[Rates, int]:
    """Measure how fast what is left is, where the trials would run.

    Returns:
        The rates, and how many trials would run at once.
    """
    if on_this_cpu(execution):
        return probe_here(trials, work), min(len(trials), execution.workers or usable_processors())
    with ray_session(execution, len(trials), say=say) as slots:
        return remote_probe(trials_to_probe(trials, work), execution), slots


def expected_trials(job: SearchJob, board: Leaderboard) -> list[TrialSpec]:
    """Return the trials as they are expected: without what was stopped, with what will be chosen.

    Stopped trials are cut down to what is stored; in the place of trials that have not been chosen
    yet stand random draws.
    """
    trials = [_cut(board, n) for n in range(len(job.known))]
    if job.suggestions is not None:
        plan, space = job.suggestions.plan, job.suggestions.space
        count = min(job.total[0], space.size or job.total[0])
        sample = space.sample(count, job.suggestions.seed)
        draws = (TrialSpec(plan=plan, upstream=one) for one in sample)
        missing = max(0, job.total[0] - len(trials))
        trials += [one for one in draws if one not in job.known][:missing]
    return trials


def _cut(board: Leaderboard, index: int) -> TrialSpec:
    trial = board.trials[index]
    reached = tuple(entry.steps for entry in board.of_trial(index) if entry.score is not None)
    if not reached or not board.over(index):
        return trial
    upstream = dataclasses.replace(trial.upstream, rungs=reached)
    return dataclasses.replace(trial, upstream=upstream)


def with_known_trials(job: SearchJob, database: Database) -> SearchJob:
    """Return a job with the trials that earlier sessions suggested; with its first at least."""
    of = job.suggestions
    if of is None:
        return job
    if not of.by_optuna:
        recorded = on_record(of, open_plan(of.plan), database)
        return dataclasses.replace(job, trials=(job.trials[0], *recorded))
    known = map(of.trial, suggested_before(of, database))
    trials = tuple(dict.fromkeys([*job.trials, *known]))[: of.count]
    return dataclasses.replace(job, trials=trials)


@functools.lru_cache(maxsize=2)
def open_plan(plan: StudyPlan, *, computes: bool = False) -> OpenStudy:
    """Open a study as a worker would; without `computes` to name its trajectories and runs."""
    import torch

    # One thread, as in the workers: the last bit of a mean, and with it a key, may depend on it.
    torch.set_num_threads(1)
    return open_study(plan, computes=computes)


def probe_here(trials: Sequence[TrialSpec], work: RemainingWork) -> Rates:
    """Measure the rates in this process, of every kind of work that is left."""
    open_plan.cache_clear()  # a worker starts from nothing
    try:
        studies = functools.partial(open_plan, computes=True)
        return probe_trials(trials_to_probe(trials, work), studies)
    finally:
        open_plan.cache_clear()
        release_weights()
