"""Computing leaves: a queue of downstream runs through one model, committed as they finish.

    results/packs/<name>/checkpoint-a.bin, checkpoint-b.bin    state of a queue that is going on
            packs/limits-<key>.json                            what goes through a GPU at once
            packs.jsonl                                        one line a commit: which leaves
            prompts/<aa>/<leaf key>.safetensors                tuned prompts, where they are kept

The state of the whole queue is saved at the end of every evaluation interval, before what has
finished in it is committed. Whoever takes over after a kill loads it and goes on with the same
queue: a run loses one interval at most, its bits are the same, and no leaf is computed twice.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.checkpoints import TrajectoryCheckpoints
from mpt.errors import DataError
from mpt.provenance import provenance
from mpt.records import LeafStore, Record, append_line, make_leaf
from mpt.storage import digest
from mpt.trial.objective import Pack, PackRun
from mpt.trial.pack_limits import pack_limits, remember_limits

if TYPE_CHECKING:
    from mpt.downstream.prompt_tuning import TuningResult
    from mpt.downstream.queue import TuningQueue
    from mpt.study.study import Study


@dataclass(frozen=True, kw_only=True)
class LeafProgress:
    """Where a queue of runs stands, and how fast it was when this process last worked on it."""

    finished: int
    running: int
    waiting: int
    steps_s: float
    """Optimiser steps per second, summed over runs; evaluation is part of the time."""
    examples_s: float
    tokens_s: float
    """Real tokens per second, prompts included."""
    useful: float
    """Share of the tokens in training that are no padding."""


class LeafWork:
    """The missing leaves of some packs, computed side by side.

    Args:
        study: the open study.
        packs: what is to be on disk in the end; leaves that are there already are left alone.
        store: where leaves go.
        keep_prompts: keep every tuned prompt beside its leaf.
    """

    def __init__(
        self,
        study: Study,
        packs: Sequence[Pack],
        store: LeafStore,
        *,
        keep_prompts: bool = False,
    ) -> None:
        self._study, self._store, self._keep_prompts = study, store, keep_prompts
        self._runs = {run.key: run for pack in packs for run in pack.runs}
        self._folder = store.disk.root / "packs" / digest(sorted(self._runs))
        self._checkpoints = TrajectoryCheckpoints(self._folder, store.disk)
        self._todo = _todo(study, packs, store)
        self._queue: TuningQueue | None = None
        self._resumed: set[str] = set()
        self._broken: list[str] = []
        self._speed = (0.0, 0.0, 0.0)
        self.computed = 0
        """Leaves that this process has committed."""

    @property
    def done(self) -> bool:
        """Whether every leaf is on disk."""
        return not self._todo

    @property
    def problems(self) -> list[str]:
        """What was found broken on disk, and the course taken."""
        return [*self._broken, *self._checkpoints.problems]

    @property
    def share(self) -> float:
        """How much of the work is done, in leaves: a run that is half through counts half."""
        if self._queue is None:
            return float(self.computed)
        now = self._queue.progress
        whole = now.steps + now.steps_left
        return now.runs * now.steps / whole if whole else float(now.runs)

    @property
    def progress(self) -> LeafProgress | None:
        """Where the queue stands; None before any work."""
        if self._queue is None:
            return None
        now = self._queue.progress
        steps, examples, tokens = self._speed
        return LeafProgress(
            finished=now.finished,
            running=now.running,
            waiting=now.waiting,
            steps_s=steps,
            examples_s=examples,
            tokens_s=tokens,
            useful=now.useful_share if now.padded_tokens else 0.0,
        )

    def advance(self, seconds: float | None = None) -> None:
        """Go on for about `seconds` (None: to the end), but to the end of one interval at least.

        Raises:
            UsageError: a single row does not fit into memory.
        """
        if self.done:
            return
        queue = self._queue = self._queue or self._open()
        began, before = time.perf_counter(), queue.progress
        while True:
            finished = queue.advance(0)
            if not queue.done:
                self._checkpoints.save(
                    queue.progress.steps, {"keys": self._todo, "queue": queue.state_dict()}
                )
            self._commit([(self._todo[place], result) for place, result in finished])
            if queue.done:
                self._close(queue)
                break
            if seconds is not None and time.perf_counter() - began >= seconds:
                break
        now, spent = queue.progress, max(time.perf_counter() - began, 1e-9)
        self._speed = (
            (now.steps - before.steps) / spent,
            (now.examples - before.examples) / spent,
            (now.tokens - before.tokens) / spent,
        )

    def _open(self) -> TuningQueue:
        """Return the queue that a killed process left behind, or a new one."""
        found = self._checkpoints.load(at_most=2**62)
        if found is not None:
            state = found[1]
            try:
                queue = self._new_queue(state["keys"])
                queue.load_state_dict(state["queue"])
            except (DataError, KeyError, TypeError) as error:
                self._broken.append(f"{self._folder}: {error}; its runs start anew")
            else:
                self._todo = list(state["keys"])
                self._resumed = {self._todo[int(n)] for n in state["queue"]["results"]}
                return queue
        return self._new_queue(self._todo)

    def _new_queue(self, keys: Sequence[str]) -> TuningQueue:
        from mpt.downstream.prompt_tuning import TuningRun
        from mpt.downstream.queue import TuningQueue

        study, config = self._study, self._study.config
        runs = [self._runs[key] for key in keys]
        return TuningQueue(
            study.backbone,
            [TuningRun(run.task, run.lr, run.prompt) for run in runs],
            config.downstream,
            config.text,
            config.train_seed,
            pack_limits(study, [run.task for run in runs], self._store.disk),
        )

    def _commit(self, finished: Sequence[tuple[str, TuningResult]]) -> None:
        """Put finished runs on disk; those of a resumed state may be there already."""
        new = [
            (self._runs[key], result)
            for key, result in finished
            if key not in self._resumed or self._store.get(key) is None
        ]
        if not new:
            return
        assert self._queue is not None
        if self._keep_prompts:
            self._save_prompts(new)
        commit_leaves(self._store, new, {"pack": self._queue.limits.to_dict()})
        self.computed += len(new)

    def _save_prompts(self, finished: Sequence[tuple[PackRun, TuningResult]]) -> None:
        from mpt.prompts import save_prompt

        for run, result in finished:
            if result.status == "ok":
                save_prompt(prompt_path(self._store.disk.root, run.key), result.prompt, {})

    def _close(self, queue: TuningQueue) -> None:
        self._todo = []
        remember_limits(self._study, queue.limits, self._store.disk)
        shutil.rmtree(self._folder, ignore_errors=True)


def commit_leaves(
    store: LeafStore, finished: Sequence[tuple[PackRun, TuningResult]], origin: Record
) -> None:
    """Put finished runs on disk as a whole, with a line in the log.

    Args:
        store: where leaves go.
        finished: runs and what they gave.
        origin: what a leaf's provenance says besides commit, versions and machine.
    """
    origin = {**provenance(), **origin}
    leaves = [
        make_leaf(run.identity, leaf_body(result), dict(result.cost), origin)
        for run, result in finished
    ]
    written = store.put_many(leaves)
    append_line(
        store.disk.root / "packs.jsonl",
        {
            "time": origin["time"],
            "tasks": sorted({run.task.name for run, _ in finished}),
            "leaves": [leaf["key"] for leaf in leaves],
            "already_there": len(leaves) - len(written),
            "seconds": round(sum(result.cost["seconds"] for _, result in finished), 3),
        },
    )


def prompt_path(results: Path, leaf: str) -> Path:
    """Return where the tuned prompt of a leaf is kept."""
    return results / "prompts" / leaf[:2] / f"{leaf}.safetensors"


def _todo(study: Study, packs: Sequence[Pack], store: LeafStore) -> list[str]:
    """Return the keys of the runs to be done, in order.

    Where learning rates race each other (`catch_up`), those of one family are done together: what
    is left of a family would race alone.
    """
    keys = []
    together = study.config.downstream.catch_up is not None
    for pack in packs:
        missing = {run.key for run in pack.missing(store)}
        torn = {run.task.seed for run in pack.runs if run.key in missing} if together else set()
        keys += [run.key for run in pack.runs if run.key in missing or run.task.seed in torn]
    return keys


def leaf_body(result: TuningResult) -> dict[str, Any]:
    """Return a result as a leaf holds it; JSON has no NaN, None stands for it."""
    return {
        "dev": _finite(result.dev),
        "test": _finite(result.test),
        "best_step": result.best_step,
        "curve": [[step, _finite(dev), _finite(loss)] for step, dev, loss in result.curve],
        "status": result.status,
        "stopped": result.stopped,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def compute_leaves(study: Study, packs: Sequence[Pack], store: LeafStore) -> int:
    """Compute every missing leaf of the packs; return how many were."""
    work = LeafWork(study, packs, store)
    work.advance()
    return work.computed
