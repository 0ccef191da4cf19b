"""The driver of a search: ask the database what is missing, let Ray Tune compute it, rank.

What is done is read from the database at the start; trials whose points are all there are not
started, the others go on from their newest checkpoint. Nothing else of Tune's is ever restored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mpt.errors import UsageError
from mpt.search.comparison import rankings, seed_of
from mpt.search.control import control_of
from mpt.search.cost.gpu_share import share_line
from mpt.search.cost.plan import Rates, RemainingWork
from mpt.search.cost.planner import seconds_in_all
from mpt.search.cost.probe import trials_to_probe
from mpt.search.cost.time_left import TimeLeft, clock_text
from mpt.search.dispatch import Round, TrialGroup, open_groups
from mpt.search.display.display import Display
from mpt.search.display.document import document_of
from mpt.search.display.header import cost_text
from mpt.search.job import DONE, FAILED, INTERRUPTED, Execution, SearchJob
from mpt.search.leaderboard import Leaderboard, ranked
from mpt.search.look import (
    WAIT,
    expected_trials,
    open_plan,
    probe_here,
    with_known_trials,
)
from mpt.search.ray.interrupts import Interrupts
from mpt.search.ray.session import (
    on_this_cpu,
    one_ray,
    ray_session,
    ray_starts_beside,
    remote_probe,
)
from mpt.search.remaining import remaining_work
from mpt.search.replication import (
    further_replicates,
    next_replicates,
    points_missing,
    run_rounds,
    with_first_seed,
)
from mpt.search.watch.note import NoteKeeper
from mpt.store.artifacts import Artifacts
from mpt.store.database import Database, old_format_note, open_results
from mpt.store.errors import storage_error
from mpt.store.lock import driver_lock
from mpt.study.specs import TrialSpec
from mpt.study.study import release_weights
from mpt.trial.store import TrialStore
from mpt.words import counted

_KEPT = "interrupted; what was finished is kept. Resume with: "
_OURS = ("mpt.db", "mpt.db-wal", "mpt.db-shm", "checkpoints", "rungs", "prompts", "tensorboard")


def run_search(
    job: SearchJob,
    execution: Execution,
    *,
    fresh: bool = False,
    display: Display | None = None,
    rates: Rates | None = None,
) -> int:
    """Run a search to its end, or as far as it gets; return the exit code.

    With `fresh` the results so far are moved aside first; without `rates` they are measured now.

    Returns:
        0 done, 4 some trials failed, 75 interrupted (the same call resumes).

    Raises:
        UsageError: the results directory is unusable or in use, or Ray cannot run a trial.
        DataError: backbone, few-shot files or database are broken.
        StorageError: the storage is full or gone.
    """
    show = display or Display(job)
    interrupts = Interrupts()
    with interrupts.watching() if execution.signals else contextlib.nullcontext():
        try:
            with driver_lock(job.results):
                note = old_format_note(job.results)
                if note is not None:
                    show.problem(note)
                if fresh:
                    _set_aside(job, show.say)
                show.opening()
                with open_results(job.results, job.store, read_only=False) as database:
                    return _Driver(job, execution, show, interrupts, database).run(rates)
        except KeyboardInterrupt:
            show.document(lambda: {"exit_code": INTERRUPTED, "next": execution.resume})
            show.say(_KEPT + execution.resume)
            return INTERRUPTED
        except OSError as error:
            if job.results in Path(str(error.filename)).parents:
                raise storage_error(Path(str(error.filename)), error) from error
            raise


class _Driver:
    """One call of `run_search`, with the database open."""

    def __init__(
        self,
        job: SearchJob,
        execution: Execution,
        show: Display,
        interrupts: Interrupts,
        database: Database,
    ) -> None:
        self._job, self._execution, self._show = job, execution, show
        self._interrupts, self._database = interrupts, database
        self._note = NoteKeeper(database)
        self._open = False
        self._rates: Rates | None = None

    def run(self, rates: Rates | None) -> int:
        began = time.perf_counter()
        job = with_known_trials(with_first_seed(self._job), self._database)
        board = self._board(job)
        self._interrupts.check()  # the model and its packages were read, which takes seconds
        for study in board.studies.values():
            self._database.add_study(study)
        groups = open_groups(board, open_plan, self._database)
        if job.suggestions is not None:  # whoever chooses hands out the other trials
            groups = [group for group in groups if not group.indices]
        expected = expected_trials(job, board)
        work = self._work(expected)
        self._show.header(work, board)
        self._rates = rates
        failures: dict[str, str] = {}
        with one_ray():
            if groups or _suggestions_left(self._job, board):
                further = further_replicates(expected, job.allocation)
                works = [self._work(one) for one in further]
                board, failures = self._compute(
                    board, groups, expected, work, works, rounds=job.in_one_session
                )
            if not failures:
                board, failures = run_rounds(
                    board,
                    self._board,
                    self._replicate,
                    lambda: not (self._open or self._interrupts.name),
                )
        code = DONE
        if points_missing(board) or self._open or self._cut_short(board):
            code = INTERRUPTED if self._interrupts.name else FAILED
        self._note.end(code, failures)
        self._finish(board, failures, code, time.perf_counter() - began)
        return code

    def _cut_short(self, board: Leaderboard) -> bool:
        """Return whether a signal came between two rounds."""
        return bool(self._interrupts.name and next_replicates(board, board.job.allocation))

    def _board(self, job: SearchJob) -> Leaderboard:
        self._job = job
        return Leaderboard(job, open_plan, self._database)

    def _replicate(self, board: Leaderboard, more: Sequence[TrialSpec]) -> dict[str, str]:
        """Run further replicates in a session of their own."""
        groups = self._replicates(board, more)
        if not groups:
            return {}
        # whoever chose or stopped trials has done so before
        plain = dataclasses.replace(board.job, suggestions=None, scheduler="none", racing=False)
        return self._compute(board, groups, more, self._work(more), job=plain)[1]

    def _replicates(self, board: Leaderboard, more: Sequence[TrialSpec]) -> list[TrialGroup]:
        """Say which further replicates are to be run; return those that have to be."""
        groups = open_groups(board, open_plan, self._database)
        groups = [group for group in groups if not set(group.specs).isdisjoint(more)]
        # the longest first, so that no worker is left alone with one of them
        groups.sort(key=lambda group: group.length, reverse=True)
        if groups:
            seeds = dict.fromkeys(seed_of(one) for one in more)
            self._show.replicating(len(more), list(seeds), board.job)
        return groups

    def _next_round(self, board: Leaderboard, rates: Rates, room: int) -> Round | None:
        """Begin the replicates that follow on what was computed; None: there are none."""
        rounds: list[Round] = []

        def begin(board: Leaderboard, more: Sequence[TrialSpec]) -> dict[str, str]:
            groups = self._replicates(board, more)
            if groups:
                slots = min(len(groups), room)
                time_left = self._begin(board, more, self._work(more), rates, slots)
                rounds.append(Round(board, groups, time_left))
            return {}

        run_rounds(board, self._board, begin, lambda: not (rounds or self._interrupts.name))
        return rounds[0] if rounds else None

    def _begin(
        self,
        board: Leaderboard,
        expected: Sequence[TrialSpec],
        work: RemainingWork,
        rates: Rates,
        slots: int,
        further: float | None = None,
    ) -> TimeLeft:
        """Say and note that a round begins; return what knows how long it will take.

        It has `slots` workers; with the `further` rounds all takes so many seconds at most.
        """
        numbers = [board.index_of(trial) for trial in expected]
        places = {number: at for at, number in enumerate(numbers) if number is not None}
        time_left = TimeLeft(work, rates, slots, places=places)
        about = f"about {clock_text(time_left.seconds)} on {counted(slots, 'worker')}"
        if further is not None:
            about += f", at most {clock_text(further)} with more upstream seeds"
        self._show.say(f"  time     {about}")
        self._show.lines_head()
        self._note.begin(self._job, list(board.studies.values()), work, time_left)
        return time_left

    def _work(self, expected: Sequence[TrialSpec]) -> RemainingWork:
        store, files = TrialStore(self._database), Artifacts(self._job.files)
        return remaining_work(expected, open_plan, store, files)

    def _compute(
        self,
        board: Leaderboard,
        groups: Sequence[TrialGroup],
        expected: Sequence[TrialSpec],
        work: RemainingWork,
        further: Sequence[RemainingWork] = (),
        *,
        job: SearchJob | None = None,
        rounds: bool = False,
    ) -> tuple[Leaderboard, dict[str, str]]:
        """Run the trials that are not over; return the leaderboard, and trial → why it failed.

        `further` is the most that later rounds may add; with `rounds` they are run, too.
        """
        job, execution, show = job or self._job, self._execution, self._show
        if job.storage is not None:  # else files lie beside the database, which is open
            Artifacts(job.files).check_writable()
        if self._rates is None:
            show.say(WAIT)
        if self._rates is None and on_this_cpu(execution):
            with ray_starts_beside(execution, show.say):
                self._rates = probe_here(expected, work)
        release_weights()  # workers have their own
        wanted = len(groups) + max(0, len(expected) - len(job.known))
        session = ray_session(execution, None, files=job.files, say=show.say)
        with session as room:
            self._interrupts.listen(execution.signals)
            from mpt.search.ray.tuning import Session

            self._interrupts.check()  # rates were measured, and Ray was started
            known = self._rates or remote_probe(trials_to_probe(expected, work), execution)
            self._rates = known
            share = share_line(known.gpu_need, known.gpu_bytes, execution.gpus_per_trial)
            if share is not None:
                show.problem(share)
            stay = rounds and on_this_cpu(execution)
            later = known.of_ready_workers() if stay else known
            all_s = seconds_in_all(work, further, known, room, stay=stay) if further else None
            time_left = self._begin(board, expected, work, known, min(wanted, room), all_s)
            tuning = Session(
                job,
                execution,
                board,
                groups,
                self._database,
                open_plan,
                show,
                time_left,
                self._note,
                _stamp(),
                (lambda board: self._next_round(board, later, room)) if rounds else None,
            )
            with show.live(), self._interrupts.tuning(execution.signals):
                tuning.run(room)
        self._open = job.suggestions is not None and not tuning.exhausted
        return tuning.board, dict(tuning.watcher.failures)

    def _finish(
        self, board: Leaderboard, failures: dict[str, str], code: int, seconds: float
    ) -> None:
        """Say what came of it."""
        job, execution, show, entries = self._job, self._execution, self._show, board.entries()
        show.document(
            lambda: document_of(
                job,
                board,
                exit_code=code,
                failures=failures,
                command=execution.resume if code else execution.next_step,
            )
        )
        if code == INTERRUPTED:
            show.say(_KEPT + execution.resume)
            return
        all_rankings = rankings(board, entries)
        if ranked(entries):
            show.ranking(entries, all_rankings)
        for name, reason in failures.items():
            show.say(f"failed: {name}: {reason}")
        if code == FAILED:
            missing = f"{points_missing(board)} of {len(entries)} points are missing"
            show.say(f"{missing}. Try again: {execution.resume}")
            return
        show.say(f"cost     {cost_text(board, entries)}; this call took {clock_text(seconds)}")
        where = job.store or job.results / "mpt.db"
        show.say(f"results  {where} (prompts and checkpoints in {job.files})")
        for ranking in all_rankings if execution.control_step else ():
            control = control_of(board, entries, ranking)
            not_run = f"control  not run: {execution.control_step}"
            show.say(not_run if control is None else control.text())
        show.say(f"next     {execution.next_step}")


def _suggestions_left(job: SearchJob, board: Leaderboard) -> bool:
    """Return whether a search that chooses its trials may have some to choose, or to finish."""
    if job.suggestions is None:
        return False
    if not job.suggestions.by_optuna:
        return True  # what it will suggest is not known before it does
    size = job.suggestions.space.size
    count = job.suggestions.count if size is None else min(job.suggestions.count, size)
    return sum(board.over(index) for index in range(len(board.trials))) < count


def set_results_aside(job: SearchJob, say: Callable[[str], None]) -> None:
    """Move the results of a job's directory aside, so that its next search starts anew.

    Raises:
        UsageError: the directory is unusable or in use, or the results are not in a file there.
        StorageError: it is full or gone.
    """
    with driver_lock(job.results):
        _set_aside(job, say)


def _set_aside(job: SearchJob, say: Callable[[str], None]) -> None:
    """Move our files into ``old-<time>`` inside the results directory; nothing is deleted."""
    if job.store is not None or job.storage is not None:
        raise UsageError(
            "--fresh moves a results directory aside, but --store or --storage puts results "
            "elsewhere, where others may use them; give a new database and folder instead"
        )
    ours = [job.results / name for name in _OURS if (job.results / name).exists()]
    if not ours:
        return
    target = job.results / f"old-{_stamp()}"
    target.mkdir()
    for path in ours:
        path.rename(target / path.name)
    say(f"--fresh: the results so far were moved to {target}")


def _stamp() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")
