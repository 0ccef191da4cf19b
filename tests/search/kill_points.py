"""Runs a toy trajectory again and again in children that kill themselves at chosen points.

``python kill_points.py CHECKPOINT GYM FOLDER`` prints one JSON list: for every stride a search
that was killed after each `stride` counted events until it was through. Events are file system
calls and optimiser steps, so kills fall inside file writes, upstream chunks and packs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from search_toys import toy_job

from mpt.optim import Adafactor
from mpt.search.job import SearchJob
from mpt.study.study import Study, open_study
from mpt.trial.trajectory import TrajectoryWork

STRIDES = (19, 31, 53, 97)


def work(study: Study, job: SearchJob) -> None:
    one = TrajectoryWork(study, job.courses[0].trajectory, job.results, job.chunk_s)
    with one.hold():
        list(one.units())


def child(task: Callable[[], None], kill_after: int | None) -> int:
    """Run `task` in a forked child that dies by SIGKILL after that many events; return status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    left = [kill_after]

    def counted(real: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            if left[0] is not None:
                left[0] -= 1
                if left[0] <= 0:
                    os.kill(os.getpid(), 9)
            return real(*args, **options)

        return wrapped

    for name in ("link", "replace", "fsync", "unlink", "mkdir", "write"):
        setattr(os, name, counted(getattr(os, name)))
    Adafactor.step = counted(Adafactor.step)  # type: ignore[method-assign]
    try:
        task()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def leaf_inodes(results: Path) -> dict[str, tuple[int, int]]:
    files = results.glob("leaves/??/*.json")
    return {path.stem: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def killed_search(study: Study, job: SearchJob, stride: int) -> dict[str, Any]:
    """Kill, start again, kill again …; the events allowed grow so that it ends."""
    kills, allowed, rewritten = 0, stride, []
    while True:
        before = leaf_inodes(job.results)
        status = child(lambda: work(study, job), allowed)
        after = leaf_inodes(job.results)
        rewritten += [key for key, inode in before.items() if after.get(key) != inode]
        if status == 0:
            return {"results": str(job.results), "kills": kills, "rewritten": rewritten}
        assert os.WIFSIGNALED(status), "the child failed on its own"
        kills += 1
        # every start pays for reading what is there: more than a fixed stride is needed in the end
        allowed += 3


def main() -> None:
    torch.set_num_threads(1)
    checkpoint, gym, folder = (Path(word) for word in sys.argv[1:4])
    jobs = {
        name: toy_job(checkpoint, gym, folder / name)
        for name in ("undisturbed", *map(str, STRIDES))
    }
    study = open_study(jobs["undisturbed"].plans[0])
    assert child(lambda: work(study, jobs["undisturbed"]), None) == 0
    print(json.dumps([killed_search(study, jobs[str(stride)], stride) for stride in STRIDES]))


if __name__ == "__main__":
    main()
