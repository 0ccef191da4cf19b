"""Trials of methods that learn nothing upstream: plain prompt tuning, fine-tuning, zero-shot.

Their runs are the same in every study that scores the same tasks. So a trial is some tasks, in all
studies that score them; whoever stores the last run of a study's point stores the point.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from mpt.study.specs import FineTuningConfig
from mpt.study.study import OpenStudy
from mpt.trial.run_queue import RunQueue, run_record
from mpt.trial.runs import (
    PlannedRun,
    RunPack,
    baseline_packs,
    fine_tuning_packs,
    keys_of,
    owner_of,
    tuned_study,
    zero_shot_packs,
)
from mpt.trial.trial import Cell, Progress, Trial, finish_point

if TYPE_CHECKING:
    from mpt.downstream.record import TuningResult
    from mpt.gym.fewshot import Example


class TaskTrial(Trial):
    """Some scored tasks of one or more studies; see the text of this module."""

    @property
    def owner(self) -> str:
        """What the trial's checkpoints are stored under: its runs."""
        return owner_of(self._own_packs())

    def unit(self) -> Progress:
        """Do the next unit; at the end, store the points that have become whole."""
        progress = self.progress
        progress.landed, progress.queue = [], None
        if self._tune():
            return progress
        for cell in self._cells:
            config = cell.spec.upstream.config
            point = self._point(cell, 0)
            if point not in self._stored and finish_point(
                cell.key, config, self.key, self._packs_of(cell), self._store
            ):
                self._landed(point)
        progress.done = True
        return progress

    @abstractmethod
    def _packs_of(self, cell: Cell) -> list[RunPack]:
        """Return all packs of a study's point."""

    @abstractmethod
    def _tune(self) -> bool:
        """Do some of the trial's runs; return whether there were any."""

    def _own_packs(self) -> list[RunPack]:
        """Return the packs of the trial's tasks."""
        cell = self._cells[0]
        wanted = cell.spec.tasks or tuple(cell.study.scored)
        return [pack for pack in self._packs_of(cell) if pack.task in wanted]

    def _work(self, cell: Cell, rung: int) -> None:
        raise AssertionError("a trial by tasks has units of its own")


class PromptTuningTrial(TaskTrial):
    """Plain prompt tuning: the runs of its tasks, side by side."""

    _queue: RunQueue | None = None
    _saved: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """Return the state of the queue of runs."""
        return {"queue": self._saved if self._queue is None else self._queue.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of this trial."""
        self._saved = state.get("queue")

    def _packs_of(self, cell: Cell) -> list[RunPack]:
        return baseline_packs(cell.study)

    def _tune(self) -> bool:
        ready = True
        if self._queue is None:
            study, packs = self._cells[0].study, self._own_packs()
            self._queue, ready = self._open_queue(study, packs, self._saved)
            self._saved = None
        if self._queue.done:
            return False
        if ready:
            self._work_on(self._queue)
        return True


class _RunByRun(TaskTrial):
    """One run a unit, each by itself; what is stored is where it goes on."""

    _waiting: list[PlannedRun] | None = None

    @abstractmethod
    def _done(self, run: PlannedRun) -> TuningResult:
        """Do a run."""

    def _tune(self) -> bool:
        if self._waiting is None:
            packs = self._own_packs()
            stored_keys = self._store.present(keys_of(packs))
            self._waiting = [run for pack in packs for run in pack.missing(stored_keys)]
        if not self._waiting:
            return False
        run = self._waiting.pop(0)
        self._store.add_runs([run_record(run, self._done(run), {})])
        self.progress.runs += 1
        return True


class FineTuningTrial(_RunByRun):
    """Fine-tuning."""

    def _packs_of(self, cell: Cell) -> list[RunPack]:
        return fine_tuning_packs(self._tuned(cell))

    def _tuned(self, cell: Cell) -> OpenStudy:
        config = cell.spec.upstream.config
        assert isinstance(config, FineTuningConfig)
        return tuned_study(cell.study, config)

    def _done(self, run: PlannedRun) -> TuningResult:
        from mpt.downstream.fine_tuning import fine_tune
        from mpt.downstream.record import TuningRun

        study = self._tuned(self._cells[0])
        config = study.config
        (result,) = fine_tune(
            study.backbone,
            [TuningRun(run.task, run.lr, run.prompt)],
            config.downstream,
            config.text,
            run.identity.train_seed,
        )
        return result


class ZeroShotTrial(_RunByRun):
    """The model as it is, without a prompt: evaluations alone, of equal test files once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._known: dict[str, dict[tuple[Example, ...], float]] = {}

    def _packs_of(self, cell: Cell) -> list[RunPack]:
        return zero_shot_packs(cell.study)

    def _done(self, run: PlannedRun) -> TuningResult:
        from mpt.downstream.evaluation import zero_shot

        study = self._cells[0].study
        config, known = study.config, self._known.setdefault(run.task.name, {})
        return zero_shot(study.backbone, run.task, config.downstream, config.text, known)
