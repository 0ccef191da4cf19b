"""Which start a target is tuned from, where the target itself chooses (`DownstreamConfig.start`).

At hand are the learned prompt, the members of a soup, and the start of plain prompt tuning. For
every (task, data seed) the one with the lowest loss on the target's own train and dev rows (those
that the recipe reads), before any tuning, is tuned; the first of equal ones, in this order. Test
rows are not read. A choice costs one forward pass of these rows for every start; it is stored once
a point, with what it cost, and later sessions keep to it.

A study with several downstream starts has as many starts of plain prompt tuning; a target chooses
once with each of them at hand.

A run that starts from the chosen prompt is the run of that prompt in any study: it is computed
once. What the choice cost is therefore in the record of the point and not in that of a run.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mpt.gym.fewshot import some_rows
from mpt.trial.runs import choice_name, taken_by, vocabulary_start

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.gym.fewshot import Example, FewShotTask
    from mpt.study.study import Study
    from mpt.trial.store import TrialStore

LEARNED, VOCABULARY = "learned", "vocabulary"


class StartChoice:
    """The starts of one point and which of them every target takes.

    Args:
        study: the open study.
        learned: name → prompt [P, d] that was learned upstream, in the order that decides ties.
        store: where the choice is kept.
        point: key of the point.
    """

    def __init__(
        self, study: Study, learned: Mapping[str, Tensor], store: TrialStore, point: str
    ) -> None:
        self._study, self._learned = study, learned
        self._store, self._point = store, point
        self.record: Mapping[str, Any] | None = store.start_choice(point)
        """What is stored: ``{"taken": {task: {choice: {"start", "prompt", "losses"}}}, "rows",
        "tokens", "seconds"}``, a choice being a data seed, with ``/train seed`` behind it at
        further downstream starts; None while the choice is not made."""
        self._taken: dict[str, dict[str, dict[str, Any]]] = {}
        self._left = [task for samples in study.scored.values() for task in samples.values()]
        self._cost = {"rows": 0, "tokens": 0, "seconds": 0.0}

    def advance(self, seconds: float) -> bool:
        """Choose for about `seconds`, for one target at least; return whether all have chosen."""
        began = time.perf_counter()
        while self.record is None:
            task = self._left.pop(0)
            started = time.perf_counter()
            self._taken.setdefault(task.name, {}).update(self._chosen(task))
            self._cost["seconds"] += time.perf_counter() - started
            if not self._left:
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

    def _chosen(self, task: FewShotTask) -> dict[str, dict[str, Any]]:
        """Return the choices of a target, one a downstream start."""
        from mpt.prompts import prompt_digest

        learned = {name: self._loss(task, prompt) for name, prompt in self._learned.items()}
        found: dict[str, dict[str, Any]] = {}
        for train_seed in self._study.config.start_seeds:
            plain = vocabulary_start(self._study, task, train_seed)
            losses = {**learned, VOCABULARY: self._loss(task, plain)}
            name = lowest(losses)
            finite = {key: loss if math.isfinite(loss) else None for key, loss in losses.items()}
            prompt = prompt_digest(plain if name == VOCABULARY else self._learned[name])
            choice = {"start": name, "prompt": prompt, "losses": finite}
            found[choice_name(self._study, task, train_seed)] = choice
        return found

    def _loss(self, task: FewShotTask, prompt: Tensor) -> float:
        loss, rows, tokens = start_loss(self._study, task, prompt)
        self._cost["rows"] += rows
        self._cost["tokens"] += tokens
        return loss


def lowest(losses: Mapping[str, float]) -> str:
    """Return the name of the lowest loss, the first of equal ones; one that is NaN never wins."""
    return min(losses, key=lambda name: math.inf if math.isnan(losses[name]) else losses[name])


def start_loss(study: Study, task: FewShotTask, prompt: Tensor) -> tuple[float, int, int]:
    """Return the loss of a start on a target's own rows, the rows, and their target tokens.

    The loss is the mean over the target tokens of all train rows and of the dev rows that the
    recipe uses (`max_dev`). They pass in batches as large as those of tuning, which fit wherever
    tuning does, so that the number depends on nothing else.

    Args:
        study: backbone and recipe.
        task: the target's few-shot sample; its test rows are not read.
        prompt: the start [P, d].
    """
    import torch

    backbone, down = study.backbone, study.config.downstream
    rows = backbone.encode_rows(task.name, own_rows(study, task), study.config.text)
    total, tokens = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(rows), down.batch_size):
            part = rows[first : first + down.batch_size]
            batch = backbone.collate(part, [0] * len(part))
            losses, counts = backbone.row_losses(prompt[None].to(backbone.device), batch)
            total += float(losses.double().sum())
            tokens += int(counts.sum())
    return total / tokens, len(rows), tokens


def own_rows(study: Study, task: FewShotTask) -> list[Example]:
    """Return the rows by which a target chooses: those it is tuned and selected with."""
    down = study.config.downstream
    name, stratified = f"{task.name} dev", down.sample == "stratified"
    return [*task.train, *some_rows(task.dev, down.max_dev, stratified=stratified, name=name)]


def summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice as the record of its point has it: what was taken, and what it cost."""
    taken = {
        task: {name: one["start"] for name, one in choices.items()}
        for task, choices in record["taken"].items()
    }
    cost = {f"forward {name}": record[name] for name in ("rows", "tokens")}
    return {"taken": taken, **cost, "seconds": record["seconds"]}


def words(record: Mapping[str, Any]) -> str:
    """Return a choice for people: how often each start was taken."""
    names = [one["start"] for choices in record["taken"].values() for one in choices.values()]
    counts = Counter(names).most_common()
    return "starts taken: " + ", ".join(f"{name} {count}" for name, count in counts)
