"""What a results directory says, as values: a cell is one point with the runs that count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OWN = "own"
"""Sample size of tasks that keep the one of the catalogue (16 per class in the published gym)."""
COSTS = ("steps", "examples", "tokens", "seconds")
"""What a run costs; a cost that was not recorded counts as 0."""


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """What a cell is about: the row and column of every table follow from it."""

    role: str
    """"target" (scored on the partition's target tasks) or "validation" (a point of a search)."""
    backbone: str
    """Name of the language model."""
    gym: str
    """Name of the gym."""
    partition: str
    """One of the ten partitions."""
    method: str
    """maml, fomaml, reptile, multitask or fine_tuning."""
    source_set: str = "all"
    """"all", or the name of a subset of the source tasks."""
    source_shots: str = OWN
    """Examples per class of source tasks, "all", or `OWN`."""
    target_shots: str = OWN
    """The same for the tasks that are scored."""

    def __str__(self) -> str:
        text = f"{self.method} on {self.partition} ({self.backbone}, gym {self.gym}"
        if self.source_set != "all":
            text += f", sources {self.source_set}"
        if self.source_shots != OWN:
            text += f", source shots {self.source_shots}"
        if self.target_shots != OWN:
            text += f", target shots {self.target_shots}"
        return f"{text}; {self.role})"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The downstream run taken for one (task, data seed)."""

    key: str
    """Of its leaf."""
    lr: float
    """Downstream learning rate."""
    dev: float
    """Best dev score, a fraction."""
    test: float
    """Test score, a fraction."""
    data: str
    """Digest of the few-shot sample."""
    metric: str
    """Of the task."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One (task, data seed) of a cell."""

    keys: tuple[tuple[float, str], ...]
    """(learning rate, leaf key) in the recipe's order."""
    there: int
    """Leaves on disk."""
    taken: Run | None
    """The run that counts; None if a leaf is missing or every run diverged."""
    reason: str | None
    """Why there is none."""
    cost: Mapping[str, float]
    """`COSTS` of the leaves on disk, summed over learning rates."""


Samples = Mapping[str, Mapping[int, Sample]]
"""task → data seed → sample."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point record with the leaves it names."""

    place: Place
    key: str
    """Of the point record."""
    steps: int
    """Upstream steps."""
    trajectory: str | None
    """Key of the upstream trajectory."""
    sources: int | None
    """Number of source tasks, if recorded."""
    source_tasks: tuple[str, ...] = ()
    """Their names, if recorded."""
    config: Mapping[str, Any]
    """Settings of the upstream method."""
    identity: Mapping[str, Any]
    """Everything that can change the cell's numbers."""
    prompt: str | None
    """Digest of the learned prompt."""
    status: str
    """"ok", "diverged", or "stopped" (raced away, incomplete on purpose)."""
    note: str
    """What the record says about its status."""
    partial: str | None
    """What was left out; None if nothing was."""
    cost: Mapping[str, float]
    """`COSTS` of upstream learning up to `steps`."""
    devices: int
    """Devices that worked at once; 1 where the record does not say."""
    provenance: Mapping[str, Any]
    """Commit, versions, machine, time."""
    tasks: Samples
    """What the method gave."""
    baseline: Samples
    """What plain prompt tuning gave."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Data seeds that some task of the cell has."""
        return tuple(sorted({seed for samples in self.tasks.values() for seed in samples}))

    @property
    def leaves(self) -> tuple[int, int]:
        """(leaves on disk, leaves named) of the method."""
        return self.leaves_of(*self.tasks)

    def leaves_of(self, *tasks: str) -> tuple[int, int]:
        """Return (leaves on disk, leaves named) of the method on some tasks."""
        samples = [sample for task in tasks for sample in self.tasks[task].values()]
        return sum(s.there for s in samples), sum(len(s.keys) for s in samples)

    @property
    def train_seed(self) -> int:
        """Root of the run's generators."""
        return int(self.identity.get("train_seed", 0))


def scores_of(samples: Samples) -> dict[str, dict[int, float]]:
    """Return task → data seed → test score; what has no score is absent."""
    return {
        task: {seed: s.taken.test for seed, s in row.items() if s.taken is not None}
        for task, row in samples.items()
    }
