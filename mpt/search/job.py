"""What a search is asked to do, and what its workers need to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpt.search.spaces import Trajectory
from mpt.search.study import StudyPlan


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """A search: small enough to be sent to every worker."""

    plan: StudyPlan
    """What every point shares."""
    trajectories: tuple[Trajectory, ...]
    """In the order they are started."""
    results: Path
    """Results directory, absolute; on a cluster it must be shared by all nodes."""
    title: str
    """The space's title, for people."""
    keys: tuple[str, ...] = ()
    """The driver's trajectory keys; a worker with other keys has other data. Empty: unchecked."""
    chunk_s: float = 5.0
    """Seconds of upstream learning between two checkpoints."""

    @property
    def points(self) -> list[tuple[Trajectory, int]]:
        """Every (trajectory, rung)."""
        return [
            (trajectory, rung) for trajectory in self.trajectories for rung in trajectory.rungs
        ]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where and how a search runs; nothing here changes a result."""

    address: str = "local"
    """"local" (a Ray of its own), "auto", or the address of a cluster."""
    gpus_per_trial: float = 0.0
    """GPUs of each trial; a fraction shares one, above 1 whole numbers."""
    workers: int | None = None
    """CPUs of the local Ray; None: all of the machine's."""
    max_failures: int = 3
    """Restarts of a trial whose worker died."""
    resume: str = ""
    """The command that goes on after an interruption."""
    next_step: str = ""
    """The command that suits a finished search."""
