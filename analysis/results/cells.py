"""What a database says, as values: a cell is one point with the runs that count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mpt.store.records import Point, ScoreRow, StudyRecord

from .names import METHODS, PARTITION_LABELS, gym_label, rank

if TYPE_CHECKING:
    from mpt.metrics.moderation import Prior

OWN = "own"
"""Sample size of tasks that keep the one of the catalogue (16 per class in the published gym)."""
COSTS = ("steps", "examples", "tokens", "seconds")
"""What upstream learning costs; a cost that was not recorded is 0."""
RUN_COSTS = ("steps", "tokens", "seconds")
"""What a downstream run costs."""
PLAIN = {"source_set": "all", "source_shots": OWN, "target_shots": OWN}
"""Fields of the places of the plain replay: all sources, the tasks' own sample sizes."""


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """What a cell is about: the row and column of every table follow from it."""

    role: str
    """"target" (scored on the partition's target tasks) or "validation" (a point of a search)."""
    backbone: str
    gym: str
    """Name of the gym, without the folders above it."""
    partition: str
    method: str
    """Name of the method. Where a target cell of one study has points of several settings, all
    but the newest carry the first digits of their key: "maml [5e6f7a8b]"."""
    source_set: str = "all"
    """"all", or the name of a subset of the source tasks."""
    source_shots: str = OWN
    """Examples per class of source tasks, "all", or `OWN`."""
    target_shots: str = OWN
    """The same for the tasks that are scored."""
    edition: str = ""
    """Id of the study where several studies of one protocol claim the place, since data or
    weights have changed between them; empty where one does."""

    def __str__(self) -> str:
        text = f"{self.method} on {self.partition} ({self.backbone}, {gym_label(self.gym)}"
        if self.source_set != "all":
            text += f", sources {self.source_set}"
        if self.source_shots != OWN:
            text += f", source shots {self.source_shots}"
        if self.target_shots != OWN:
            text += f", target shots {self.target_shots}"
        if self.edition:
            text += f", study {self.edition}"
        return f"{text}; {self.role})"

    @property
    def paper_order(self) -> tuple[tuple[int, str], str, str, tuple[int, str]]:
        """Sorts places as the paper does: by partition, then backbone, edition and method."""
        partition, method = rank(self.partition, PARTITION_LABELS), rank(self.method, METHODS)
        return partition, self.backbone, self.edition, method

    def is_plain(self, but: str = "") -> bool:
        """Return whether it is of the plain replay (`PLAIN`), `but` for one field."""
        return all(getattr(self, n) == value for n, value in PLAIN.items() if n != but)


class AskedRun(NamedTuple):
    """A downstream run that a study asks for."""

    lr: float
    """Downstream learning rate."""
    train_seed: int
    """Of the downstream start."""
    key: str | None
    """None if it is missing."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One (task, data seed) of a cell."""

    runs: tuple[AskedRun, ...]
    """Start by start, learning rates in the recipe's order."""
    taken: tuple[ScoreRow, ...]
    """The runs that count, one a start; none if a run is missing or every run of a start
    diverged."""
    reason: str | None
    """Why there is none."""
    cost: Mapping[str, float]
    """`RUN_COSTS` of the runs that are there, summed over learning rates and starts."""

    @property
    def done(self) -> int:
        """Runs that are there."""
        return sum(run.key is not None for run in self.runs)

    @property
    def test(self) -> float | None:
        """Test score, a fraction: the mean over starts; None without taken runs."""
        tests = [row.test for row in self.taken if row.test is not None]
        return math.fsum(tests) / len(tests) if tests else None


Samples = Mapping[str, Mapping[int, Sample]]
"""task → data seed → sample."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point with its runs, or those of one configuration with several upstream seeds."""

    place: Place
    point: Point
    study: StudyRecord
    status: str
    """"ok", "diverged", or "stopped" (before all of its runs were there)."""
    note: str
    """What is recorded about its status."""
    tasks: Samples
    """What the method gave; empty if upstream learning diverged."""
    baseline: Samples
    """What plain prompt tuning gave."""
    baseline_point: str | None
    """Key of the study's point of plain prompt tuning; None if it is not there yet."""
    replicates: tuple[Cell, ...] = ()
    """Where the configuration was run with several upstream seeds: its points, this one among
    them (`upstream_seeds`). Scores, ARG and costs of the cell are then means over them."""
    family: str = ""
    """Key of the trajectory that the rungs of the configuration are found by; empty: its own."""
    prior: Prior | None = None
    """Spread between upstream seeds of what it is compared with; None where there is none."""
    task_priors: Mapping[str, Prior] = field(default_factory=dict)
    """Task → the same of its relative gain, in the cells of the same study."""

    @property
    def key(self) -> str:
        """Key of the point; of several that of one of them."""
        return self.point.key

    @property
    def points(self) -> tuple[Cell, ...]:
        """Its points, one an upstream seed."""
        return self.replicates or (self,)

    @property
    def line(self) -> str:
        """What rungs of one configuration share."""
        return self.family or self.trajectory

    @property
    def steps(self) -> int:
        """Upstream steps; 0 for a method without upstream learning."""
        return self.point.steps

    @property
    def trajectory(self) -> str:
        """Key of the upstream trajectory, or of what stands in its place."""
        return self.point.upstream

    @property
    def upstream_seed(self) -> int:
        """Root of its upstream generators: without one of its own that of the study."""
        own = self.config.get("seed")
        return self.train_seed if own is None else int(own)

    @property
    def config(self) -> Mapping[str, Any]:
        """Settings of the method."""
        return self.point.settings

    @property
    def cost(self) -> dict[str, float]:
        """`COSTS` of upstream learning up to `steps`, for one upstream seed."""
        costs = [point.point.cost for point in self.points]
        return {name: sum(float(getattr(c, name)) for c in costs) / len(costs) for name in COSTS}

    @property
    def devices(self) -> int:
        """Devices that learned upstream at once; 1 where nothing says so."""
        return int(self.point.provenance.get("devices") or 1)

    @property
    def source_tasks(self) -> tuple[str, ...]:
        """Names of the source tasks."""
        return tuple(dict.fromkeys(task for task, _, _ in self.study.source))

    @property
    def sources(self) -> int:
        """Number of source tasks."""
        return len(self.source_tasks)

    @property
    def train_seed(self) -> int:
        """Root of the generators."""
        return self.study.train_seed

    @property
    def seeds(self) -> tuple[int, ...]:
        """Data seeds that some task of the cell has."""
        return tuple(sorted({seed for samples in self.tasks.values() for seed in samples}))

    @property
    def counts(self) -> tuple[int, int]:
        """(runs that are there, runs asked for) of the method."""
        return self.counts_of(*self.tasks)

    def counts_of(self, *tasks: str) -> tuple[int, int]:
        """Return (runs that are there, runs asked for) of the method on some tasks."""
        samples = [
            sample
            for point in self.points
            for task in tasks
            for sample in point.tasks.get(task, {}).values()
        ]
        return sum(sample.done for sample in samples), sum(len(s.runs) for s in samples)


def scores_of(samples: Samples) -> dict[str, dict[int, float]]:
    """Return task → data seed → test score; what has no score is absent."""
    return {
        task: {seed: s.test for seed, s in row.items() if s.test is not None}
        for task, row in samples.items()
    }
