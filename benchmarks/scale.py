"""What a large search costs its driver: time and memory per run and per trial.

    python benchmarks/scale.py [--sizes 100,1000] [--skip-tune]

At every size N it writes a search of N trials with one rung each (100 runs a point, and 100 of the
shared baseline) into a database, by the study and keys of the embedded search but with numbers out
of nowhere. Then, each in a fresh process:

    remaining   compare the job with the database (what `--dry-run` and every start do)
    board       read, score and rank all points
    costs       add up what the runs behind them have cost
    finished    a search with nothing left to do, from start to exit code
    trials      the same search without its points, through Ray Tune on two workers that are used
                again; a trial does nothing but store its point

and prints time and growth of memory per unit. The last column is the time per unit at the largest
size over that at the smallest: 1.0 is flat.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
from mpt.store.database import Database, open_results
from mpt.store.records import Cost, Point, Run
from mpt.study.presets import load_study
from mpt.study.record import study_record
from mpt.study.specs import PromptTuningConfig, UpstreamSpec, settings_of, trials_of
from mpt.study.study import Study, StudyPlan, open_study, plan_study
from mpt.trial.origin import now, origin_of
from mpt.trial.runs import PlannedRun, RunPack, baseline_packs, keys_of, upstream_key
from mpt.trial.store import TrialStore
from mpt.trial.trial import finish_point

RUNG = 100

Measured = dict[str, tuple[float, int, int]]
"""What → (seconds, bytes of growth, units)."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="100,1000", help="numbers of trials")
    parser.add_argument("--skip-tune", action="store_true", help="leave out the trials")
    flags = parser.parse_args()
    sizes = [int(word) for word in flags.sizes.split(",")]
    print(machine("cpu"))
    tables = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            tables[size] = measure(Path(folder), size, tune=not flags.skip_tune)
    show(tables)


def measure(folder: Path, size: int, *, tune: bool) -> Measured:
    """Return what everything costs at one size."""
    print(f"{size} trials: writing the database", file=sys.stderr)
    runs = in_a_process(write_results, folder, size)
    if not isinstance(runs, int):
        raise SystemExit(f"results at {size}: {runs}")
    found: Measured = {}
    works: dict[str, tuple[Callable[..., Any], int]] = {
        "remaining": (remaining, runs),
        "board": (board, runs),
        "costs": (costs, runs),
        "finished": (finished, size),
    }
    if tune:
        works["trials"] = (trials, size)
    for name, (work, units) in works.items():
        answer = in_a_process(work, folder, size)
        if not isinstance(answer, tuple):
            raise SystemExit(f"{name} at {size}: {answer}")
        found[name] = (*answer, units)
        print(f"  {name}: {answer[0]:.1f} s", file=sys.stderr)
    return found


def show(tables: dict[int, Measured]) -> None:
    """Print milliseconds and kilobytes per unit at every size, and last ÷ first."""
    sizes = list(tables)
    head = "".join(f"{f'ms at {n}':>14}{f'kB at {n}':>14}" for n in sizes)
    print(f"{'':<12}{'per':<8}{head}{'time ratio':>12}")
    for name in tables[sizes[-1]]:
        cells, times = "", []
        for size in sizes:
            seconds, grown, units = tables[size][name]
            times.append(seconds / units)
            cells += f"{1e3 * seconds / units:>14.3f}{grown / 1e3 / units:>14.2f}"
        unit = "run" if name in ("remaining", "board", "costs") else "trial"
        print(f"{name:<12}{unit:<8}{cells}{times[-1] / times[0]:>12.2f}")


# --- the results ---------------------------------------------------------------------------------


def job_of(folder: Path, size: int) -> SearchJob:
    """Return a search of `size` trials on the embedded study with four downstream rates."""
    config = load_study("embedded")
    config = dataclasses.replace(
        config, downstream=dataclasses.replace(config.downstream, lrs=(0.5, 0.4, 0.3, 0.2))
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


def opener() -> Callable[[StudyPlan], Study]:
    """Return what opens the study once a process."""
    opened: dict[StudyPlan, Study] = {}

    def of(plan: StudyPlan) -> Study:
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


def timed(work: Callable[[], Any]) -> tuple[float, int]:
    """Return the seconds some work takes and the bytes by which the process grew at most."""
    before = reset_peak("cpu")
    began = time.perf_counter()
    work()
    return time.perf_counter() - began, peak("cpu") - before


def remaining(folder: Path, size: int) -> tuple[float, int]:
    """Measure comparing the job with the database."""
    job, studies = job_of(folder, size), opener()
    studies(job.plans[0])
    with open_results(job.results, read_only=True) as database:
        store, files = TrialStore(database), Artifacts(job.files)
        return timed(lambda: remaining_work(job.trials, studies, store, files))


def board(folder: Path, size: int) -> tuple[float, int]:
    """Measure reading, scoring and ranking all points."""
    job, studies = job_of(folder, size), opener()
    studies(job.plans[0])
    with open_results(job.results, read_only=True) as database:
        return timed(lambda: ranked(Leaderboard(job, studies, database).entries()))


def costs(folder: Path, size: int) -> tuple[float, int]:
    """Measure adding up the costs."""
    job, studies = job_of(folder, size), opener()
    with open_results(job.results, read_only=True) as database:
        read = Leaderboard(job, studies, database)
        entries = read.entries()
        return timed(lambda: read.run_costs(entries))


def silent(job: SearchJob) -> Display:
    """Return a display that nobody sees."""
    return Display(job, Console(file=io.StringIO(), width=100))


def finished(folder: Path, size: int) -> tuple[float, int]:
    """Measure the return of a search that is finished, with opening the study."""
    job = job_of(folder, size)

    def work() -> None:
        assert run_search(job, Execution(workers=2), display=silent(job)) == 0

    return timed(work)


def trials(folder: Path, size: int) -> tuple[float, int]:
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
    measured: list[tuple[float, int]] = []
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
