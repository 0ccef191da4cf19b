"""What a large search costs its driver and its report: time and memory per run and per trial.

    python benchmarks/scale.py [--sizes 100,1000] [--skip-tune]

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

import numpy as np
from measuring import in_a_process, machine, peak, reset_peak
from rich.console import Console

from mpt.config import UpstreamConfig
from mpt.keys import digest
from mpt.search import run as run_module
from mpt.search.cost.plan import Rates
from mpt.search.display.display import Display
from mpt.search.job import Execution, SearchJob
from mpt.search.leaderboard import Leaderboard, ranked
from mpt.search.remaining import remaining_work
from mpt.search.run import run_search
from mpt.store.artifacts import Artifacts
from mpt.store.database import FILE, Database, open_results
from mpt.store.records import Cost, Point, Run
from mpt.study.presets import load_study
from mpt.study.record import study_record
from mpt.study.specs import PromptTuningConfig, UpstreamSpec, settings_of, trials_of
from mpt.study.study import OpenStudy, StudyPlan, open_study, plan_study
from mpt.trial.origin import now, origin_of
from mpt.trial.runs import PlannedRun, RunPack, baseline_packs, keys_of, upstream_key
from mpt.trial.store import TrialStore
from mpt.trial.trial import finish_point
from mpt.words import counted

RUNG = 100

PER_RUNS = 100_000
"""Runs that seconds are given for."""

Measured = tuple[float, float, int]
"""Seconds, CPU seconds of the process (others' load lengthens them least), bytes of growth."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="100,1000", help="numbers of trials")
    parser.add_argument("--skip-tune", action="store_true", help="leave out the trials")
    flags = parser.parse_args()
    sizes = [int(word) for word in flags.sizes.split(",")]
    before, tables = machine("cpu"), []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            tables.append(measure(Path(folder), size, tune=not flags.skip_tune))
    about = {"date": now(), "machine before": before, "machine after": machine("cpu")}
    print(json.dumps({**about, "sizes": tables, "time ratio": ratios(tables)}, indent=1))


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
    first, last = (
        {name: step["seconds per 100 000 runs"] for name, step in table["steps"].items()}
        for table in (tables[0], tables[-1])
    )
    return {name: round(last[name] / first[name], 2) for name in last}


# --- the results ---------------------------------------------------------------------------------


def job_of(folder: Path, size: int) -> SearchJob:
    """Return a search of `size` trials on the embedded study with four downstream rates.

    It has one upstream seed: with the study's own, replicates would be missing, and computed.
    """
    config = load_study("embedded")
    config = dataclasses.replace(
        config,
        downstream=dataclasses.replace(config.downstream, lrs=(0.5, 0.4, 0.3, 0.2)),
        replicates=1,
        fresh_replicates=0,
    )
    specs = [
        UpstreamSpec(
            config=UpstreamConfig(inner_lr=1e-4 * (number + 1), outer_lr=0.3), rungs=(RUNG,)
        )
        for number in range(size)
    ]
    return SearchJob(
        trials=trials_of(plan_study(config), specs), results=folder / "results", title="synthetic"
    )


def opener() -> Callable[[StudyPlan], OpenStudy]:
    """Return what opens the study once a process."""
    opened: dict[StudyPlan, OpenStudy] = {}

    def of(plan: StudyPlan) -> OpenStudy:
        if plan not in opened:
            opened[plan] = open_study(plan)
        return opened[plan]

    return of


def write_results(folder: Path, size: int) -> int:
    """Write a finished search; return how many runs it has."""
    job = job_of(folder, size)
    study = opener()(job.plans[0])
    rng, record = np.random.default_rng(0), study_record(study)
    baseline = baseline_packs(study)
    with open_results(job.results) as database:
        database.add_study(record)
        written = write_runs(database, baseline, rng)
        finish_point(record.key, PromptTuningConfig(), "", baseline, TrialStore(database))
        for number, trial in enumerate(job.trials):
            packs = list(packs_from(baseline, digest(number)))
            written += write_runs(database, packs, rng)
            database.add_point(
                Point(
                    study=record.key,
                    method="maml",
                    settings=settings_of(trial.upstream.config),
                    steps=RUNG,
                    upstream=upstream_key(study, trial.upstream.config),
                    prompt=digest(number),
                    runs=tuple(keys_of(packs)),
                    cost=Cost(steps=RUNG, examples=800, tokens=9000, seconds=30.0),
                    provenance=origin_of(),
                    created=now(),
                )
            )
    return written


def packs_from(baseline: list[RunPack], prompt: str) -> Iterator[RunPack]:
    """Yield the packs of a prompt that is known by its digest only."""
    for pack in baseline:
        runs = [
            PlannedRun(
                run.task, run.lr, run.prompt, dataclasses.replace(run.identity, init=prompt)
            )
            for run in pack.runs
        ]
        yield RunPack(pack.task, tuple(runs))


def write_runs(database: Database, packs: list[RunPack], rng: np.random.Generator) -> int:
    """Write runs of the usual size."""
    runs = []
    for run in (run for pack in packs for run in pack.runs):
        dev, test = map(float, rng.random(2))
        curve = tuple((20 * step, float(rng.random()), float(rng.random())) for step in range(10))
        runs.append(
            Run(
                identity=run.identity,
                dev=dev,
                test=test,
                best_step=20,
                curve=curve,
                status="ok",
                cost=Cost(steps=200, examples=800, tokens=9000, seconds=3.0),
                provenance=origin_of(),
                created=now(),
            )
        )
    database.add_runs(runs)
    return len(runs)


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

    def refuse(_driver: Any, _board: Any, groups: Any, expected: Any, *_: Any) -> None:
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
        (run_module, "_probe", lambda *_: Rates(steps={}, runs={}, start_s=0.0)),
    ]
    for module, name, value in changes:
        setattr(module, name, value)
    code = run_search(bare, Execution(workers=2), display=silent(bare))
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
