"""The starts of a point, and which of them every target takes.

A choice is stored once a point, with what it cost, and later sessions keep to it. A run that
starts from the chosen prompt is the run of that prompt in any study: it is computed once. What the
choice cost is therefore in the record of the point and not in that of a run.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mpt.errors import DataError
from mpt.trial.runs import choice_name, taken_by, vocabulary_start
from mpt.trial.starts import VOCABULARY, Choosing
from mpt.trial.starts.cost import choice_of_all
from mpt.trial.starts.losses import lowest, start_loss
from mpt.trial.starts.race import Race

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.gym.fewshot import FewShotTask
    from mpt.study.study import OpenStudy
    from mpt.trial.store import TrialStore

_COSTS = {
    "rows": "forward rows",
    "tokens": "forward tokens",
    "trained rows": "trained rows",
    "trained tokens": "trained tokens",
    "evaluated rows": "evaluated rows",
}
"""Cost of a choice → what it is called in the record of a point."""


class StartChoice:
    """The starts of one point and which of them every target takes.

    Args:
        study: the open study.
        learned: name → prompt [P, d] that was learned upstream, in the order that decides ties.
        store: where the choice is kept.
        point: key of the point.
        problem: called with what was found broken.
    """

    def __init__(
        self,
        study: OpenStudy,
        learned: Mapping[str, Tensor],
        store: TrialStore,
        point: str,
        problem: Callable[[str], None] | None = None,
    ) -> None:
        self._study, self._learned = study, learned
        self._store, self._point, self._problem = store, point, problem or (lambda _: None)
        self.record: Mapping[str, Any] | None = store.start_choice(point)
        """What is stored: ``{"taken": {task: {choice: {"start", "prompt", "losses"}}}, "rows",
        "tokens", "seconds"}``, a choice being a data seed, with ``/train seed`` behind it at
        further downstream starts; None while the choice is not made. A race has scores on ``dev``
        too, losses of ties alone, and the further costs of `Race.outcome`."""
        self._taken: dict[str, dict[str, dict[str, Any]]] = {}
        self._races = study.config.downstream.start == "raced"
        self._waiting = self._open()
        self._parts = len(self._waiting)
        self._cost: dict[str, Any] = {"rows": 0, "tokens": 0, "seconds": 0.0}
        self._race: Race | None = None

    def _open(self) -> list[tuple[FewShotTask, tuple[int, ...]]]:
        """Return what has not been taken yet: targets, with the downstream starts of one go.

        A learned prompt has one loss at all of them; races are one by one.
        """
        seeds = self._study.config.start_seeds
        parts = [(seed,) for seed in seeds] if self._races else [seeds]
        return [
            (task, part)
            for samples in self._study.scored.values()
            for task in samples.values()
            for part in parts
            if choice_name(self._study, task, part[0]) not in self._taken.get(task.name, {})
        ]

    @property
    def status(self) -> Choosing:
        """How many targets have chosen."""
        made = self._parts if self.record is not None else self._parts - len(self._waiting)
        return Choosing(how=self._study.config.downstream.start, made=made, of=self._parts)

    @property
    def done(self) -> tuple[float, float]:
        """Steps and rows that are done of what a plan counts; a race counts as far as it is."""
        race = 0.0 if self._race is None else self._race.share
        share = (self.status.made + race) / self._parts
        whole = choice_of_all(self._study, len(self._learned))
        return share * whole.steps, share * whole.rows

    def advance(self, seconds: float) -> bool:
        """Choose for about `seconds`, for one target at least; return whether all have chosen.

        A race is gone on with for one evaluation at least.

        Raises:
            UsageError: a single row does not fit into memory.
        """
        began = time.perf_counter()
        while self.record is None:
            task, seeds = self._waiting[0]
            started = time.perf_counter()
            if self._races:
                choices = self._raced(task, seeds[0], began + seconds - started)
            else:
                choices = self._chosen(task, seeds)
            self._cost["seconds"] += time.perf_counter() - started
            if choices:
                self._taken.setdefault(task.name, {}).update(choices)
                self._waiting.pop(0)
            if not self._waiting:
                self.record = {"taken": self._taken, **self._cost}
                self._store.keep_start_choice(self._point, self.record)
            elif time.perf_counter() - began >= seconds:
                break
        return self.record is not None

    def start(self, task: FewShotTask, train_seed: int) -> Tensor:
        """Return the prompt [P, d] that a target has chosen at a downstream start."""
        assert self.record is not None
        name = taken_by(self.record, self._study, task, train_seed)["start"]
        if name == VOCABULARY:
            return vocabulary_start(self._study, task, train_seed)
        return self._learned[name]

    def _at_hand(self, task: FewShotTask, train_seed: int) -> dict[str, Tensor]:
        """Return all starts of a target at a downstream start, in the order that decides ties."""
        return {**self._learned, VOCABULARY: vocabulary_start(self._study, task, train_seed)}

    def _chosen(self, task: FewShotTask, seeds: tuple[int, ...]) -> dict[str, dict[str, Any]]:
        """Return the choices of a target by loss, one a downstream start."""
        learned = {name: self._loss(task, prompt) for name, prompt in self._learned.items()}
        choices: dict[str, dict[str, Any]] = {}
        for train_seed in seeds:
            starts = self._at_hand(task, train_seed)
            losses = {**learned, VOCABULARY: self._loss(task, starts[VOCABULARY])}
            finite = {key: loss if math.isfinite(loss) else None for key, loss in losses.items()}
            name = lowest(losses)
            choices |= self._choice(task, train_seed, name, starts[name], {"losses": finite})
        return choices

    def _raced(self, task: FewShotTask, train_seed: int, seconds: float) -> dict[str, Any]:
        """Go on with a race for about `seconds`; return the choice of its target, once it is over.

        Empty before.
        """
        starts = self._at_hand(task, train_seed)
        self._race = self._race or Race(self._study, task, train_seed, starts, self._store)
        if not self._race.advance(seconds):
            return {}
        name, details, cost = self._race.outcome()
        for key, value in cost.items():
            self._cost[key] = self._cost.get(key, 0) + value
        self._race = None
        return self._choice(task, train_seed, name, starts[name], details)

    def _choice(
        self,
        task: FewShotTask,
        train_seed: int,
        name: str,
        prompt: Tensor,
        details: dict[str, Any],
    ) -> dict[str, dict[str, Any]]:
        from mpt.prompts import prompt_digest

        own = {"start": name, "prompt": prompt_digest(prompt), **details}
        return {choice_name(self._study, task, train_seed): own}

    def _loss(self, task: FewShotTask, prompt: Tensor) -> float:
        loss, rows, tokens = start_loss(self._study, task, prompt)
        self._cost["rows"] += rows
        self._cost["tokens"] += tokens
        return loss

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint holds; None once the choice is stored, or before any work."""
        if self.record is not None or not (self._taken or self._race):
            return None
        return {
            "point": self._point,
            "taken": {task: dict(choices) for task, choices in self._taken.items()},
            "cost": dict(self._cost),
            "race": None if self._race is None else self._race.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state; one of another point, or a broken one, is passed over."""
        if self.record is not None or state.get("point") != self._point:
            return
        try:
            taken = {task: dict(choices) for task, choices in state["taken"].items()}
            cost, race = {**self._cost, **state["cost"]}, state["race"]
        except (KeyError, TypeError, AttributeError) as error:
            self._problem(f"state of a choice of starts is incomplete ({error!r}); it starts anew")
            return
        self._taken, self._cost = taken, cost
        self._waiting = self._open()
        if race is None or not self._waiting:
            return
        task, (train_seed, *_) = self._waiting[0]
        own = Race(self._study, task, train_seed, self._at_hand(task, train_seed), self._store)
        try:
            own.load_state(race)
        except DataError as error:
            self._problem(f"{error}; the race starts anew")
            return
        self._race = own


def summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice as the record of its point has it: what was taken, and what it cost."""
    taken = {
        task: {name: one["start"] for name, one in choices.items()}
        for task, choices in record["taken"].items()
    }
    cost = {told: record[name] for name, told in _COSTS.items() if name in record}
    return {"taken": taken, **cost, "seconds": record["seconds"]}


def words(record: Mapping[str, Any]) -> str:
    """Return a choice for people: how often each start was taken."""
    names = [one["start"] for choices in record["taken"].values() for one in choices.values()]
    counts = Counter(names).most_common()
    return "starts taken: " + ", ".join(f"{name} {count}" for name, count in counts)
