"""One trial as a row of small units: upstream steps, then the runs at a rung, rung after rung.

A unit takes seconds. What it computes follows from its inputs alone, so a trial that is started
again from a checkpoint, or from nothing, ends with the same numbers bit for bit; what is stored
already is not computed again. Nothing here knows Ray.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpt.errors import DataError
from mpt.store.records import Point, point_key
from mpt.study.record import study_record
from mpt.study.specs import MethodConfig, PromptTuningConfig, settings_of
from mpt.trial.files import newest_state
from mpt.trial.origin import now, origin_of
from mpt.trial.runs import RunPack, baseline_packs, keys_of, of_tasks, owner_of, upstream_key

if TYPE_CHECKING:
    from mpt.store.artifacts import Artifacts
    from mpt.study.specs import TrialSpec
    from mpt.study.study import OpenStudy
    from mpt.trial.run_queue import QueueStatus, RunQueue
    from mpt.trial.score import PointScore
    from mpt.trial.starts import Choosing
    from mpt.trial.store import TrialStore

WAIT_S = 0.5
"""Seconds between two looks for a baseline that another trial computes."""
PATIENCE_S = 300.0
"""Seconds without a run or a checkpoint of the baseline's trials after which a waiting trial does
their work: they may have been lost, and wait for the place that this one holds."""


@dataclass(frozen=True)
class Stopped:
    """A trial that cannot reach the leader."""

    steps: int
    """The rung on the way to which it was stopped."""
    reason: str
    """With the numbers that decided."""


@dataclass
class Progress:
    """Where a trial stands after a unit."""

    steps: int = 0
    """Upstream steps taken (those of the last rung once all is done)."""
    scores: dict[int, PointScore] = field(default_factory=dict)
    """Rung → score of the first study's points that are stored, and whose baseline is."""
    landed: list[str] = field(default_factory=list)
    """Keys of the points that this unit completed."""
    runs: float = 0.0
    """Runs that this process computed so far; one that is half through counts half."""
    queue: QueueStatus | None = None
    """Where the downstream runs of this unit stand; None in a unit without any."""
    choosing: Choosing | None = None
    """Where the choice of starts of this unit stands; None in a unit without one."""
    choice_steps: float = 0.0
    """Optimiser steps of such choices that this process did so far, as a plan counts them."""
    choice_rows: float = 0.0
    """Rows likewise."""
    waiting: bool = False
    """Whether this unit waited for a baseline."""
    problems: list[str] = field(default_factory=list)
    """What was found broken so far, and what was done instead."""
    stopped: Stopped | None = None
    """Where and why the trial was given up; None if it was not."""
    done: bool = False
    """Every point of the trial is stored, or it was given up."""


@dataclass(frozen=True, kw_only=True)
class TrialOptions:
    """How a trial works; nothing here changes a number."""

    chunk_s: float = 5.0
    """Seconds of a unit: of upstream learning or of tuning."""
    keep_prompts: bool = False
    """Keep every tuned prompt as an artifact."""
    racing: bool = False
    """Tune one data seed after the other, and give up where the point cannot reach the leader any
    more, however good its other runs are."""
    wait: bool = False
    """Go on behind a rung only when its score is known: somebody decides by it."""


@dataclass(frozen=True)
class Cell:
    """One study in which a trial is scored."""

    study: OpenStudy
    key: str
    """Of the study."""
    rungs: tuple[int, ...]
    spec: TrialSpec


