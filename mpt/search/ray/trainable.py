"""The Ray Tune trial: a course's units, one a step.

Tune's own checkpoints carry nothing: a trial that starts (first, again after its worker died, or
in the next session) finds its state in the results directory. So Tune's files may be lost or torn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import platform
from collections.abc import Sequence
from typing import Any

import ray
import torch
from ray import tune

from mpt.errors import DataError, MptError, UsageError
from mpt.search.cost.gpu_share import measured_need
from mpt.search.cost.plan import Rates
from mpt.search.cost.probe import probe_courses
from mpt.search.job import Course
from mpt.search.lock import check_shared
from mpt.search.ray.gauges import Gauges
from mpt.search.ray.orphans import end_with_raylet
from mpt.study.study import Study, StudyPlan, open_study
from mpt.trial.course_work import course_work
from mpt.trial.trajectory import Progress, TrajectoryWork


class SearchTrial(tune.Trainable):
    """One course.

    The configuration holds the `trial` (the `course`, its `index` and `key` in the driver's list),
    the `results` directory and the mark of its `driver` (see `check_shared`), `chunk_s` (see
    `SearchJob`), the `gpus` and the `device` (see `Execution`).
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Return one CPU and the trial's share of a GPU."""
        return tune.PlacementGroupFactory([{"CPU": 1, "GPU": config["gpus"]}])

    def setup(self, config: dict[str, Any]) -> None:
        """Open the study and find out what is left to do."""
        self._held = contextlib.ExitStack()
        end_with_raylet()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turn this actor to another course; what it loaded stays loaded."""
        self._let_go()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        trial = config["trial"]
        self._index: int = trial["index"]
        self._course: Course = trial["course"]
        self._failure: str | None = None
        self._progress = Progress()
        self._work: TrajectoryWork | None = None
        self._gauges = Gauges(self._course.name)
        # One thread: sums are then formed in one order on every machine with these versions.
        torch.set_num_threads(1)
        try:
            check_shared(config["results"], config["driver"])
            study = _open(self._course.plan, device_of(config["device"]))
            work = course_work(
                study,
                self._course,
                config["results"],
                config["chunk_s"],
                keep_prompts=config["keep_prompts"],
                racing=config["racing"],
            )
            if work.key != trial["key"]:
                raise DataError(
                    f"node {platform.node()} has another backbone, data or code than the driver; "
                    "install the same version and files on every node"
                )
            self._held.enter_context(work.hold())
            self._work, self._progress = work, work.progress
        except MptError as error:
            self._failure = str(error)

    def step(self) -> dict[str, Any]:
        """Do one unit and report where the trajectory stands.

        An error that a person must cure is reported as `failure` and ends the trial: starting it
        again would not help. Anything else (a lost worker, no memory) is left to Tune, which
        starts the trial again.
        """
        if self._work is not None and self._failure is None:
            try:
                self._progress = self._work.unit()
            except MptError as error:
                self._failure = str(error)
        done, tuning = self._progress, self._progress.tuning
        scores = done.rung_scores
        # NaN before the first rung: a report without the metric ends the whole experiment
        score = scores[max(scores, key=int)] if scores else math.nan
        self._gauges.report(arg=score)
        if tuning is not None:
            self._gauges.report(
                leaves_done=tuning.finished,
                leaves_running=tuning.running,
                leaves_waiting=tuning.waiting,
                steps_per_s=tuning.steps_s,
                tokens_per_s=tuning.tokens_s,
            )
        return {
            "index": self._index,
            "steps": done.steps,
            "score": score,
            "rung_scores": dict(scores),
            "landed": list(done.landed),
            "leaves": done.leaves,
            "tuning": None if tuning is None else dataclasses.asdict(tuning),
            "stopped": None if done.stopped is None else dataclasses.asdict(done.stopped),
            "problems": list(done.problems),
            "failure": self._failure,
            "done": done.done or self._failure is not None,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Return a pointer; the state itself is in the results directory."""
        return {"index": self._index}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Do nothing: `setup` has found the state."""

    def cleanup(self) -> None:
        """Let go of the course."""
        self._let_go()

    def _let_go(self) -> None:
        if self._work is not None:
            self._work.close()
        self._held.close()

    def __repr__(self) -> str:
        course = getattr(self, "_course", None)
        return type(self).__name__ if course is None else course.name


def probe_here(courses: Sequence[Course], device: str | None) -> Rates:
    """Measure the rates of some courses on this worker's device, and its GPU memory."""
    torch.set_num_threads(1)
    where = device_of(device)
    with measured_need(where) as need:
        rates = probe_courses(courses, lambda plan: _open(plan, where))
    total = None if need.gpu_bytes is None else torch.cuda.mem_get_info()[1]
    return dataclasses.replace(rates, gpu_need=need.gpu_bytes, gpu_bytes=total)


@functools.lru_cache(maxsize=1)
def _open(plan: StudyPlan, device: str) -> Study:
    """Open a study once a process."""
    return open_study(plan, device)


def device_of(wanted: str | None) -> str:
    """Return where this worker computes: where it is wanted, or else on what Ray gave it.

    `torch.cuda.is_available()` alone would be wrong: Ray 2.60 leaves the GPUs of a node visible to
    workers that asked for none.

    Raises:
        UsageError: Ray gave a GPU that torch does not see.
    """
    if wanted is not None:
        return wanted
    if not ray.get_gpu_ids():
        return "cpu"
    if not torch.cuda.is_available():
        raise UsageError(
            f"node {platform.node()} gave the trial a GPU, but its torch {torch.__version__} sees "
            "none; install torch with CUDA there, or search without --gpus-per-trial"
        )
    return "cuda"
