"""A race of starts: all are tuned for a few steps side by side, and the best on dev is taken.

The runs of a race are those of the study, cut: same optimiser, rates, batches, order and
evaluations, with `DownstreamConfig.race_on` in the place of the recipe. Every start is tuned at
every learning rate of the recipe, and judged by the best of them, as it would be in the end. Of
equal dev scores (there are few dev rows, so they are frequent) the one with the lower loss on the
target's own rows is taken, of the prompt that the race has selected; then the first.

What is taken is tuned from its beginning: it is then the run of that prompt in any study, with the
same key and the same bits, and costs the steps of the race once more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mpt.errors import DataError
from mpt.trial.starts.losses import lowest, start_loss

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.downstream.record import TuningResult
    from mpt.gym.fewshot import FewShotTask
    from mpt.study.study import OpenStudy
    from mpt.trial.store import TrialStore


class Race:
    """The race of one target at one downstream start.

    Args:
        study: backbone and recipe.
        task: the target's few-shot sample; its test rows are not read.
        train_seed: of the downstream start.
        starts: name → prompt [P, d], in the order that decides ties.
        store: where limits of packing are kept.
    """

    def __init__(
        self,
        study: OpenStudy,
        task: FewShotTask,
        train_seed: int,
        starts: Mapping[str, Tensor],
        store: TrialStore,
    ) -> None:
        from mpt.downstream.queue import TuningQueue
        from mpt.downstream.record import TuningRun
        from mpt.trial.pack_limits import pack_limits

        config = study.config
        self._study, self._task, self._store = study, task, store
        self._names = [name for name in starts for _ in config.downstream.lrs]
        runs = [
            TuningRun(task, lr, prompt)
            for prompt in starts.values()
            for lr in config.downstream.lrs
        ]
        self._queue = TuningQueue(
            study.backbone,
            runs,
            config.downstream.race_on(len(task.train)),
            config.text,
            train_seed,
            pack_limits(study, runs, store),
            tested=False,
        )
        self.results: dict[int, TuningResult] = {}
        """What the runs gave that are through, by their places: start by start, rate by rate."""

    def advance(self, seconds: float) -> bool:
        """Go on for about `seconds`, to the next evaluation at least; return whether it is over.

        Raises:
            UsageError: a single row does not fit into memory.
        """
        from mpt.trial.pack_limits import remember_limits

        began = time.perf_counter()
        while not self._queue.done:
            self.results |= dict(self._queue.advance(0))
            if time.perf_counter() - began >= seconds:
                break
        if self._queue.done:
            remember_limits(self._study, self._queue.limits, self._store)
        return self._queue.done

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        now = self._queue.progress
        whole = now.steps + now.steps_left
        return now.steps / whole if whole else 1.0

    def outcome(self) -> tuple[str, dict[str, Any], dict[str, int]]:
        """Return what a race that is over has found.

        Returns:
            The name of the start to be taken; ``{"dev": {name: score}, "losses": {name: loss}}``,
            the scores of all starts, and the losses of those that share the best; and the cost:
            ``trained rows`` (forward and backward) and their ``trained tokens``, ``evaluated
            rows``, and the ``rows`` and target ``tokens`` of the forward passes for the losses.
        """
        best = self._best_of_rates()
        score = {name: _finite_or_lowest(one.dev) for name, one in best.items()}
        top = max(score.values())
        tied = [name for name in best if score[name] == top]
        cost, losses = self._cost(), {}
        if len(tied) > 1 and math.isfinite(top):
            for name in tied:
                losses[name], rows, tokens = start_loss(self._study, self._task, best[name].prompt)
                cost["rows"] += rows
                cost["tokens"] += tokens
        return (
            lowest(losses) if losses else tied[0],
            {
                "dev": _known({name: one.dev for name, one in best.items()}),
                "losses": _known(losses),
            },
            cost,
        )

    def _best_of_rates(self) -> dict[str, TuningResult]:
        """Return the result of each start at its best rate, the first of equal ones."""
        best: dict[str, TuningResult] = {}
        for position, name in enumerate(self._names):
            one = self.results[position]
            if name not in best or _finite_or_lowest(one.dev) > _finite_or_lowest(best[name].dev):
                best[name] = one
        return best

    def _cost(self) -> dict[str, int]:
        results = self.results.values()
        most = self._study.config.downstream.max_dev
        dev = len(self._task.dev) if most is None else min(most, len(self._task.dev))
        return {
            "rows": 0,
            "tokens": 0,
            "trained rows": sum(int(one.cost["examples"]) for one in results),
            "trained tokens": sum(int(one.cost["tokens"]) for one in results),
            "evaluated rows": dev * sum(len(one.curve) for one in results),
        }

    def state(self) -> dict[str, Any]:
        """Return the whole state as a tree for `mpt.store.state`."""
        results = {str(position): one.state_dict() for position, one in self.results.items()}
        return {"queue": self._queue.state_dict(), "results": results}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of this race.

        Raises:
            DataError: it is of another race or incomplete; nothing is changed then.
        """
        from mpt.downstream.record import TuningResult

        try:
            results = {int(p): TuningResult.from_state(r) for p, r in state["results"].items()}
            queue = state["queue"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"state of a race of starts is incomplete ({error!r})") from None
        self._queue.load_state_dict(queue)
        self.results = results


def _finite_or_lowest(score: float) -> float:
    """Return a dev score to compare by: the lowest where there is none (the run diverged)."""
    return score if math.isfinite(score) else -math.inf


def _known(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return values as JSON has them: None where there is none."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