class Trial(ABC):
    """The units of one method in one or more studies.

    Args:
        studies: the open studies, one a spec.
        specs: the same method and settings in each; several studies share what is learned.
        store: where results go.
        artifacts: where files go.
        options: how it works.
    """

    def __init__(
        self,
        studies: Sequence[OpenStudy],
        specs: Sequence[TrialSpec],
        store: TrialStore,
        artifacts: Artifacts,
        options: TrialOptions | None = None,
    ) -> None:
        self._store, self._artifacts = store, artifacts
        self._options = options or TrialOptions()
        self._cells = [
            Cell(study, study_record(study).key, spec.upstream.rungs, spec)
            for study, spec in zip(studies, specs, strict=True)
        ]
        self.key = upstream_key(studies[0], specs[0].upstream.config)
        self.progress = Progress()
        self._stored: set[str] = set()
        self._waited: tuple[object, float] | None = None
        points = [self._point(cell, rung) for cell in self._cells for rung in cell.rungs]
        self._stored |= set(store.points(points))

    @property
    def owner(self) -> str:
        """What the trial's checkpoints are stored under."""
        return self.key

    def units(self) -> Iterator[Progress]:
        """Do all that is left, one unit after the other; yield the state after each."""
        while not self.progress.done:
            yield self.unit()

    def unit(self) -> Progress:
        """Do the next unit.

        Raises:
            StorageError: the database or the artifacts cannot be read or written.
        """
        progress = self.progress
        progress.landed, progress.waiting = [], False
        progress.queue, progress.choosing = None, None
        todo = self._next()
        if todo is not None:
            self._work(*todo)
        self._look_for_scores()
        over = self._next() is None or progress.stopped is not None
        progress.done = over and not (self._options.wait and self._unscored())
        if over and not progress.done:
            self._wait_for_baseline()
        return progress

    @abstractmethod
    def _work(self, cell: Cell, rung: int) -> None:
        """Do a unit of work towards a point."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; see `mpt.store.state`."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of this trial; one that keeps none has nothing to do."""
        del state

    def _next(self) -> tuple[Cell, int] | None:
        """Return the first point that is not stored: the lowest rung, the first study."""
        if self.progress.stopped is not None:
            return None
        if self._options.wait and self._unscored():
            return None
        rungs = sorted({rung for cell in self._cells for rung in cell.rungs})
        for rung in rungs:
            for cell in self._cells:
                if rung in cell.rungs and self._point(cell, rung) not in self._stored:
                    return cell, rung
        return None

    def _point(self, cell: Cell, rung: int) -> str:
        return point_key(cell.key, self.key, rung)

    def _put(
        self, cell: Cell, rung: int, origin: Mapping[str, Any] | None = None, **body: Any
    ) -> None:
        """Store a point, once all its runs are. `origin` is what its provenance says besides."""
        config = cell.spec.upstream.config
        stored = self._store.add_point(
            Point(
                study=cell.key,
                method=config.method,
                settings=settings_of(config),
                steps=rung,
                upstream=self.key,
                provenance=origin_of(**(origin or {})),
                created=now(),
                **body,
            )
        )
        if stored:
            self._landed(self._point(cell, rung))

    def _landed(self, point: str) -> None:
        self._stored.add(point)
        self.progress.landed.append(point)

    def _problem(self, text: str) -> None:
        if text not in self.progress.problems:
            self.progress.problems.append(text)

    # --- scores ---------------------------------------------------------------------------------

    def _unscored(self) -> list[int]:
        """Return the rungs of the first study whose points are stored without a score."""
        first = self._cells[0]
        return [
            rung
            for rung in first.rungs
            if rung not in self.progress.scores and self._point(first, rung) in self._stored
        ]

    def _look_for_scores(self) -> None:
        missing = self._unscored()
        if not missing:
            return
        keys = {self._point(self._cells[0], rung): rung for rung in missing}
        for key, score in self._store.scores(list(keys)).items():
            self.progress.scores[keys[key]] = score

    def _wait_for_baseline(self) -> None:
        """Wait a moment for the trials of plain prompt tuning; do their work if they are lost."""
        self.progress.waiting = True
        cell = self._cells[0]
        packs = baseline_packs(cell.study)
        if finish_point(cell.key, PromptTuningConfig(), "", packs, self._store):
            return
        tasks = list(of_tasks(packs).values())
        sign = self._store.signs(keys_of(packs), [owner_of(own) for own in tasks])
        now = time.monotonic()
        if self._waited is None or self._waited[0] != sign:
            self._waited = (sign, now)
        if now - self._waited[1] < PATIENCE_S:
            time.sleep(WAIT_S)
            return
        for own in tasks:
            self._stand_in(cell.study, own)

    def _stand_in(self, study: OpenStudy, packs: Sequence[RunPack]) -> None:
        """Do the runs of a task as the trial that is lost would have done them."""
        saved = None
        try:
            saved = newest_state(self._store, self._artifacts, owner_of(packs))
        except DataError as error:
            self._problem(f"{error}; its runs start anew")
        queue, _ = self._open_queue(study, packs, (saved or {}).get("queue"))
        queue.advance(None)

    def _queue_of(self, study: OpenStudy, packs: Sequence[RunPack]) -> RunQueue:
        """Return the queue of the packs' missing runs."""
        from mpt.trial.pack_limits import pack_limits
        from mpt.trial.run_queue import RunQueue

        keep = self._keep_prompt if self._options.keep_prompts else None
        return RunQueue(
            study, packs, self._store, lambda runs: pack_limits(study, runs, self._store), keep
        )

    def _open_queue(
        self, study: OpenStudy, packs: Sequence[RunPack], saved: dict[str, Any] | None
    ) -> tuple[RunQueue, bool]:
        """Return the queue of the packs' missing runs, at a saved state if that is of them.

        Also return whether it may go on at once. A new queue may not: first a checkpoint must name
        its runs. Whoever takes over after a kill would else leave out those that were stored, and
        how runs are packed shows in their last bits.
        """
        queue, known = self._queue_of(study, packs), False
        if saved is not None and not queue.done:
            try:
                known = queue.load_state(saved)
            except DataError as error:
                self._problem(f"{error}; its runs start anew")
        return queue, known or queue.done

    def _work_on(self, queue: RunQueue) -> None:
        """Go on with runs for about `chunk_s` seconds."""
        before = queue.share
        queue.advance(self._options.chunk_s)
        self.progress.runs += queue.share - before
        self.progress.queue = queue.status

    def _keep_prompt(self, run: Any, result: Any) -> None:
        from mpt.prompts import prompt_bytes
        from mpt.trial.files import keep_file

        name = f"prompts/{run.key[:2]}/{run.key}.safetensors"
        data = prompt_bytes(result.prompt, {"run": run.key})
        keep_file(self._store, self._artifacts, "prompt", run.key, result.best_step, name, data)


def finish_point(
    study: str,
    config: MethodConfig,
    upstream: str,
    packs: Sequence[RunPack],
    store: TrialStore,
) -> bool:
    """Store the point of a method that learns nothing upstream, once all its runs are stored.

    Returns:
        Whether the point is stored.
    """
    return store.add_point(
        Point(
            study=study,
            method=config.method,
            settings=settings_of(config),
            steps=0,
            upstream=upstream,
            prompt=None,
            runs=tuple(keys_of(packs)),
            provenance=origin_of(),
            created=now(),
        )
    )
