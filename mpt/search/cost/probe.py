"""How fast this machine is: a short measured probe of the real work; nothing of it is kept.

Upstream steps are timed on the real items. Runs are timed in the real queue: as many runs side
by side as a search packs, spread over the scored tasks, for a few steps and a few rows; a step and
an evaluated row of one run follow from the time stamps between them.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mpt.search.cost.plan import Rates, RunRate, Sizes, run_kind, step_kind
from mpt.study.specs import FineTuningConfig
from mpt.trial.runs import (
    PlannedRun,
    baseline_packs,
    fine_tuning_packs,
    spread,
    tuned_study,
    zero_shot_packs,
)

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig
    from mpt.downstream.record import TuningResult
    from mpt.search.cost.plan import RemainingWork
    from mpt.study.specs import TrialSpec, UpstreamSpec
    from mpt.study.study import OpenStudy, StudyPlan

PROBE_S = 2.5
"""Seconds that the probe of one kind of runs is to take; upstream steps take a quarter of it."""

WORKER_S = 5.0
"""Seconds until a worker has started and imported what it needs: 4 s for two workers' imports and
1 s for Tune's, measured on two idle cores. Ray itself, 3 s, starts beside the measurement, before
the time that is left is told."""

Clock = Callable[[], float]
T = TypeVar("T")


def trials_to_probe(trials: Sequence[TrialSpec], work: RemainingWork) -> list[TrialSpec]:
    """Return the first trial of every kind of steps and of runs that is left to do."""
    chosen: list[TrialSpec] = []
    seen: set[str] = set()
    for trial, part in zip(trials, work.trials, strict=True):
        kinds = {part.kind} if part.steps else set()
        kinds |= {part.runs.kind} if part.runs.runs else set()
        if kinds - seen:
            chosen.append(trial)
            seen |= kinds
    return chosen or list(trials[:1])


def probe_trials(
    trials: Iterable[TrialSpec],
    studies: Callable[[StudyPlan], OpenStudy],
    clock: Clock = time.perf_counter,
) -> Rates:
    """Measure the rates of some trials, each kind of runs once.

    What opening the first study takes, and `WORKER_S`, is what a worker needs to be ready.
    """
    rates: Rates | None = None
    for trial in trials:
        began = clock()
        study = studies(trial.plan)
        start = WORKER_S + clock() - began
        measured = probe(study, trial.upstream, start, known=rates, clock=clock)
        rates = measured if rates is None else rates.with_more(measured)
    assert rates is not None, "no trial to probe"
    return rates


def probe(
    study: OpenStudy,
    upstream: UpstreamSpec,
    start_s: float,
    *,
    known: Rates | None = None,
    clock: Clock = time.perf_counter,
) -> Rates:
    """Measure the rates of one trial with a few steps of the real work; nothing is kept.

    Kinds that are `known` are not measured again.
    """
    runs: dict[str, RunRate] = {}
    steps: dict[str, float] = {}
    sizes = Sizes()
    prompts = run_kind(study.config, "prompt")
    if known is None or prompts not in known.runs:
        runs[prompts], sizes = _prompt_tuning(study, clock)
    if isinstance(upstream.config, FineTuningConfig):
        own = tuned_study(study, upstream.config)
        runs[run_kind(own.config, "weights")] = _fine_tuning(own, clock)
    elif upstream.tuned == "nothing":
        runs[run_kind(study.config, "nothing")] = _zero_shot(study, clock)
    else:
        kind = step_kind(study.config, upstream.config)
        steps[kind], rung, checkpoint = _upstream(study, upstream, clock)
        sizes = dataclasses.replace(sizes, rung=rung, checkpoint=checkpoint)
    return Rates(steps=steps, runs=runs, start_s=start_s, sizes=sizes)


def _upstream(study: OpenStudy, upstream: UpstreamSpec, clock: Clock) -> tuple[float, int, int]:
    """Return seconds per upstream step (of all members), and bytes of a rung and a checkpoint."""
    from mpt.store.state import pack_state
    from mpt.upstream.engine import Diverged, UpstreamRun
    from mpt.upstream.soup import members_of

    config = study.config
    asked: Any = upstream.config
    # a horizon allows fewer steps than the probe takes, and changes none of their cost
    asked = dataclasses.replace(asked, decay_horizon=None)
    method, *others = members_of(asked, config.train_seed)
    run = UpstreamRun(
        study.upstream_backbone(method.method),
        study.items,
        method,
        config.prompt,
        config.upstream_text,
        config.train_seed,
    )
    taken, seconds = 0, 0.0
    try:
        run.advance(1)  # the first step pays for tables and caches
        started = clock()
        while taken < 20 and (taken == 0 or seconds < PROBE_S / 4):
            run.advance(1)
            taken, seconds = taken + 1, clock() - started
    except Diverged:
        seconds = clock() - started if taken else 0.0
    prompt = run.prompt.nelement() * 4
    count = 1 + len(others)
    rungs = 1 if count == 1 else 1 + count  # the mean, and its members
    state = len(pack_state(run.state_dict()))
    return count * seconds / max(1, taken), rungs * prompt + _POINT_BYTES, count * state


_POINT_BYTES = 4096
"""A point record: settings and the keys of its runs; and the metadata of its prompt."""


def _prompt_tuning(study: OpenStudy, clock: Clock) -> tuple[RunRate, Sizes]:
    """Return the speed of prompt tuning in a full queue, and bytes of what it leaves on disk."""
    from mpt.downstream.limits import default_limits

    packs = baseline_packs(study)
    down = study.config.downstream
    one = spread(packs, 1)
    _queue(study, one, _small(down, 1, 2), clock)  # pays for tables, caches and imports
    alone, _ = _queue(study, one, _small(down, 2, 2), clock)
    # First as many runs as fit into half of the time with four steps each, then more steps. Rows
    # of many runs together are evaluated about twice as fast as those of a run alone.
    most = default_limits(study.backbone.device).runs
    runs = spread(packs, _clamp(PROBE_S / (4 * alone.step_s), 1, most))
    steps = _clamp(PROBE_S / (4 * alone.step_s * len(runs)), 2, math.ceil(down.steps / 2))
    rows = _clamp(PROBE_S / (3 * alone.row_s * len(runs)), 4, max(_rows(runs, down)))
    return _queue(study, runs, _small(down, steps, rows), clock)


def _queue(
    study: OpenStudy, runs: Sequence[PlannedRun], small: DownstreamConfig, clock: Clock
) -> tuple[RunRate, Sizes]:
    """Tune runs through the real queue, two evaluations long; read the rates off its stamps."""
    from mpt.downstream.prompt_tuning import TuningRun
    from mpt.downstream.queue import TuningQueue
    from mpt.store.state import pack_state

    config = study.config
    asked = [TuningRun(run.task, run.lr, run.prompt) for run in runs]
    queue = TuningQueue(study.backbone, asked, small, config.text, config.train_seed)
    steps: list[float] = []
    evaluations: list[float] = []
    state = 0
    while not queue.done:
        stamps, finished = _stamped(clock, lambda stamp: queue.advance(0, on_step=stamp))
        steps += [after - before for before, after in itertools.pairwise(stamps[:-1])]
        evaluations.append(stamps[-1] - stamps[-2])
        state = max(state, len(pack_state(queue.state_dict())))
    dev, test = _rows(runs, small)
    rate = RunRate(
        # the first step of all pays for what is made once
        step_s=_mean(steps[1:] or steps) / len(runs),
        row_s=sum(evaluations) / (len(evaluations) * dev + test) / len(runs),
    )
    return rate, Sizes(run=_run_bytes(runs[0], finished[0][1], config.downstream), queue=state)


def _fine_tuning(study: OpenStudy, clock: Clock) -> RunRate:
    """Return the speed of fine-tuning, whose runs come one after the other."""
    from mpt.downstream.fine_tuning import fine_tune
    from mpt.downstream.record import TuningRun

    config = study.config
    (run,) = spread(fine_tuning_packs(study), 1)

    def rate(rows: int) -> RunRate:
        small = _small(config.downstream, 3, rows)
        asked = [TuningRun(run.task, run.lr, run.prompt)]
        settings = (small, config.text, config.train_seed)
        stamps, _ = _stamped(
            clock, lambda stamp: fine_tune(study.backbone, asked, *settings, stamp)
        )
        # a stamp stands behind each step; the 3rd and the 6th hold an evaluation of dev too, and
        # what comes behind the 6th is that of test
        _, second, third, fourth, fifth, sixth, test_s = itertools.starmap(
            lambda before, after: after - before, itertools.pairwise(stamps)
        )
        # medians: one pause of the machine among five samples is not the speed of a search
        step = statistics.median([second, fourth, fifth])
        dev, test = _rows([run], small)
        dev_s = [max(0.0, seconds - step) / dev for seconds in (third, sixth)]
        return RunRate(step_s=step, row_s=statistics.median([*dev_s, test_s / test]))

    rate(2)  # pays for tables, caches and imports
    return rate(16)


def _zero_shot(study: OpenStudy, clock: Clock) -> RunRate:
    """Return the speed of the model without a prompt: evaluated rows alone."""
    from mpt.downstream.evaluation import zero_shot

    config = study.config
    (run,) = spread(zero_shot_packs(study), 1)

    def row_seconds(rows: int) -> float:
        small = _small(config.downstream, 1, rows)
        began = clock()
        zero_shot(study.backbone, run.task, small, config.text)
        return (clock() - began) / sum(_rows([run], small))

    row_seconds(2)  # pays for tables, caches and imports
    return RunRate(step_s=0.0, row_s=row_seconds(16))


def _stamped(clock: Clock, work: Callable[[Callable[..., None]], T]) -> tuple[list[float], T]:
    """Return the clock at the start, at every call of what `work` is given, and at the end."""
    collects = gc.isenabled()
    gc.disable()  # a full collection in a large process takes as long as hundreds of short steps
    try:
        stamps = [clock()]
        result = work(lambda *_: stamps.append(clock()))
        return [*stamps, clock()], result
    finally:
        if collects:
            gc.enable()


def _run_bytes(run: PlannedRun, result: TuningResult, down: DownstreamConfig) -> int:
    """Return the bytes of a stored run with as many evaluations as a real one."""
    from mpt.keys import canonical
    from mpt.trial.run_queue import run_record

    evaluations = math.ceil(down.steps_on(len(run.task.train)) / down.eval_every)
    record = run_record(run, dataclasses.replace(result, curve=result.curve[:1] * evaluations), {})
    return _ROW_BYTES + len(canonical(record.curve))


_ROW_BYTES = 700
"""A row of the database without its curve, indexes included (`benchmarks/scaling/store.py`)."""


def _small(down: DownstreamConfig, steps: int, rows: int) -> DownstreamConfig:
    """Return a recipe of two evaluations, `steps` apart, that reads `rows` rows of a file."""
    return dataclasses.replace(
        down,
        steps=2 * steps,
        eval_every=steps,
        max_dev=min(rows, down.max_dev or rows),
        max_test=min(rows, down.max_test or rows),
        max_epochs=None,
        patience=None,
        catch_up=None,
    )


def _rows(runs: Sequence[PlannedRun], down: DownstreamConfig) -> tuple[float, float]:
    """Return (dev rows, test rows) that a run reads once, mean over runs."""
    dev = [min(len(run.task.dev), down.max_dev or len(run.task.dev)) for run in runs]
    test = [min(len(run.task.test), down.max_test or len(run.task.test)) for run in runs]
    return _mean(dev), _mean(test)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _clamp(value: float, low: int, high: float) -> int:
    return int(max(low, min(value, high)))
