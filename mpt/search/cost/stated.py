"""A plan without a GPU and without weights: work from the files, speed from a stated throughput.

Steps and rows are counted as a search from nothing has them; the operations of each follow from
the model's shape (`mpt.backbones.flops`), and seconds from the TFLOP/s that are stated. Not
counted: generation of the outputs that a teacher-forced pass does not decide, and what a GPU
waits.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpt.config import UpstreamConfig, adapts
from mpt.errors import UsageError
from mpt.keys import digest
from mpt.search.cost.plan import (
    Rates,
    RemainingWork,
    RunRate,
    RunWork,
    Sizes,
    TrialWork,
    run_cost,
    run_kind,
    step_kind,
)
from mpt.study.specs import FineTuningConfig
from mpt.study.study import gym_folder
from mpt.trial.starts.cost import choice_work, learned_starts

if TYPE_CHECKING:
    from mpt.backbones.flops import Flops
    from mpt.config import DownstreamConfig, StudyConfig
    from mpt.study.specs import TrialSpec
    from mpt.study.study import StudyPlan

START_S = 60.0
"""Seconds until a worker is ready, weights of a few GB included: an allowance."""
SLOWER = 8
"""How many times as slow float32 is where only the throughput in bfloat16 is stated."""
CHARACTERS = 4
"""Characters of a token, for lengths without a tokenizer."""
EVALUATED = 32
"""Rows that an evaluation reads with one prompt; how many more makes little difference."""
EXACT = 1.3
"""Row-by-row second order in FoMAML-like passes, relative to central differences (measured: 2.59
to 1.98 times FoMAML's time, `benchmarks/meta_step.py`)."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What a GPU sustains, in TFLOP/s."""

    bfloat16: float
    float32: float

    def of(self, precision: str) -> float:
        """Return operations a second in a number format."""
        return 1e12 * (self.bfloat16 if precision == "bfloat16" else self.float32)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one few-shot sample, and how long a batch of them is padded to."""

    train: int
    dev: int
    test: int
    inputs: int
    """Input tokens."""
    targets: int
    """Target tokens."""
    test_file: str
    """Digest of the test rows: data seeds of a task mostly share one file of them."""


RowsOf = Callable[["StudyPlan", str, int], Rows]
"""(study, scored task, data seed) → its rows."""


def parse_throughput(text: str) -> Throughput:
    """Parse ``TFLOPS`` or ``TFLOPS,TFLOPS`` (in bfloat16, in float32).

    Raises:
        UsageError: these are no numbers > 0.
    """
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(0 < value < math.inf for value in values):
        raise UsageError(
            f"--throughput is {text!r}, but must be TFLOP/s in bfloat16 and, if wanted, in "
            "float32: 200 or 200,25"
        )
    return Throughput(bfloat16=values[0], float32=(*values, values[0] / SLOWER)[1])


def rows_in_files(plan: StudyPlan, task: str, seed: int) -> Rows:
    """Return the rows of a scored task's files; lengths are those of the longest of 8 rows."""
    text = plan.config.text
    return _rows(plan.config.gym, plan.target_shots, task, seed, text.max_input, text.max_target)


@functools.lru_cache(maxsize=4096)
def _rows(
    gym: str, shots: int | None, task: str, seed: int, most_input: int, most_target: int
) -> Rows:
    from mpt.gym.catalogue import load_catalogue
    from mpt.gym.fewshot import load_task

    folder = gym_folder(gym, shots)
    sample = load_task(folder, load_catalogue(folder).with_shots(shots).task(task), seed)

    def padded(texts: list[str], most: int) -> int:
        longest = [max(map(len, texts[n : n + 8])) for n in range(0, len(texts), 8)]
        return max(1, min(most, round(sum(longest) / len(longest) / CHARACTERS)))

    return Rows(
        train=len(sample.train),
        dev=len(sample.dev),
        test=len(sample.test),
        inputs=padded([example.input for example in sample.train], most_input),
        targets=padded([example.outputs[0] for example in sample.train], most_target),
        test_file=digest([[example.input, *example.outputs] for example in sample.test]),
    )


def stated_work(trials: Sequence[TrialSpec], rows_of: RowsOf = rows_in_files) -> RemainingWork:
    """Return the work of a search from nothing: runs that trials share are counted once."""
    shared: dict[object, RunWork] = {}
    reached: dict[object, int] = {}
    works: list[TrialWork] = []
    for trial in trials:
        plan, upstream, points = trial.plan, trial.upstream, len(trial.upstream.rungs)
        _take_baselines(plan, rows_of, shared)
        before = reached.get(trial.learned_from, 0)
        top = max(before, upstream.rungs[-1])
        steps, reached[trial.learned_from] = top - before, top
        samples = [(task, seed) for task in plan.scored for seed in plan.config.data_seeds]
        runs = _work(plan, trial.downstream, rows_of, upstream.tuned, samples * points)
        if trial.learned is not None:
            runs = _with_choices(runs, plan, rows_of, points, trial.learned.soup)
        kind = step_kind(plan.config, upstream.config)
        works.append(TrialWork(kind=kind, steps=steps, runs=runs, points=points))
    return RemainingWork(
        trials=tuple(works),
        points=sum(work.points for work in works),
        points_there=0,
        runs=sum(work.runs.runs for work in works),
        runs_there=0,
        shared=sum(work.runs for work in shared.values()),
        shared_there=0,
        shared_left=tuple(shared.values()),
    )


def _take_baselines(plan: StudyPlan, rows_of: RowsOf, shared: dict[object, RunWork]) -> None:
    config = plan.config
    down = dataclasses.replace(config.downstream, start="learned", race_steps=None)
    about = (config.backbone, config.precision, config.prompt, config.text, down)
    for task in plan.scored:
        key = (*about, config.data_seeds, config.starts, config.gym, plan.target_shots, task)
        if key not in shared:
            one = [(task, seed) for seed in config.data_seeds]
            shared[key] = _work(plan, config.downstream, rows_of, "prompt", one)


def _with_choices(
    runs: RunWork, plan: StudyPlan, rows_of: RowsOf, points: int, members: int
) -> RunWork:
    """Return the work of the runs of some points with that of taking their starts."""
    steps, rows = runs.steps, runs.rows
    for task in plan.scored:
        for seed in plan.config.data_seeds:
            sample = rows_of(plan, task, seed)
            one = choice_work(
                plan.config.downstream,
                learned=learned_starts(members),
                starts=plan.config.starts,
                train=sample.train,
                dev=sample.dev,
            )
            steps, rows = steps + points * one.steps, rows + points * one.rows
    return dataclasses.replace(runs, steps=steps, rows=rows)


def _work(
    plan: StudyPlan,
    down: DownstreamConfig,
    rows_of: RowsOf,
    tuned: str,
    samples: Sequence[tuple[str, int]],
) -> RunWork:
    steps = rows = 0
    scored: set[tuple[str, str]] = set()
    for task, seed in samples:
        sample = rows_of(plan, task, seed)
        file = (task, sample.test_file)
        # untuned, equal rows have one score
        test = 0 if tuned == "nothing" and file in scored else sample.test
        scored.add(file)
        taken, read = run_cost(down, tuned, train=sample.train, dev=sample.dev, test=test)
        steps, rows = steps + taken, rows + read
    count = 1 if tuned == "nothing" else len(down.lrs) * plan.config.starts
    return RunWork(
        kind=run_kind(plan.config, tuned),
        runs=count * len(samples),
        steps=count * steps,
        rows=count * rows,
    )


def stated_rates(
    trials: Iterable[TrialSpec], throughput: Throughput, rows_of: RowsOf = rows_in_files
) -> Rates:
    """Return the rates that follow from a throughput.

    Padded lengths are the mean over a study's scored tasks at its first data seed, upstream too.
    """
    from mpt.backbones.flops import row_flops
    from mpt.backbones.memory import width_of

    steps: dict[str, float] = {}
    runs: dict[str, RunRate] = {}
    prompt = evaluations = 0
    for trial in trials:
        config, own = trial.plan.config, trial.upstream.config
        down, lengths = config.downstream, _lengths(trial.plan, rows_of)
        row = _row(config, lengths, down.batch_size, down.dropout)
        evaluated = _row(config, lengths, EVALUATED, 0.0)
        speed = throughput.of(config.precision)
        runs[run_kind(config, "prompt")] = RunRate(
            step_s=down.batch_size * row.tuning / speed, row_s=evaluated.forward / speed
        )
        if isinstance(own, FineTuningConfig):
            tuned = row_flops(own.backbone or config.backbone, config.prompt.length, *lengths)
            full = throughput.of("float32")
            runs[run_kind(config, "weights")] = RunRate(
                step_s=own.downstream.batch_size * tuned.fine_tuning / full,
                row_s=tuned.forward / full,
            )
        elif own.tuned == "nothing":
            bare = row_flops(config.backbone, 0, *lengths)
            runs[run_kind(config, "nothing")] = RunRate(step_s=0.0, row_s=bare.forward / speed)
        elif (learned := trial.learned) is not None:
            together = 1 if _row_by_row(learned, config) else learned.batch_size
            row = _row(config, lengths, together, learned.dropout)
            rows = learned.batch_size * learned.items_per_step
            passes = upstream_passes(learned, config)
            speed = throughput.of(config.upstream_format(learned.method))
            steps[step_kind(config, learned)] = passes * rows * row.tuning / speed
        prompt = max(prompt, 4 * config.prompt.length * width_of(config.backbone))
        evaluations = max(evaluations, -(-config.downstream.steps // config.downstream.eval_every))
    sizes = Sizes(
        run=700 + 26 * evaluations, rung=4096 + prompt, checkpoint=3 * prompt, queue=48 * prompt
    )
    return Rates(steps=steps, runs=runs, start_s=START_S, sizes=sizes)


def upstream_passes(own: UpstreamConfig, study: StudyConfig) -> float:
    """Return the training passes of one episode: adaptation, query, and the second-order term."""
    if not adapts(own.method):
        return 1.0
    first = own.inner_steps + (0.0 if own.method == "reptile" else 1.0)
    if own.method != "maml":
        return first
    second = 2.0 * own.inner_steps
    return (first + second) * (EXACT if _row_by_row(own, study) else 1.0)


def _row_by_row(own: UpstreamConfig, study: StudyConfig) -> bool:
    """Whether MAML's second order is "exact", which reads one row at a time."""
    coarse = study.upstream_format(own.method) != "float32" or own.second_order == "exact"
    return own.method == "maml" and coarse


def _row(study: StudyConfig, lengths: tuple[int, int], together: int, dropout: float) -> Flops:
    """Return the operations of a row in a pass that reads so many rows of one prompt."""
    from mpt.backbones.flops import shared_row_flops

    shared = study.prompt.position == "prepend" and dropout == 0
    rows = together if shared else 1
    return shared_row_flops(study.backbone, study.prompt.length, *lengths, rows)


def _lengths(plan: StudyPlan, rows_of: RowsOf) -> tuple[int, int]:
    samples = [rows_of(plan, task, plan.config.data_seeds[0]) for task in plan.scored]
    inputs = sum(rows.inputs for rows in samples) / len(samples)
    return round(inputs), round(sum(rows.targets for rows in samples) / len(samples))
