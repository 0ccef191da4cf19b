"""Fine-tuning as a course of its own: no upstream learning, all weights tuned on each scored task.

A unit is one run (task, data seed, learning rate), committed when it is done; a kill loses the run
in work. Runs have the same leaves in every partition that scores the same tasks, so whoever comes
first computes them and the others wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.config import DownstreamConfig
from mpt.errors import UsageError
from mpt.records import SCHEMA, Record, leaf_key
from mpt.storage import digest
from mpt.study.spaces import Trajectory
from mpt.study.study import Study, backbone_of
from mpt.trial.leaf_work import commit_leaves
from mpt.trial.objective import Pack, PackRun, leaf_identity, leaf_table
from mpt.trial.trajectory import TrajectoryWork

if TYPE_CHECKING:
    from mpt.gym.fewshot import FewShotTask

METHOD = "fine_tuning"


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """Settings of fine-tuning (PROTOCOL §2)."""

    downstream: DownstreamConfig
    """The recipe, with fine-tuning's own learning rates and steps."""
    backbone: str | None = None
    """Checkpoint that is tuned, in float32; None: the study's."""
    method: str = METHOD
    """Always "fine_tuning"."""

    def __post_init__(self) -> None:
        if self.method != METHOD:
            raise UsageError(f"method is {self.method!r}, but must be {METHOD!r}")
        if self.downstream.catch_up is not None:
            raise UsageError(
                f"catch_up is {self.downstream.catch_up}, but must be None in fine-tuning, whose "
                "runs come one after the other"
            )


@dataclass(frozen=True, kw_only=True)
class FineTuning(Trajectory):
    """The trajectory of a course that learns nothing upstream: it stays at step 0."""

    config: Any
    """`FineTuningConfig`."""
    rungs: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        """Readable name, e.g. ``fine_tuning-4lrs-3000steps``."""
        down = self.config.downstream
        return f"{METHOD}-{len(down.lrs)}lrs-{down.steps}steps"


def tuned_study(study: Study, config: FineTuningConfig) -> Study:
    """Return the study as fine-tuning sees it: its own recipe, and float32 weights."""
    own = dataclasses.replace(
        study.config,
        backbone=config.backbone or study.config.backbone,
        precision="float32",
        downstream=config.downstream,
    )
    same = (own.backbone, own.precision) == (study.config.backbone, study.config.precision)
    return dataclasses.replace(
        study,
        plan=dataclasses.replace(study.plan, config=own),
        backbone=study.backbone if same else backbone_of(own, str(study.backbone.device)),
    )


def fine_tuning_key(study: Study, config: FineTuningConfig) -> str:
    """Return the key of fine-tuning in a study, in place of a trajectory's."""
    own = tuned_study(study, config)
    return digest(
        {
            "schema": SCHEMA,
            "method": METHOD,
            "partition": study.config.partition,
            "role": study.plan.role,
            "backbone": own.backbone.digest,
            "text": dataclasses.asdict(own.config.text),
            "downstream": dataclasses.asdict(config.downstream),
            "train_seed": own.config.train_seed,
        }
    )


def fine_tuning_packs(study: Study) -> list[Pack]:
    """Return one pack a scored task; `study` is that of `tuned_study`."""
    from mpt.downstream.fine_tuning import no_prompt

    start = no_prompt(study.backbone)
    packs = []
    for name, samples in study.scored.items():
        runs = []
        for task in samples.values():
            for lr in study.config.downstream.lrs:
                identity = _identity(study, task, lr)
                runs.append(PackRun(task, lr, start, identity, leaf_key(identity)))
        packs.append(Pack(name, tuple(runs)))
    return packs


def _identity(study: Study, task: FewShotTask, lr: float) -> Record:
    """Return a leaf's identity: as in prompt tuning, but weights are tuned and no prompt is."""
    identity = leaf_identity(study, task, "none", lr)
    recipe = {name: part for name, part in identity["recipe"].items() if name != "prompt"}
    return {**identity, "recipe": recipe, "init": None, "tuned": "weights"}


class FineTuningWork(TrajectoryWork):
    """The units of fine-tuning in one study: shared baseline packs, then one run a unit.

    Args:
        study: the open study.
        trajectory: the settings.
        results: results directory.
    """

    def __init__(self, study: Study, trajectory: FineTuning, results: Path) -> None:
        super().__init__(study, trajectory, results)
        self._tuned = tuned_study(study, trajectory.config)
        self._packs = fine_tuning_packs(self._tuned)
        self._runs = [Pack(pack.task, (run,)) for pack in self._packs for run in pack.runs]
        self._unclaimed_runs = list(self._runs)

    def _work_towards(self, steps: int) -> None:
        if self._tune_one():
            return
        for run in self._runs:  # those of other workers, or what they left undone
            if run.missing(self._store):
                with self._pack_lock(run, timeout_s=None):
                    self._tune(run)
        self._finish_baseline()
        self._put(
            steps,
            prompt=None,
            leaves=leaf_table(self._packs),
            baseline=leaf_table(self._baseline),
            status="ok",
            note="",
            cost={"steps": 0, "examples": 0, "tokens": 0, "seconds": 0.0},
        )

    def _tune_one(self) -> bool:
        """Do the next run that nobody else has done or is doing; return whether there was one."""
        while self._unclaimed_runs:
            run = self._unclaimed_runs.pop(0)
            if run.missing(self._store):
                with contextlib.suppress(TimeoutError), self._pack_lock(run, timeout_s=0):
                    if self._tune(run):
                        return True
        return False

    def _tune(self, pack: Pack) -> bool:
        """Do one run unless it is on disk; return whether it was done."""
        from mpt.downstream.fine_tuning import fine_tune
        from mpt.downstream.record import TuningRun

        if not pack.missing(self._store):
            return False
        run, config = pack.runs[0], self._tuned.config
        results = fine_tune(
            self._tuned.backbone,
            [TuningRun(run.task, run.lr, run.prompt)],
            config.downstream,
            config.text,
            config.train_seed,
        )
        commit_leaves(self._store, [(run, results[0])], {})
        self.progress.leaves += 1
        return True
