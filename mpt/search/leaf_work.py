"""Computing leaves: packs of downstream runs through one model, committed as they finish.

    results/packs/<name>/checkpoint-a.bin, checkpoint-b.bin    a queue of runs that is going on
            packs.jsonl                                        one line a commit: which leaves

The state of the whole queue is saved at every evaluation boundary, before what has finished is
committed. Whoever takes over after a kill loads it and goes on with the same queue, so that the
leaves have the same bits, and none is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.provenance import provenance
from mpt.records import LeafStore, append_line, make_leaf
from mpt.search.objective import Pack, PackRun, missing_runs

if TYPE_CHECKING:
    from mpt.downstream.prompt_tuning import TuningResult
    from mpt.search.study import Study


@dataclass(frozen=True, kw_only=True)
class LeafProgress:
    """What this process has done of a queue of runs."""

    runs: int = 0
    finished: int = 0
    running: int = 0
    waiting: int = 0


class LeafWork:
    """The missing leaves of some packs, computed side by side.

    Args:
        study: the open study.
        packs: what is to be on disk in the end; leaves that are there already are left alone.
        store: where leaves go.
    """

    def __init__(self, study: Study, packs: Sequence[Pack], store: LeafStore) -> None:
        self._study, self._store = study, store
        self._todo = missing_runs(packs, store)
        self.computed = 0

    @property
    def done(self) -> bool:
        """Whether every leaf is on disk."""
        return not self._todo

    def advance(self, seconds: float | None = None) -> None:
        """Go on for about `seconds` (None: to the end); commit what finishes."""
        from mpt.downstream.prompt_tuning import TuningRun, tune

        config = self._study.config
        results = tune(
            self._study.backbone,
            [TuningRun(run.task, run.lr, run.prompt) for run in self._todo],
            config.downstream,
            config.text,
            config.train_seed,
        )
        self._commit(list(zip(self._todo, results, strict=True)))
        self._todo = []

    def _commit(self, finished: Sequence[tuple[PackRun, TuningResult]]) -> None:
        origin = provenance()
        leaves = [
            make_leaf(run.identity, leaf_body(result), dict(result.cost), origin)
            for run, result in finished
        ]
        written = self._store.put_many(leaves)
        self.computed += len(leaves)
        append_line(
            self._store.disk.root / "packs.jsonl",
            {
                "time": origin["time"],
                "tasks": sorted({run.task.name for run, _ in finished}),
                "leaves": [leaf["key"] for leaf in leaves],
                "already_there": len(leaves) - len(written),
                "seconds": round(sum(result.cost["seconds"] for _, result in finished), 3),
            },
        )


def leaf_body(result: TuningResult) -> dict[str, Any]:
    """Return a result as a leaf holds it; JSON has no NaN, None stands for it."""
    return {
        "dev": _finite(result.dev),
        "test": _finite(result.test),
        "best_step": result.best_step,
        "curve": [[step, _finite(dev), _finite(loss)] for step, dev, loss in result.curve],
        "status": result.status,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def compute_leaves(study: Study, packs: Sequence[Pack], store: LeafStore) -> int:
    """Compute every missing leaf of the packs; return how many were."""
    work = LeafWork(study, packs, store)
    while not work.done:
        work.advance()
    return work.computed
