"""What a large search costs its driver: time and memory per leaf and per trial.

    python benchmarks/scale.py [--sizes 100,1000] [--skip-tune]

At every size N it writes the records of a search of N trajectories with one rung each (100 leaves
a point, and 100 of the shared baseline), by the study, keys and record formats of the embedded
search but with numbers out of nowhere and without forcing anything to the disk. Then, each in a
fresh process:

    stock       compare the job with the records (what `--dry-run` and every start do)
    standings   read, score and rank all points
    costs       add up what the leaves behind them have cost
    finished    a search with nothing left to do, from start to exit code
    trials      the same search without its point records, through Ray Tune on two workers that are
                used again; a trial does nothing but put its point record in its place

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
from mpt.provenance import provenance
from mpt.records import SCHEMA, LeafStore, leaf_key, make_leaf
from mpt.search import run as run_module
from mpt.search.cost.plan import Rates
from mpt.search.display.display import Display
from mpt.search.job import Execution, SearchJob, courses_of
from mpt.search.run import run_search
from mpt.search.standing import Standings, ranked
from mpt.search.stock import take_stock
from mpt.storage import digest, seal
from mpt.study.presets import load_study
from mpt.study.spaces import Trajectory
from mpt.study.study import Study, StudyPlan, open_study, plan_study
from mpt.trial.objective import Pack, baseline_packs, leaf_identity, leaf_table
from mpt.trial.points import point_identity, point_labels

RUNG = 100

WAITING = "points-to-come"
"""Point records, each in a folder named by its trajectory, until a trial puts it in its place."""

Measured = dict[str, tuple[float, int, int]]
"""What → (seconds, bytes of growth, units)."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="100,1000", help="numbers of trajectories")
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
    print(f"{size} trajectories: writing records", file=sys.stderr)
    leaves = in_a_process(write_records, folder, size)
    if not isinstance(leaves, int):
        raise SystemExit(f"records at {size}: {leaves}")
    found: Measured = {}
    works: dict[str, tuple[Callable[..., Any], int]] = {
        "stock": (stock, leaves),
        "standings": (standings, leaves),
        "costs": (costs, leaves),
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
        unit = "leaf" if name in ("stock", "standings", "costs") else "trial"
        print(f"{name:<12}{unit:<8}{cells}{times[-1] / times[0]:>12.2f}")


# --- the records ---------------------------------------------------------------------------------


def job_of(folder: Path, size: int) -> SearchJob:
    """Return a search of `size` trajectories on the embedded study with four downstream rates."""
    config = load_study("embedded")
    config = dataclasses.replace(
        config, downstream=dataclasses.replace(config.downstream, lrs=(0.5, 0.4, 0.3, 0.2))
    )
    trajectories = [
        Trajectory(
            config=UpstreamConfig(inner_lr=1e-4 * (number + 1), outer_lr=0.3), rungs=(RUNG,)
        )
        for number in range(size)
    ]
    return SearchJob(
        courses=courses_of(plan_study(config), trajectories),
        results=folder / "results",
        title="synthetic",
    )


def opener() -> Callable[[StudyPlan], Study]:
    """Return what opens the study once a process."""
    opened: dict[StudyPlan, Study] = {}

    def of(plan: StudyPlan) -> Study:
        if plan not in opened:
            opened[plan] = open_study(plan)
        return opened[plan]

    return of


def write_records(folder: Path, size: int) -> int:
    """Write the records of a finished search; return how many leaves they are."""
    job = job_of(folder, size)
    study = opener()(job.plans[0])
    store, rng = LeafStore(job.results), np.random.default_rng(0)
    baseline = baseline_packs(study)
    written = write_leaves(store, baseline, rng)
    points = store.disk.root / "points"
    points.mkdir()
    for number, course in enumerate(job.courses):
        packs = list(packs_from(study, baseline, digest(number)))
        written += write_leaves(store, packs, rng)
        key = study.trajectory_key(course.trajectory.config)
        identity = point_identity(study, key, RUNG)
        point = {
            "schema": SCHEMA,
            "key": leaf_key(identity),
            "identity": identity,
            **point_labels(study, course.trajectory.config.method),
            "config": dataclasses.asdict(course.trajectory.config),
            "steps": RUNG,
            "trajectory": key,
            "prompt": digest(number),
            "leaves": leaf_table(packs),
            "baseline": leaf_table(baseline),
            "status": "ok",
            "note": "",
            "cost": {"steps": RUNG, "examples": 800, "tokens": 9000, "seconds": 30.0},
            "provenance": provenance(),
        }
        (points / f"{point['key']}.json").write_bytes(seal(point))
    return written


def packs_from(study: Study, baseline: list[Pack], prompt: str) -> Iterator[Pack]:
    """Yield the packs of a prompt that is known by its digest only."""
    for pack in baseline:
        runs = []
        for run in pack.runs:
            identity = leaf_identity(study, run.task, prompt, run.lr)
            runs.append(dataclasses.replace(run, identity=identity, key=leaf_key(identity)))
        yield Pack(pack.task, tuple(runs))


def write_leaves(store: LeafStore, packs: list[Pack], rng: np.random.Generator) -> int:
    """Write leaves of the usual size, without the care that a kill would ask for."""
    cost = {"steps": 200, "examples": 800, "tokens": 9000, "seconds": 3.0}
    runs = [run for pack in packs for run in pack.runs]
    for run in runs:
        dev, test = map(float, rng.random(2))
        curve = [[20 * step, *map(float, rng.random(2))] for step in range(10)]
        result = {"dev": dev, "test": test, "best_step": 20, "curve": curve, "status": "ok"}
        leaf = make_leaf(run.identity, {**result, "stopped": None}, cost, provenance())
        path = store.folder / run.key[:2] / f"{run.key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seal(leaf))
    return len(runs)


# --- what is measured ----------------------------------------------------------------------------


def timed(work: Callable[[], Any]) -> tuple[float, int]:
    """Return the seconds some work takes and the bytes by which the process grew at most."""
    before = reset_peak("cpu")
    began = time.perf_counter()
    work()
    return time.perf_counter() - began, peak("cpu") - before


def stock(folder: Path, size: int) -> tuple[float, int]:
    """Measure taking stock."""
    job, studies = job_of(folder, size), opener()
    studies(job.plans[0])
    return timed(lambda: take_stock(job, studies))


def standings(folder: Path, size: int) -> tuple[float, int]:
    """Measure reading, scoring and ranking all points."""
    job, studies = job_of(folder, size), opener()
    studies(job.plans[0])
    return timed(lambda: ranked(Standings(job, studies, read_only=True).entries()))


def costs(folder: Path, size: int) -> tuple[float, int]:
    """Measure adding up the costs."""
    job, studies = job_of(folder, size), opener()
    read = Standings(job, studies, read_only=True)
    entries = read.entries()
    return timed(lambda: read.leaf_costs(entries))


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
    points = job.results / "points"
    for path in list(points.iterdir()):
        key = path.read_text().rpartition('"trajectory":"')[2].partition('"')[0]
        (job.results / WAITING / key).mkdir(parents=True)
        path.rename(job.results / WAITING / key / path.name)
    measured: list[tuple[float, int]] = []
    real = tuning.tune_trials

    def measuring(*arguments: Any) -> None:
        measured.append(timed(lambda: real(*arguments)))

    changes: list[tuple[Any, str, Any]] = [
        (tuning, "tune_trials", measuring),
        (tuning, "SearchTrial", idle_trial()),
        (run_module, "_probe", lambda *_: Rates(steps={}, leaves={}, start_s=0.0)),
    ]
    for module, name, value in changes:
        setattr(module, name, value)
    code = run_search(job, Execution(workers=2), display=silent(job))
    assert code == 0, f"the search ended with {code}"
    return measured[0]


def idle_trial() -> Any:
    """Return a trial that puts its point record in its place and reports that it has landed."""
    from ray import tune

    waiting, rung = WAITING, RUNG  # the class travels to workers that know no benchmarks

    class IdleTrial(tune.Trainable):
        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory([{"CPU": 1}])

        def setup(self, config: dict[str, Any]) -> None:
            self.now = config

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.now = new_config
            return True

        def step(self) -> dict[str, Any]:
            trial, results = self.now["trial"], self.now["results"]
            (point,) = (results / waiting / trial["key"]).iterdir()
            point.rename(results / "points" / point.name)
            return {
                "index": trial["index"],
                "steps": rung,
                "score": 0.0,
                "rung_scores": {str(rung): 0.0},
                "landed": [rung],
                "leaves": 0,
                "tuning": None,
                "stopped": None,
                "problems": [],
                "failure": None,
                "done": True,
            }

        def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
            return {}

        def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
            pass

    return IdleTrial


if __name__ == "__main__":
    main()
