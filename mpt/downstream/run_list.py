"""The runs of a queue: what they are, which of them enter together, and what identifies them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.backbones.base import Backbone
from mpt.downstream.data import distinct_tasks
from mpt.downstream.record import TuningRun
from mpt.errors import UsageError
from mpt.keys import digest
from mpt.prompts import prompt_digest

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig, TextConfig
    from mpt.gym.fewshot import FewShotTask


class RunList:
    """Runs in queue order, referred to by position.

    Args:
        runs: any mixture of tasks.
        backbone: the frozen model.
        config: the recipe.
        text: lengths of inputs and targets.
        root_seed: root of data order and dropout.

    Raises:
        UsageError: a prompt has another shape than the first, or two tasks share name and data
            seed but not their data.
    """

    def __init__(
        self,
        runs: Sequence[TuningRun],
        backbone: Backbone,
        *,
        config: DownstreamConfig,
        text: TextConfig,
        root_seed: int,
    ):
        self._backbone, self._config, self._text, self._root = backbone, config, text, root_seed
        self.runs = list(runs)
        self.prompt_length = len(runs[0].prompt) if runs else 0
        for run in runs:
            if run.prompt.shape != (self.prompt_length, backbone.d_model):
                raise UsageError(
                    f"prompt of {run.task.name} is {tuple(run.prompt.shape)}, but must be "
                    f"[P, {backbone.d_model}], P the same for all runs"
                )
        self.tasks = distinct_tasks(run.task for run in runs)
        self._families = self._find_families() if config.catch_up is not None else None

    def __len__(self) -> int:
        return len(self.runs)

    def steps(self, position: int) -> int:
        """Return the steps after which a run is through."""
        return self._config.steps_on(len(self.runs[position].task.train))

    def task_places(self, places: Sequence[int], tasks: Sequence[FewShotTask]) -> list[int]:
        """Return for each run the position of its task among `tasks`."""
        of = {(task.name, task.seed): n for n, task in enumerate(tasks)}
        return [of[self.runs[n].task.name, self.runs[n].task.seed] for n in places]

    def units(self, most: int) -> list[list[int]]:
        """Return which runs enter together: parts of at most `most` runs of a family, or one."""
        if self._families is None:
            return [[position] for position in range(len(self))]
        return [
            family[first : first + most]
            for family in self._families
            for first in range(0, len(family), most)
        ]

    def _find_families(self) -> list[list[int]]:
        """Return the positions of the runs that differ in their learning rate only."""
        families: dict[tuple[str, int, str], list[int]] = {}
        for position, (run, mark) in enumerate(zip(self.runs, self._marks, strict=True)):
            families.setdefault((run.task.name, run.task.seed, mark), []).append(position)
        return list(families.values())

    @functools.cached_property
    def _marks(self) -> list[str]:
        """The digest of every run's starting prompt; runs often share one tensor."""
        known: dict[int, str] = {}
        for run in self.runs:
            if id(run.prompt) not in known:
                known[id(run.prompt)] = prompt_digest(run.prompt)
        return [known[id(run.prompt)] for run in self.runs]

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of everything that can change a result, the packing excepted."""
        config = dataclasses.asdict(self._config)
        if config["race_steps"] is None:  # checkpoints from before there was one are gone on with
            del config["race_steps"]
        return digest(
            {
                "backbone": self._backbone.digest,
                "position": self._backbone.position,
                "config": config,
                "text": dataclasses.asdict(self._text),
                "root_seed": self._root,
                "runs": [
                    [run.task.name, run.task.seed, run.task.digest, run.lr, mark]
                    for run, mark in zip(self.runs, self._marks, strict=True)
                ],
            }
        )
