"""What a large search costs its driver, its writer and its report: time and memory.

    python benchmarks/scale.py [--sizes 100,1000] [--skip-tune]
                               [--writers 64] [--writer-seconds 40] [--run-seconds 0.15,10]

At every size N it writes a search of N trials with one rung each (180 runs a point, and 180 of
the shared baseline) into a database, by the study and keys of the embedded search but with one
upstream seed, so that no replicate is ever missing, and with numbers out of nowhere. Then, each in
a fresh process:

    remaining    compare the job with the database (what `--dry-run` and every start do)
    board        read, score and rank all points
    costs        add up what the runs behind them have cost
    finished     a search with nothing left to do, from start to exit code; it ends with an error
                 if it would start a trial
    report data  what `mpt report` reads: the doctor's checks, sections, cells; no page, no picture
    trials       the same search without its points, through Ray Tune on two workers that are used
                 again; a trial does nothing but store its point

After the sizes (`--sizes ''`: none of them):

    writers      simulated workers hand finished runs to the one writer of a search, at the rate of
                 real workers that take this long for a run, once for each of --run-seconds (.15 is
                 the embedded study's on a CPU core, 10 stands for a real model's; see
                 `scaling.writers`); the writer's share of a core, and how long calls take

and prints one JSON object. Seconds per 100 000 runs hold the fixed ones too (opening the study),
which weigh the more the smaller a size is. The ratio is the time per run at the largest size over
that at the smallest: 1.0 is flat.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from measuring import in_a_process, machine, peak, reset_peak
from rich.console import Console
from scaling.results import RUNG, job_of, opener, write_results
from scaling.writers import Load, measure_writer

from mpt.search import run as run_module
from mpt.search.cost.plan import Rates
from mpt.search.display.display import Display
from mpt.search.job import Execution, SearchJob
from mpt.search.leaderboard import Leaderboard, ranked
from mpt.search.remaining import remaining_work
from mpt.search.run import run_search
from mpt.store.artifacts import Artifacts
from mpt.store.database import FILE, open_results
from mpt.store.records import Point
from mpt.trial.origin import now
from mpt.trial.store import TrialStore
from mpt.words import counted

PER_RUNS = 100_000
"""Runs that seconds are given for."""

Measured = tuple[float, float, int]
"""Seconds, CPU seconds of the process (others' load lengthens them least), bytes of growth."""


def main() -> None:
    """Measure and print."""
    flags = _flags()
    before, tables = machine("cpu"), []
    for size in flags.sizes:
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            tables.append(measure(Path(folder), size, tune=not flags.skip_tune))
    loads = [
        Load(workers=flags.writers, run_s=run_s, seconds=flags.writer_seconds)
        for run_s in flags.run_seconds
        if flags.writers
    ]
    written = [writers(load) for load in loads]
    about = {"date": now(), "machine before": before, "machine after": machine("cpu")}
    parts = {"sizes": tables, "time ratio": ratios(tables), "writers": written}
    print(json.dumps({**about, **parts}, indent=1))


def _flags() -> argparse.Namespace:
    def numbers(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
        return lambda words: [kind(word) for word in words.split(",") if word]

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--sizes", type=numbers(int), default=[100, 1000], help="numbers of trials")
    add("--skip-tune", action="store_true", help="leave out the trials")
    add("--writers", type=int, default=64, help="simulated workers; 0: leave the writer out")
    add("--writer-seconds", type=float, default=40, help="length of each load")
    add(
        "--run-seconds",
        type=numbers(float),
        default=[0.15, 10.0],
        help="what one worker takes for a run; 0: nothing, as fast as the writer answers",
    )
    return parser.parse_args()


def writers(load: Load) -> dict[str, Any]:
    """Return what a load takes the one writer."""
    print(f"{load.workers} workers of {load.run_s} s a run: writing", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        answer = in_a_process(measure_writer, Path(folder), load)
    if not isinstance(answer, dict):
        raise SystemExit(f"writers of {load.run_s} s a run: {answer}")
    return answer


def measure(folder: Path, size: int, *, tune: bool) -> dict[str, Any]:
    """Return what everything costs at one size.

    Args:
        folder: an empty directory.
        size: trials.
        tune: whether the trials are measured too.
    """
    print(f"{size} trials: writing the database", file=sys.stderr)
    runs = in_a_process(write_results, folder, size)
    if not isinstance(runs, int):
        raise SystemExit(f"results at {size}: {runs}")
    works: dict[str, Callable[[Path, int], Measured]] = {
        "remaining": remaining,
        "board": board,
        "costs": costs,
        "finished": finished,
        "report data": report_data,
    }
    if tune:
        works["trials"] = trials
    file = job_of(folder, size).results / FILE
    steps, bytes_on_disk = {}, file.stat().st_size
    for name, work in works.items():
        answer = in_a_process(work, folder, size)
        if not isinstance(answer, tuple):
            raise SystemExit(f"{name} at {size}: {answer}")
        seconds, cpu, grown = answer
        steps[name] = {
            "seconds": round(seconds, 3),
            "CPU seconds": round(cpu, 3),
            "seconds per 100 000 runs": round(PER_RUNS * seconds / runs, 3),
            "CPU seconds per 100 000 runs": round(PER_RUNS * cpu / runs, 3),
            "milliseconds a trial": round(1e3 * seconds / size, 3),
            "megabytes of growth": round(grown / 1e6, 1),
        }
        print(f"  {name}: {seconds:.1f} s", file=sys.stderr)
    return {
        "trials": size,
        "runs": runs,
        "bytes a run on disk": round(bytes_on_disk / runs),
        "steps": steps,
    }


def ratios(tables: list[dict[str, Any]]) -> dict[str, float]:
    """Return time per run at the last size over that at the first, by step."""
    if not tables:
        return {}
    first, last = (
        {name: step["seconds per 100 000 runs"] for name, step in table["steps"].items()}
        for table in (tables[0], tables[-1])
    )
    return {name: round(last[name] / first[name], 2) for name in last}


# --- what is measured ----------------------------------------------------------------------------


def timed(work: Callable[[], Any]) -> Measured:
    """Return what some work takes."""
    before = reset_peak("cpu")
    began, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return seconds, cpu, peak("cpu") - before


def remaining(folder: Path, size: int) -> Measured:
    """Measure comparing the job with the database."""
    job, studies = job_of(folder, size), opener()
    studies(job.plans[0])
    with open_results(job.results, read_only=True) as database:
        store, files = TrialStore(database), Artifacts(job.files)
        return timed(lambda: remaining_work(job.trials, studies, store, files))


def board(folder: Path, size: int) -> Measured:
    """Measure reading, scoring and ranking all points."""
    job, studies = job_of(folder, size), opener()
    studies(job.plans[0])
    with open_results(job.results, read_only=True) as database:
        return timed(lambda: ranked(Leaderboard(job, studies, database).entries()))


def costs(folder: Path, size: int) -> Measured:
    """Measure adding up the costs."""
    job, studies = job_of(folder, size), opener()
    with open_results(job.results, read_only=True) as database:
        read = Leaderboard(job, studies, database)
        entries = read.entries()
        return timed(lambda: read.run_costs(entries))


def silent(job: SearchJob) -> Display:
    """Return a display that nobody sees."""
    return Display(job, Console(file=io.StringIO(), width=100))


@contextlib.contextmanager
def nothing_starts() -> Iterator[None]:
    """Refuse what a search would compute while the context lasts.

    Raises:
        RuntimeError: trials would be started; their number is said.
    """

    def refuse(_driver: Any, _board: Any, groups: Any, expected: Any, *_: Any, **__: Any) -> None:
        raise RuntimeError(
            f"{counted(len(groups), 'group')} of {counted(len(expected), 'trial')} would be "
            "started, but a finished search computes nothing: write what the job lacks first"
        )

    with mock.patch.object(run_module._Driver, "_compute", refuse):
        yield


def finished(folder: Path, size: int) -> Measured:
    """Measure the return of a search that is finished, with opening the study.

    Raises:
        RuntimeError: it is not finished, see `nothing_starts`.
    """
    job = job_of(folder, size)

    def work() -> None:
        code = run_search(job, Execution(workers=2), display=silent(job))
        if code != 0:
            raise RuntimeError(f"the search ended with {code}, but must end with 0")

    with nothing_starts():
        return timed(work)


def report_data(folder: Path, size: int) -> Measured:
    """Measure what a report reads, before it draws or writes anything.

    Raises:
        RuntimeError: other cells than the points are read, or something is broken.
    """
    from mpt.cli.main import analysis

    read_results = analysis("results.reading").read_results  # imported before the clock runs

    read: list[Any] = []
    measured = timed(lambda: read.append(read_results(job_of(folder, size).results)))
    cells, problems = len(read[0].cells), read[0].problems
    if cells != size or problems:
        raise RuntimeError(f"{cells} cells of {size} points, problems: {problems[:3]}")
    return measured


def trials(folder: Path, size: int) -> Measured:
    """Measure the trials, from the first one's start on; Ray's own start does not count."""
    from mpt.search.ray.session import prepare_environment

    prepare_environment("local")
    from mpt.search.ray import tuning

    job = job_of(folder, size)
    with open_results(job.results, read_only=True) as database:
        points = {point.upstream: point for point in database.points() if point.upstream}
    path = job.results / "mpt.db"
    bare = dataclasses.replace(job, results=folder / "bare")
    with open_results(bare.results) as new, open_results(path.parent, read_only=True) as old:
        runs = old.runs([key for point in old.points() for key in point.runs])
        new.add_study(old.studies()[0])
        new.add_runs(list(runs.values()))
        for point in old.points():
            if not point.upstream:
                new.add_point(point)
    measured: list[Measured] = []
    real = tuning.Session.run

    def measuring(session: Any, slots: int) -> None:
        measured.append(timed(lambda: real(session, slots)))

    changes: list[tuple[Any, str, Any]] = [
        (tuning.Session, "run", measuring),
        (tuning, "SearchTrial", idle_trial(points)),
    ]
    for module, name, value in changes:
        setattr(module, name, value)
    known = Rates(steps={}, runs={}, start_s=0.0)  # nobody reads how long it will take
    code = run_search(bare, Execution(workers=2), display=silent(bare), rates=known)
    assert code == 0, f"the search ended with {code}"
    return measured[0]


def idle_trial(points: dict[str, Point]) -> Any:
    """Return a trial that stores its point and reports that it has landed."""
    from ray import tune

    rung = RUNG  # the class travels to workers that know no benchmarks

    class IdleTrial(tune.Trainable):
        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory([{"CPU": 1}])

        def setup(self, config: dict[str, Any], context: Any = None) -> None:
            self.now, self.context, self.store = config, context, context.store()

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.now = new_config
            return True

        def step(self) -> dict[str, Any]:
            point = points[self.context.keys[self.now["trial"]]]
            self.store.add_point(point)
            return {
                "steps": rung,
                "score": 0.0,
                "best": 0.0,
                "arg": 0.0,
                "arg_low": 0.0,
                "arg_high": 0.0,
                "rung": 1.0,
                "rung_steps": rung,
                "landed": [point.key],
                "runs": 0,
                "waiting": False,
                "owner": point.upstream,
                "queue": None,
                "stopped": None,
                "problems": [],
                "failure": None,
                "done": True,
            }

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass

        def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
            pass

    return IdleTrial


if __name__ == "__main__":
    main()
