"""What a search is asked to do, and what its workers need to know."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.errors import UsageError
from mpt.study.spaces import Trajectory
from mpt.study.study import StudyPlan, shots_text

if TYPE_CHECKING:
    from mpt.search.choosers import Search

SCHEDULERS = ("none", "asha")


@dataclass(frozen=True, kw_only=True)
class Course:
    """One trajectory of one study: what a trial works on."""

    plan: StudyPlan
    """Backbone, source tasks and scored tasks."""
    trajectory: Trajectory
    """Method, settings and rungs."""

    @property
    def name(self) -> str:
        """Readable name, e.g. ``maml-inner0.1-outer0.3-k1-b4-random_to_random``.

        A cell of a sweep has its sources and sample sizes in it: ``…-cls_to_cls-sources12``.
        """
        plan = self.plan
        sweep = "" if plan.source_set == "all" else f"-sources{plan.source_set}"
        for kind, shots in (("source", plan.source_shots), ("target", plan.target_shots)):
            sweep += "" if shots is None else f"-{kind}_shots_{shots_text(shots)}"
        return f"{self.trajectory.name}-{plan.config.partition}{sweep}"


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """A search or a replay: courses and where their results go."""

    courses: tuple[Course, ...]
    """In the order they are started."""
    results: Path
    """Results directory, absolute; on a cluster it must be shared by all nodes."""
    title: str
    """The space's title, for people."""
    chunk_s: float = 5.0
    """Seconds of work between two looks at the clock: of upstream learning between two
    checkpoints, of tuning between two reports."""
    search: Search | None = None
    """How further courses are chosen while the job runs; None: `courses` are all of them."""
    scheduler: str = "none"
    """"none", or "asha": courses that fall behind at a rung are stopped there."""
    racing: bool = False
    """Courses that cannot reach the leader any more are stopped."""
    keep_prompts: bool = False
    """Keep every tuned prompt beside its leaf."""

    def __post_init__(self) -> None:
        if self.scheduler not in SCHEDULERS:
            raise UsageError(
                f"scheduler is {self.scheduler!r}, but must be one of {', '.join(SCHEDULERS)}"
            )
        if self.scheduler == "asha":
            for course in self.courses:
                _check_rungs(course)

    @property
    def points(self) -> list[tuple[Course, int]]:
        """Every (course, rung)."""
        return [(course, rung) for course in self.courses for rung in course.trajectory.rungs]

    @property
    def total(self) -> tuple[int, int]:
        """Courses and points in all, with those that will be chosen while the job runs."""
        if self.search is None:
            return len(self.courses), len(self.points)
        return self.search.count, self.search.count * len(self.courses[0].trajectory.rungs)

    @property
    def stoppers(self) -> frozenset[str]:
        """Who may stop a course: "asha", "racing", both or nobody."""
        schedulers = {self.scheduler} - {"none"}
        return frozenset(schedulers | ({"racing"} if self.racing else set()))

    @property
    def plans(self) -> tuple[StudyPlan, ...]:
        """The different studies, in order of first appearance."""
        return tuple(dict.fromkeys(course.plan for course in self.courses))

    @property
    def partial(self) -> tuple[str, ...]:
        """What is left out of the studies, one label each; empty if nothing is."""
        return tuple(dict.fromkeys(plan.partial for plan in self.plans if plan.partial))


def _check_rungs(course: Course) -> None:
    """Refuse a course that cannot be halved at its rungs: fewer than two, or of several ratios."""
    rungs = course.trajectory.rungs
    ratios = [(b * rungs[0], a * rungs[1]) for a, b in itertools.pairwise(rungs)]
    if len(rungs) < 2 or any(left != right for left, right in ratios):
        raise UsageError(
            "--scheduler asha needs rungs with one ratio, such as 25, 50, 100, but "
            f"{course.name} has {', '.join(map(str, rungs))}; use --scheduler none"
        )


def courses_of(plan: StudyPlan, trajectories: Sequence[Trajectory]) -> tuple[Course, ...]:
    """Return the courses of one study."""
    return tuple(Course(plan=plan, trajectory=trajectory) for trajectory in trajectories)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where and how a search runs; nothing here changes a result."""

    address: str = "local"
    """"local" (a Ray of its own), "auto", or the address of a cluster."""
    gpus_per_trial: float = 0.0
    """GPUs of each trial; a fraction shares one, above 1 whole numbers."""
    device: str | None = None
    """Where a trial computes, e.g. "cpu"; None: on the GPU Ray gave it, or else on the CPU."""
    workers: int | None = None
    """CPUs of the local Ray; None: all of the machine's."""
    max_failures: int = 3
    """Restarts of a trial whose worker died."""
    mlflow: str | None = None
    """Tracking URI of an MLflow that is told of the search; None: none is."""
    wandb: str | None = None
    """Project at Weights & Biases that is told of the search; None: none is."""
    resume: str = ""
    """The command that goes on after an interruption."""
    next_step: str = ""
    """The command that suits a finished search."""
