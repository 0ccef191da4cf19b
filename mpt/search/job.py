"""What a search is asked to do, and where it runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.errors import UsageError
from mpt.store.location import database_url
from mpt.study.specs import TrialSpec
from mpt.study.study import StudyPlan

if TYPE_CHECKING:
    from mpt.study.spaces import Space

SCHEDULERS = ("none", "asha")
ALLOCATIONS = ("race", "full")
SEARCHERS = ("grid", "random", "optuna")
DONE, FAILED, INTERRUPTED = 0, 4, 75
"""Exit codes: all is there, some trials failed, the same call resumes."""


@dataclass(frozen=True, kw_only=True)
class Suggestions:
    """A search that chooses its trials while it runs."""

    space: Space
    """What is searched; where it counts epochs, with the study's rows."""
    plan: StudyPlan
    """The study all trials are scored in."""
    count: int
    """Trials in all."""
    seed: int
    """Root of the suggestions' randomness."""
    searcher: Any = "optuna"
    """"optuna" (TPE, its study in the same database), or any `ray.tune.search.Searcher`: it starts
    anew in every session, and what it suggests is answered from the record where that can be."""

    @property
    def first(self) -> TrialSpec:
        """A trial of this search; TPE's first suggestion, which is known before any score."""
        return TrialSpec(plan=self.plan, upstream=self.space.sample(1, self.seed)[0])

    @property
    def by_optuna(self) -> bool:
        """Whether TPE chooses, rather than a searcher of which nothing is known."""
        return isinstance(self.searcher, str)

    def trial(self, settings: Mapping[str, Any]) -> TrialSpec:
        """Return the trial with these searched settings."""
        return TrialSpec(plan=self.plan, upstream=self.space.trajectory(settings))


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """A search or a replay: trials and where their results go."""

    trials: tuple[TrialSpec, ...]
    """In the order they are started; with a searcher of the caller's own, first one that shows
    study and rungs, and then those that are on record."""
    results: Path
    """Results directory, absolute."""
    title: str
    """The space's title, for people."""
    store: str | None = None
    """URL of the database; None: ``mpt.db`` in the results directory."""
    storage: str | None = None
    """Where checkpoints and prompts go: a directory or a URI; None: the results directory."""
    chunk_s: float = 5.0
    """Seconds of work between two reports of a trial, and so between two checkpoints."""
    suggestions: Suggestions | None = None
    """How further trials are chosen while the job runs; None: `trials` are all of them."""
    scheduler: Any = "none"
    """"none", "asha" (trials that fall behind at a rung are stopped there), or any
    `ray.tune.schedulers.TrialScheduler`, which sees one result a rung."""
    racing: bool = False
    """Trials that cannot reach the leader any more are stopped."""
    keep_prompts: bool = False
    """Keep every tuned prompt as an artifact."""
    allocation: str = "race"
    """How replicates are given out where the study has several upstream seeds: "race" (the better
    ones get more, see `mpt.search.replication`) or "full"."""

    def __post_init__(self) -> None:
        if isinstance(self.scheduler, str) and self.scheduler not in SCHEDULERS:
            raise UsageError(
                f"scheduler is {self.scheduler!r}, but must be one of {', '.join(SCHEDULERS)}"
            )
        if self.allocation not in ALLOCATIONS:
            raise UsageError(f"allocation is {self.allocation!r}, but must be race or full")
        if self.scheduler == "asha":
            for trial in self.trials:
                _check_rungs(trial)
        compared = {(trial.plan, trial.method) for trial in self.trials}
        if self.scheduler != "none" and len(compared) > 1:
            raise UsageError(
                f"a scheduler compares trials of one method in one study, but {len(compared)} are "
                "searched; search them one after the other, or with --scheduler none"
            )

    @property
    def url(self) -> str:
        """URL of the database."""
        return database_url(self.results, self.store)

    @property
    def files(self) -> str:
        """Where checkpoints and prompts go."""
        return self.storage or str(self.results)

    @property
    def known(self) -> tuple[TrialSpec, ...]:
        """The trials that certainly belong to the job."""
        of = self.suggestions
        return self.trials if of is None or of.by_optuna else self.trials[1:]

    @property
    def points(self) -> list[tuple[TrialSpec, int]]:
        """Every (trial, rung)."""
        return [(trial, rung) for trial in self.trials for rung in trial.upstream.rungs]

    @property
    def total(self) -> tuple[int, int]:
        """Trials and points in all, with those that will be chosen while the job runs."""
        if self.suggestions is None:
            return len(self.trials), len(self.points)
        count = self.suggestions.count
        chosen = count * len(self.trials[0].upstream.rungs)
        # once further upstream seeds are run, there are more than were to be chosen
        return max(count, len(self.trials)), max(chosen, len(self.points))

    @property
    def stoppers(self) -> frozenset[str]:
        """Who may stop a trial, by name."""
        name = self.scheduler
        name = name if isinstance(name, str) else type(name).__name__
        return frozenset(({name} - {"none"}) | ({"racing"} if self.racing else set()))

    @property
    def decides(self) -> bool:
        """Whether somebody decides by scores while the job runs, so that trials wait for them."""
        return bool(self.stoppers) or self.suggestions is not None

    @property
    def in_one_session(self) -> bool:
        """Whether rounds with more upstream seeds follow in one session: local workers stay."""
        return not self.decides and len(self.plans) == 1

    @property
    def plans(self) -> tuple[StudyPlan, ...]:
        """The different studies, in order of first appearance."""
        return tuple(dict.fromkeys(trial.plan for trial in self.trials))

    @property
    def partial(self) -> tuple[str, ...]:
        """What is left out of the studies, one label each; empty if nothing is."""
        return tuple(dict.fromkeys(plan.partial for plan in self.plans if plan.partial))


def _check_rungs(trial: TrialSpec) -> None:
    """Refuse a trial that cannot be halved at its rungs: fewer than two, or of several ratios."""
    rungs = trial.upstream.rungs
    ratios = [(b * rungs[0], a * rungs[1]) for a, b in itertools.pairwise(rungs)]
    if len(rungs) < 2 or any(left != right for left, right in ratios):
        raise UsageError(
            "--scheduler asha needs rungs with one ratio, such as 25, 50, 100, but "
            f"{trial.name} has {', '.join(map(str, rungs))}; use --scheduler none"
        )


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
    dashboard: bool = False
    """Start Ray's dashboard beside a local Ray."""
    signals: bool = True
    """Take SIGINT and SIGTERM as the wish to end cleanly; a notebook keeps its own handlers."""
    methods: dict[str, Any] = field(default_factory=dict)
    """Registered upstream methods that workers do not know by themselves: name → `Method`."""
    resume: str = ""
    """The command that goes on after an interruption."""
    next_step: str = ""
    """The command that suits a finished search."""
    control_step: str = ""
    """The command that runs the control of a search (`mpt.search.control`); empty: none."""
