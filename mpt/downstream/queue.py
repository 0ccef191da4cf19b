"""A queue of prompt-tuning runs: some go on side by side, the others wait for them to leave.

Time is cut into intervals of `eval_every` steps. In an interval every active run takes its next
steps; at its end all are evaluated together, those that have finished are tested and leave, and
waiting ones enter in queue order. Each run counts its own steps, and nothing else of a run depends
on when it entered. What happens in an interval follows from the state at its beginning: neither
the clock nor an interruption changes the sequence of states.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mpt.allocator import keep_freed_memory
from mpt.backbones.base import Backbone
from mpt.downstream.data import TrainRows, distinct_tasks
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.limits import PackLimits, default_limits
from mpt.downstream.pack import Member, Pack, Work
from mpt.downstream.progress import QueueProgress
from mpt.downstream.record import Record, TuningResult, TuningRun
from mpt.downstream.run_list import RunList
from mpt.downstream.stopping import stop_reasons
from mpt.errors import DataError

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig, TextConfig
    from mpt.gym.fewshot import FewShotTask


class TuningQueue:
    """Runs that are tuned side by side, at most ``limits.runs`` at a time.

    With `catch_up` a family of learning rates (`mpt.downstream.stopping`) enters as a whole, when
    there is room for all of it; a family larger than ``limits.runs`` is cut in its order into
    parts of that size, and every part counts as a family of its own. Without it, runs enter one by
    one.

    Args:
        backbone: the frozen model.
        runs: any mixture of tasks.
        config: the recipe; its `lrs` are not read (each run has its own).
        text: lengths of inputs and targets.
        root_seed: root of data order and dropout.
        limits: what is packed; None: `default_limits` of the backbone's device.
        tested: whether selected prompts are tested; if not, test rows are not read.

    Raises:
        UsageError: a prompt has another shape than the first, or two tasks share name and data
            seed but not their data.
    """

    def __init__(
        self,
        backbone: Backbone,
        runs: Sequence[TuningRun],
        config: DownstreamConfig,
        text: TextConfig,
        root_seed: int,
        limits: PackLimits | None = None,
        *,
        tested: bool = True,
    ):
        self._backbone, self._config, self._text, self._root = backbone, config, text, root_seed
        self._tested = tested
        keep_freed_memory(backbone.device)
        self._list = RunList(runs, backbone, config=config, text=text, root_seed=root_seed)
        tasks = self._list.tasks
        self._task_of = self._list.task_places(range(len(runs)), tasks)
        self._rows = TrainRows(backbone, tasks, text, root_seed, config)
        limits = limits or default_limits(backbone.device)
        self._dev = self._evaluator("dev", tasks, limits)
        self._pack = self._new_pack(limits)
        self._records: dict[int, Record] = {}
        self._active: list[int] = []  # since the interval began; a diverged run stays to its end
        self._begun = self._tick = 0
        self._spent = self._seconds = 0.0
        self._done = Work(0, 0, 0, 0)
        self._handed: dict[int, TuningResult] = {}
        self._fresh: dict[int, TuningResult] = {}
        self._fill()

    @property
    def limits(self) -> PackLimits:
        """What is packed, as it is now; it shrinks where memory runs out."""
        return self._pack.limits

    @property
    def done(self) -> bool:
        """Whether every run has finished and its result has been returned."""
        return not self._active and not self._fresh

    @property
    def progress(self) -> QueueProgress:
        """How far the queue is."""
        waiting = [position for unit in self._units()[self._begun :] for position in unit]
        to_go = sum(m.steps - m.record.steps for m in self._pack.members)
        return QueueProgress(
            runs=len(self._list),
            finished=len(self._list) - len(waiting) - len(self._active),
            running=len(self._active),
            waiting=len(waiting),
            steps=self._done.steps,
            steps_left=to_go + sum(self._list.steps(position) for position in waiting),
            examples=self._done.examples,
            tokens=self._done.tokens,
            padded_tokens=self._done.padded_tokens,
            seconds=self._seconds,
        )

    def advance(
        self, seconds: float | None = None, on_step: Callable[[], None] | None = None
    ) -> list[tuple[int, TuningResult]]:
        """Work to the first end of an interval at or after `seconds`; at least one interval.

        Args:
            seconds: None: to the end.
            on_step: called after every step. It may raise: the state is whole then.

        Returns:
            (position in `runs`, result) of the runs that finished since the last call, in queue
            order. Calling again says that they are stored: until then they are in the state too,
            and a queue that loads it returns them once more.

        Raises:
            UsageError: a single row does not fit into memory.
        """
        started = time.perf_counter()
        self._handed = {}
        while self._active:
            self._interval(on_step)
            if seconds is not None and time.perf_counter() - started >= seconds:
                break
        self._handed, self._fresh = self._fresh, {}
        return sorted(self._handed.items())

    def _interval(self, on_step: Callable[[], None] | None) -> None:
        while self._tick < self._config.eval_every and self._pack.members:
            started = time.perf_counter()
            self._done = _sum(self._done, self._pack.step())
            self._tick += 1
            self._spend(started)
            if on_step is not None:
                on_step()
        self._finish_interval()

    def _spend(self, started: float) -> None:
        seconds = time.perf_counter() - started
        self._spent, self._seconds = self._spent + seconds, self._seconds + seconds

    def _finish_interval(self) -> None:
        """Evaluate; let runs leave that have finished, and others enter."""
        started = time.perf_counter()
        self._dev.max_tokens = self.limits.evaluation
        self._pack.evaluate(self._dev)
        self._remember(self._dev)
        ended = self._ended()
        tests = self._test(
            [position for position in ended if not self._records[position].diverged]
        )
        self._spend(started)
        for position in self._active:
            self._records[position].seconds += self._spent / len(self._active)
        for position in ended:
            self._fresh[position] = self._records[position].result(tests.get(position, math.nan))
            self._records[position].prompt = torch.empty(0)
        self._pack.leave(ended)
        self._active = [position for position in self._active if position not in ended]
        self._tick, self._spent = 0, 0.0
        self._fill()

    def _ended(self) -> list[int]:
        """Return which active runs end here; note why, if it is before their last step."""
        ended = []
        for family in self._families_now():
            records = [self._records[position] for position in family]
            running = [
                position in self._active
                and not record.diverged
                and record.steps < self._list.steps(position)
                for position, record in zip(family, records, strict=True)
            ]
            reasons = stop_reasons(records, running, self._config)
            for position, record, going, reason in zip(
                family, records, running, reasons, strict=True
            ):
                record.stopped = reason if going else record.stopped
                if position in self._active and (reason or not going):
                    ended.append(position)
        return sorted(ended)

    def _families_now(self) -> list[list[int]]:
        """Return the units that have an active run, those of them included that have ended."""
        return [
            unit
            for unit in self._units()[: self._begun]
            if any(position in self._active for position in unit)
        ]

    def _test(self, places: Sequence[int]) -> dict[int, float]:
        """Return the test score of each run's selected prompt."""
        if not places or not self._tested:
            return {}
        tasks = distinct_tasks(self._list.runs[position].task for position in places)
        evaluator = self._evaluator("test", tasks, self.limits)
        scores = evaluator.scores(
            torch.stack([self._records[position].prompt for position in places]),
            self._list.task_places(places, tasks),
        )
        self._remember(evaluator)
        return dict(zip(places, scores, strict=True))

    def _remember(self, evaluator: Evaluator) -> None:
        """Take over an evaluator's limit: it may have run out of memory."""
        self._pack.limits = self.limits.shrunk(evaluation=evaluator.max_tokens)

    def _fill(self) -> None:
        """Let waiting runs enter while there is room for the next unit of them."""
        units = self._units()
        while self._begun < len(units):
            unit = units[self._begun]
            if len(self._active) + len(unit) > self.limits.runs:
                break
            for position in unit:
                start = (
                    self._list.runs[position].prompt.detach().to(self._backbone.device, copy=True)
                )
                self._records[position] = Record(prompt=start)
            self._pack.enter(
                [self._member(position, self._records[position]) for position in unit]
            )
            self._active += unit
            self._begun += 1
        needed = {position for unit in self._families_now() for position in unit}
        self._records = {p: record for p, record in self._records.items() if p in needed}

    def _units(self) -> list[list[int]]:
        """Return which runs enter together, in queue order."""
        return self._list.units(self.limits.runs)

    def _member(self, position: int, record: Record) -> Member:
        lr, steps = self._list.runs[position].lr, self._list.steps(position)
        return Member(position, self._task_of[position], lr, steps, record)

    def _evaluator(
        self, split: str, tasks: Sequence[FewShotTask], limits: PackLimits
    ) -> Evaluator:
        return Evaluator(self._backbone, tasks, split, self._config, self._text, limits.evaluation)

    def _new_pack(self, limits: PackLimits) -> Pack:
        return Pack(
            self._backbone, self._rows, self._config, self._root, self._list.prompt_length, limits
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as a tree for `mpt.store.state.pack_state`.

        There is no generator to save: all draws are functions of root seed and step.
        """
        return {
            "identity": self._list.identity,
            "begun": self._begun,
            "tick": self._tick,
            "active": list(self._active),
            "spent": self._spent,
            "seconds": self._seconds,
            "done": dataclasses.asdict(self._done),
            "records": {str(position): r.state_dict() for position, r in self._records.items()},
            "results": {
                str(position): result.state_dict()
                for position, result in {**self._handed, **self._fresh}.items()
            },
            "pack": self._pack.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same runs; the limits are those of the state.

        Raises:
            DataError: the state is of other runs or incomplete; nothing is changed then.
        """
        try:
            if state["identity"] != self._list.identity:
                raise DataError(
                    f"state is of tuning queue {state['identity'][:12]}, but this one is "
                    f"{self._list.identity[:12]}: its runs or their settings differ; start anew"
                )
            records = {
                int(position): Record.from_state(record, self._backbone.device)
                for position, record in state["records"].items()
            }
            pack = self._new_pack(PackLimits.from_dict(state["pack"]["limits"]))
            pack.load_state_dict(
                state["pack"], {p: self._member(p, record) for p, record in records.items()}
            )
            results = {int(p): TuningResult.from_state(r) for p, r in state["results"].items()}
            counts = (int(state["begun"]), int(state["tick"]), [int(p) for p in state["active"]])
            times = (float(state["spent"]), float(state["seconds"]), Work(**state["done"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"state is incomplete ({error!r}); start the queue anew") from None
        self._records, self._pack = records, pack
        self._begun, self._tick, self._active = counts
        self._spent, self._seconds, self._done = times
        self._handed, self._fresh = {}, results


def _sum(one: Work, other: Work) -> Work:
    pairs = zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    return Work(*[a + b for a, b in pairs])
