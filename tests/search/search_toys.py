"""Builds toy searches and runs them, in a test or in a process that a test kills.

As a script: ``python search_toys.py CHECKPOINT GYM RESULTS [SLOW|LONG|TPE] [TWO] [FRESH] [JSON]``
runs the toy search with Ray on one worker (TWO: on two) and exits with its code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mpt.config import DownstreamConfig, PromptConfig, StudyConfig, TextConfig, UpstreamConfig
from mpt.errors import MptError
from mpt.search.cost.plan import Rates, RunRate
from mpt.search.job import Execution, SearchJob, Suggestions
from mpt.store.database import open_results
from mpt.study.domains import Domain
from mpt.study.spaces import Space
from mpt.study.specs import UpstreamSpec, trials_of
from mpt.study.study import plan_study

SOURCES = ("s-one", "s_two", "s-three")
VALIDATION = ("v-one", "v_two")
SEEDS = (13, 21)
KNOWN_RATES = Rates(
    steps={"any": 0.01}, runs={"any": RunRate(step_s=0.002, row_s=0.002)}, start_s=8.0
)
"""For searches whose estimate nobody reads: to measure it takes seconds at every start."""


def write_toy_gym(folder: Path) -> Path:
    """Write a gym whose answers are told by the first letter of the input."""
    rows = [f"validation_tasks = {json.dumps(VALIDATION)}"]
    for name in (*SOURCES, *VALIDATION, "t-one"):
        rows += [f"[tasks.{name}]", 'family = "classification"', 'metric = "ACC"', "shots = 4"]
        for seed in SEEDS:
            rng = np.random.default_rng([seed, *name.encode()])
            for part in ("train", "dev", "test"):
                path = folder / name / f"{name}_4_{seed}_{part}.tsv"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(_line(rng, row) for row in range(8)))
    rows += ["[partitions.random_to_random]", f"source = {json.dumps(SOURCES)}"]
    rows += ['target = ["t-one"]']
    (folder / "gym.toml").write_text("\n".join(rows) + "\n")
    return folder


def _line(rng: np.random.Generator, row: int) -> str:
    tail = "".join(rng.choice(list("abc "), size=int(rng.integers(1, 9))))
    return f"{'pq'[row % 2]}{tail}.\t{'xy'[row % 2]}\n"


def toy_study(checkpoint: Path, gym: Path, **changes: Any) -> StudyConfig:
    config = StudyConfig(
        backbone=str(checkpoint),
        gym=str(gym),
        data_seeds=SEEDS,
        prompt=PromptConfig(length=3),
        text=TextConfig(max_input=24, max_target=4),
        downstream=DownstreamConfig(
            lrs=(0.5, 0.2), batch_size=2, steps=4, eval_every=2, max_generated=3
        ),
    )
    return dataclasses.replace(config, **changes)


def toy_job(
    checkpoint: Path,
    gym: Path,
    results: Path,
    *,
    rungs: tuple[int, ...] = (2, 4, 6),
    inner_lrs: tuple[float, ...] = (0.1, 1.0),
    chunk_s: float = 0.0,
    **changes: Any,
) -> SearchJob:
    return SearchJob(
        trials=trials_of(
            plan_study(toy_study(checkpoint, gym, **changes)),
            [
                UpstreamSpec(config=UpstreamConfig(inner_lr=inner_lr, outer_lr=0.3), rungs=rungs)
                for inner_lr in inner_lrs
            ],
        ),
        results=results,
        title='space "toy"',
        chunk_s=chunk_s,
    )


def with_rungs(job: SearchJob, rungs: tuple[int, ...], **changes: Any) -> SearchJob:
    """Return a job whose trials have these rungs."""
    trials = tuple(
        dataclasses.replace(one, upstream=dataclasses.replace(one.upstream, rungs=rungs))
        for one in job.trials
    )
    return dataclasses.replace(job, trials=trials, **changes)


def slow_job(checkpoint: Path, gym: Path, results: Path) -> SearchJob:
    """The same search with more to do, so that there is time to kill it."""
    return _longer(checkpoint, gym, results, steps=80, rungs=(4, 8, 12))


def long_job(checkpoint: Path, gym: Path, results: Path) -> SearchJob:
    """It takes three times as long, to be killed more often."""
    return _longer(checkpoint, gym, results, steps=120, rungs=tuple(range(10, 60, 10)))


def _longer(
    checkpoint: Path, gym: Path, results: Path, steps: int, rungs: tuple[int, ...]
) -> SearchJob:
    downstream = DownstreamConfig(
        lrs=(0.5, 0.2), batch_size=4, steps=steps, eval_every=40, max_generated=3
    )
    return toy_job(checkpoint, gym, results, rungs=rungs, downstream=downstream)


JOBS = {"SLOW": slow_job, "LONG": long_job}


def tpe_job(
    checkpoint: Path, gym: Path, results: Path, count: int = 3, scheduler: str = "asha"
) -> SearchJob:
    """A search by TPE over the outer learning rate, with successive halving at its rungs."""
    space = Space(
        name="toy",
        method="maml",
        title="outer rates up to where nothing is learned",
        source="",
        domains=(Domain(name="outer_lr", low=0.3, high=30.0, scale="log"),),
        rungs=(2, 4, 8),
        fixed={"inner_lr": 0.1},
        first={"outer_lr": 0.3},
    )
    plan = plan_study(toy_study(checkpoint, gym))
    suggestions = Suggestions(space=space, plan=plan, count=count, seed=42)
    return SearchJob(
        trials=(suggestions.first,),
        suggestions=suggestions,
        scheduler=scheduler,
        results=results,
        title='space "toy"',
    )


def bits(results: Path) -> dict[str, Any]:
    """Return what must not depend on how a search ran: run results, and points without clocks."""
    found: dict[str, Any] = {}
    with open_results(results, read_only=True) as database:
        for point in database.points():
            cost = dataclasses.replace(point.cost, seconds=0.0)
            found[point.key] = dataclasses.replace(point, cost=cost, provenance={}, created="")
            for key, run in database.runs(point.runs).items():
                spent = dataclasses.replace(run.cost, seconds=0.0)
                found[key] = dataclasses.replace(run, cost=spent, provenance={}, created="")
    return found


if __name__ == "__main__":
    from mpt.search.cost import probe
    from mpt.search.display.display import Display
    from mpt.search.run import run_search

    probe.PROBE_S = 0.2  # nobody relies on the estimate

    paths = [Path(word) for word in sys.argv[1:4]]
    words = sys.argv[4:]
    makers = {"TPE": tpe_job, **JOBS}
    make = next((makers[word] for word in words if word in makers), toy_job)
    if "TWO" in words:
        os.environ.pop("RAY_OVERRIDE_RESOURCES", None)  # see conftest.py
    execution = Execution(
        workers=2 if "TWO" in words else 1,
        max_failures=1,
        resume="the same command",
        next_step="rest",
    )
    try:
        job = make(*paths)
        show = Display(job, as_json="JSON" in words)
        rates = KNOWN_RATES if make in JOBS.values() else None
        sys.exit(run_search(job, execution, fresh="FRESH" in words, display=show, rates=rates))
    except MptError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
