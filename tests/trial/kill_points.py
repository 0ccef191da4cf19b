"""Runs toy trials again and again in children that kill themselves at chosen points.

``python kill_points.py CHECKPOINT GYM FOLDER`` prints one JSON list: for every stride a search
that was killed after each `stride` counted events until it was through. Events are statements and
commits of the database, file system calls and optimiser steps, so kills fall inside transactions,
file writes, upstream chunks and packs of runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import torch
from drivers import run_rows
from search_toys import toy_job
from trial_toys import bench

from mpt.config import DownstreamConfig
from mpt.optim import Adafactor
from mpt.search.job import SearchJob
from mpt.store.records import Artifact
from mpt.store.state import write_folder_state
from mpt.study.specs import baseline_trials
from mpt.study.study import OpenStudy, open_study
from mpt.trial.files import newest_state

STRIDES = (61, 103, 211)


def work(study: OpenStudy, job: SearchJob) -> None:
    """Run the baseline and a trial, with a checkpoint after every unit."""
    with bench(job, study) as found:
        tasks = [found.trial_of(spec) for spec in baseline_trials(study.plan)]
        for number, trial in enumerate([*tasks, found.trial(0, chunk_s=0.05)]):
            state = newest_state(found.store, found.files, trial.owner)
            if state is not None:
                trial.load_state(state)
            for count, _ in enumerate(trial.units()):
                # as Tune names them: a process that takes over writes into a folder of its own
                name = f"checkpoints/{os.getpid()}/{number}-{count}"
                write_folder_state(job.results / name, trial.state())
                found.store.add_artifact(
                    Artifact(kind="checkpoint", owner=trial.owner, steps=0, uri=name)
                )


def child(task: Callable[[], None], kill_after: int | None) -> int:
    """Run `task` in a forked child that dies by SIGKILL after that many events; return status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    left = [kill_after]

    def count(*_: object) -> None:
        if left[0] is not None:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), 9)

    def counted(real: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            count()
            return real(*args, **options)

        return wrapped

    for name in ("link", "replace", "fsync", "unlink", "mkdir", "write"):
        setattr(os, name, counted(getattr(os, name)))
    Adafactor.step = counted(Adafactor.step)  # type: ignore[method-assign]
    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    sa.event.listen(sa.Engine, "commit", count)
    try:
        task()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def killed_search(study: OpenStudy, job: SearchJob, stride: int) -> dict[str, Any]:
    """Kill, start again, kill again …; the events allowed grow so that it ends."""
    kills, allowed, changed = 0, stride, []
    while True:
        before = run_rows(job.results)
        status = child(lambda: work(study, job), allowed)
        after = run_rows(job.results)
        changed += [key for key, row in before.items() if after.get(key) != row]
        if status == 0:
            return {"results": str(job.results), "kills": kills, "changed": changed}
        assert os.WIFSIGNALED(status), "the child failed on its own"
        kills += 1
        # every start pays for reading what is there: more than a fixed stride is needed in the end
        allowed += 7


def main() -> None:
    torch.set_num_threads(1)
    checkpoint, gym, folder = (Path(word) for word in sys.argv[1:4])
    # runs leave at different times, so that it shows in their bits who rode beside whom
    downstream = DownstreamConfig(
        lrs=(0.5, 0.2), batch_size=2, steps=8, eval_every=1, patience=2, max_generated=3
    )
    jobs = {
        name: toy_job(checkpoint, gym, folder / name, rungs=(2, 4), downstream=downstream)
        for name in ("undisturbed", *map(str, STRIDES))
    }
    study = open_study(jobs["undisturbed"].plans[0])
    assert child(lambda: work(study, jobs["undisturbed"]), None) == 0
    print(json.dumps([killed_search(study, jobs[str(stride)], stride) for stride in STRIDES]))


if __name__ == "__main__":
    main()
