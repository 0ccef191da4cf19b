"""Runs a toy search on a cluster: ``python node_search.py ADDRESS GPUS CHECKPOINT GYM RESULTS``.

The nodes' GPUs are fakes, so trials are told to compute on the CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

from search_toys import toy_job

from mpt.config import DownstreamConfig
from mpt.errors import MptError
from mpt.search.job import Execution, SearchJob
from mpt.search.run import run_search


def node_job(checkpoint: Path, gym: Path, results: Path) -> SearchJob:
    """A search that lasts some seconds, so that there is time to kill it."""
    downstream = DownstreamConfig(
        lrs=(0.5, 0.2), batch_size=4, steps=80, eval_every=20, max_generated=3
    )
    return toy_job(checkpoint, gym, results, rungs=(12, 24), downstream=downstream)


if __name__ == "__main__":
    address, gpus, *paths = sys.argv[1:]
    execution = Execution(
        address=address,
        gpus_per_trial=float(gpus),
        device="cpu",
        max_failures=-1,  # as often as the test kills
        resume="the same command",
        next_step="rest",
    )
    try:
        sys.exit(run_search(node_job(*map(Path, paths)), execution))
    except MptError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
