"""The table of docs/backbones.md, from the planner: no weights, no GPU, no files.

``python -m benchmarks.backbone_plans`` prints it; a test compares it with the page.
"""

from __future__ import annotations

import dataclasses

from mpt.backbones.memory import PUBLISHED
from mpt.config import StudyConfig
from mpt.search.cost.gpu_share import smallest
from mpt.search.cost.plan import Rates, disk_bytes, work_seconds
from mpt.search.cost.stated import Rows, Throughput, stated_rates, stated_work
from mpt.search.cost.trial_memory import TrialMemory, trial_memory
from mpt.study.presets import load_study
from mpt.study.recipes import recipe
from mpt.study.spaces import load_space
from mpt.study.specs import FineTuningConfig, TrialSpec, UpstreamSpec, trials_of
from mpt.study.study import StudyPlan

GIB, MIB = 2**30, 2**20
STATED = Throughput(bfloat16=247, float32=17)
"""A quarter of an H100's peaks."""
ROWS = Rows(train=32, dev=32, test=1000, inputs=128, targets=8, test_file="any")
"""Rows of a task, and what a batch is padded to."""
CELL_STEPS, CELL_TASKS, SEARCH_TASKS = 5000, 20, 5
HEADS = (
    "backbone",
    "MAML trial, GiB",
    "fits",
    "FT trial, GiB",
    "fits",
    "search, GPU-hours",
    "MAML cell, GPU-hours",
    "FT cell, GPU-hours",
    "disk of the search, MiB",
)


def rows_of(plan: StudyPlan, task: str, seed: int) -> Rows:
    """Return `ROWS`, whatever the task."""
    return ROWS


def table() -> list[str]:
    """Return the table as lines of Markdown."""
    lines = [f"| {' | '.join(HEADS)} |", f"|---|{'---:|---|' * 2}{'---:|' * 4}"]
    return [*lines, *(f"| {' | '.join(row_of(name))} |" for name in PUBLISHED)]


def row_of(name: str) -> list[str]:
    """Return the cells of one backbone."""
    wanted = recipe("paper")
    maml = wanted.upstream["maml"]
    study = load_study(name)
    search = trials_of(_plan(study, SEARCH_TASKS), load_space("maml", "paper").grid())
    cell = TrialSpec(
        plan=_plan(study, CELL_TASKS), upstream=UpstreamSpec(config=maml, rungs=(CELL_STEPS,))
    )
    tuning = FineTuningConfig(downstream=dataclasses.replace(wanted.tuning, catch_up=None))
    tuned = dataclasses.replace(cell, upstream=UpstreamSpec(config=tuning))
    memory = [trial_memory(trial, on_gpu=True) for trial in (search[0], tuned)]
    rates = stated_rates([search[0], tuned], STATED, rows_of)
    rates = dataclasses.replace(rates, start_s=0.0)
    disk = disk_bytes(stated_work(search, rows_of), rates.sizes, 1)
    return [
        f"`{name}`",
        *(text for need in memory for text in _fits(need)),
        *(_hours(trials, rates) for trials in (search, (cell,), (tuned,))),
        f"{disk / MIB:.0f}",
    ]


def _plan(study: StudyConfig, tasks: int) -> StudyPlan:
    names = tuple(f"task {number}" for number in range(tasks))
    return StudyPlan(config=study, source=("source",), scored=names, partial=None)


def _fits(need: TrialMemory) -> tuple[str, str]:
    gpu = smallest(need.peak)
    return f"{need.peak / GIB:.1f}", "none" if gpu is None else gpu.name


def _hours(trials: tuple[TrialSpec, ...], rates: Rates) -> str:
    """Return the hours of trials with the runs of plain prompt tuning beside them."""
    each, shared = work_seconds(stated_work(trials, rows_of), rates)
    return f"{(sum(each) + shared) / 3600:.1f}"


if __name__ == "__main__":
    print("\n".join(table()))
