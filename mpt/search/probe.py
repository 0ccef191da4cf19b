"""How fast this machine is: a short measured probe of the real work; nothing of it is kept."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from mpt.plan import Rates
from mpt.search.objective import Pack, baseline_packs

if TYPE_CHECKING:
    from mpt.search.spaces import Trajectory
    from mpt.search.study import Study

PROBE_S = 4.0
"""Seconds after which the probe of downstream packs stops at the next task."""


def probe(study: Study, trajectory: Trajectory, start_s: float) -> Rates:
    """Measure the rates with a few steps of the real work; nothing is kept.

    The time of a pack of runs is linear in steps and evaluated rows: two small packs of different
    length give both coefficients.

    Args:
        study: open study.
        trajectory: whose upstream steps are timed.
        start_s: seconds that opening the study took.
    """
    return Rates(
        step_s=_upstream_step_seconds(study, trajectory),
        leaf_s=_leaf_seconds(study),
        start_s=start_s,
    )


def _upstream_step_seconds(study: Study, trajectory: Trajectory) -> float:
    from mpt.upstream.engine import Diverged, UpstreamRun

    config = study.config
    run = UpstreamRun(
        study.backbone,
        study.items,
        trajectory.config,
        config.prompt,
        config.upstream_text,
        config.train_seed,
    )
    try:
        run.advance(1)  # the first step pays for tables and caches
        started, steps = time.perf_counter(), 0
        while steps < 10 and (steps == 0 or time.perf_counter() - started < PROBE_S / 4):
            run.advance(1)
            steps += 1
    except Diverged:
        return 0.0
    return (time.perf_counter() - started) / steps


def _leaf_seconds(study: Study) -> float:
    """Return the mean over tasks of: steps · t_step + evaluations · t_dev + t_test, per run."""
    packs = baseline_packs(study)
    few = [dataclasses.replace(pack, runs=pack.runs[:1]) for pack in packs]
    for single in few:  # the first use of a metric pays for its imports
        _timed(study, single, steps=1, evals=1, rows=2)
    first = _timed(study, few[0], steps=1, evals=1, rows=2)
    # A model for which one run of two rows takes long is probed with one run, scaled up.
    slow = first * len(packs[0].runs) > PROBE_S / 4
    started = time.perf_counter()
    found = []
    for whole, single in zip(packs, few, strict=True):
        chosen = single if slow else whole
        found.append(_one_pack(study, chosen) / len(chosen.runs))
        if time.perf_counter() - started > PROBE_S:
            break
    return sum(found) / len(found)


def _one_pack(study: Study, pack: Pack) -> float:
    down = study.config.downstream
    sample = pack.runs[0].task
    dev = min(len(sample.dev), down.max_dev or len(sample.dev))
    test = min(len(sample.test), down.max_test or len(sample.test))
    rows = min(16, dev, test)
    short = _timed(study, pack, steps=1, evals=1, rows=rows)
    longer = _timed(study, pack, steps=3, evals=1, rows=rows)
    evals = _timed(study, pack, steps=3, evals=3, rows=rows)
    step = max(0.0, (longer - short) / 2)
    row = max(0.0, (evals - longer) / 2 / rows)
    number = -(-down.steps // down.eval_every)
    return step * down.steps + row * (number * dev + test)


def _timed(study: Study, pack: Pack, *, steps: int, evals: int, rows: int) -> float:
    from mpt.downstream.prompt_tuning import TuningRun, tune

    config = study.config
    small = dataclasses.replace(
        config.downstream,
        steps=steps,
        eval_every=-(-steps // evals),
        max_dev=rows,
        max_test=rows,
    )
    runs = [TuningRun(run.task, run.lr, run.prompt) for run in pack.runs]
    started = time.perf_counter()
    tune(study.backbone, runs, small, config.text, config.train_seed)
    return time.perf_counter() - started
