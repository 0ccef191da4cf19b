"""Runs a toy job on a cluster: ``python node_search.py KIND ADDRESS GPUS CHECKPOINT GYM RESULTS``.

KIND is ``small``, ``search`` or ``replay``.

The nodes' GPUs are fakes, so trials are told to compute on the CPU.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from search_toys import KNOWN_RATES, VALIDATION, toy_job, toy_study

from mpt.config import DownstreamConfig, UpstreamConfig
from mpt.errors import MptError
from mpt.search.cost import probe
from mpt.search.cost.plan import Rates
from mpt.search.job import Execution, SearchJob
from mpt.search.ray.session import prepare_environment
from mpt.search.run import run_search
from mpt.study.specs import FineTuningConfig, TrialSpec, UpstreamSpec, trials_of
from mpt.study.study import plan_study

DOWNSTREAM = DownstreamConfig(
    lrs=(0.5, 0.2), batch_size=4, steps=80, eval_every=20, max_generated=3
)


def small_job(checkpoint: Path, gym: Path, results: Path) -> SearchJob:
    """A trial and the plain tuning of one task, each of many units: a worker for each of them."""
    downstream = dataclasses.replace(DOWNSTREAM, steps=200, eval_every=10)
    plan = plan_study(toy_study(checkpoint, gym, downstream=downstream), scored=VALIDATION[:1])
    learned = UpstreamSpec(config=UpstreamConfig(inner_lr=0.1, outer_lr=0.3), rungs=(8, 16))
    return SearchJob(
        trials=trials_of(plan, [learned]), results=results, title="small", chunk_s=0.0
    )


def search_job(checkpoint: Path, gym: Path, results: Path) -> SearchJob:
    """A search that lasts some seconds, so that there is time to kill it."""
    return toy_job(checkpoint, gym, results, rungs=(12, 24), downstream=DOWNSTREAM)


def replay_job(checkpoint: Path, gym: Path, results: Path) -> SearchJob:
    """Two methods and fine-tuning on the target task."""
    config = toy_study(checkpoint, gym, downstream=DOWNSTREAM)
    learned = [
        UpstreamSpec(config=UpstreamConfig(method=method, inner_lr=0.1, outer_lr=0.3), rungs=(24,))
        for method in ("maml", "fomaml")
    ]
    tuned = FineTuningConfig(
        downstream=dataclasses.replace(DOWNSTREAM, lrs=(1e-2, 3e-3), steps=40)
    )
    return SearchJob(
        trials=trials_of(
            plan_study(config, role="target"), [*learned, UpstreamSpec(config=tuned)]
        ),
        results=results,
        title="toy replay",
        chunk_s=0.0,
    )


JOBS = {"small": small_job, "search": search_job, "replay": replay_job}


def probe_soon(trials: Sequence[TrialSpec], device: str | None) -> Rates:
    """Measure the rates on a node as a search does, but not for seconds: nobody relies on them."""
    from mpt.search.ray.trainable import probe_here

    probe.PROBE_S = 0.2
    return probe_here(trials, device)


if __name__ == "__main__":
    kind, address, gpus, *paths = sys.argv[1:]
    prepare_environment(address)
    from mpt.search.ray import trainable

    trainable.probe_here = probe_soon  # on its node it finds the real one
    execution = Execution(
        address=address,
        gpus_per_trial=float(gpus),
        device="cpu",
        max_failures=-1,  # as often as the test kills
        resume="the same command",
        next_step="rest",
    )
    try:
        job = JOBS[kind](*map(Path, paths))
        # a search measures them on a node, in a process of its own: once, not after every kill
        known = kind == "replay" or (job.results / "mpt.db").exists()
        sys.exit(run_search(job, execution, rates=KNOWN_RATES if known else None))
    except MptError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
