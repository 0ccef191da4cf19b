"""What is to be replayed: backbones, partitions, methods, sweeps, and whose settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpt.errors import UsageError
from mpt.gym.catalogue import load_catalogue
from mpt.gym.size import PUBLISHED_SHOTS
from mpt.replay.best import Searched
from mpt.replay.settings import SWEEPS, ReplaySettings, replayable
from mpt.store.records import BASELINE
from mpt.study.options import StudyOptions
from mpt.study.recipes import recipe
from mpt.study.study import absolute_backbone, gym_folder, source_sets


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """Where results go, on which data and at which size: what is asked of every job."""

    results: Path
    """Results directory."""
    store: str | None = None
    """URL of the database; None: the one in the results directory."""
    storage: str | None = None
    """Where checkpoints and prompts go; None: the results directory."""
    gym: str = "embedded"
    train_seed: int = 42
    smoke: bool = False
    allow_missing: bool = False

    @property
    def places(self) -> dict[str, Any]:
        """Where results go, as `SearchJob` takes it."""
        return {"results": self.results, "store": self.store, "storage": self.storage}


@dataclass(frozen=True, kw_only=True)
class Request(JobRequest):
    """What is to be replayed."""

    backbones: tuple[str, ...] = ()
    """None: the recipe's, or the embedded one."""
    partitions: tuple[str, ...] = ()
    """None: all of the gym's, or the sweep's."""
    methods: tuple[str, ...] = ()
    """None: all that have settings, or the sweep's."""
    sweep: str | None = None
    """One of `SWEEPS`."""
    recipe: str | None = None
    """"paper" or "released"; None: the embedded backbone has its own, others have the paper's."""
    precision: str | None = None
    """Number format in place of the recipe's."""
    searched: Path | str | None = None
    """Whose best points are replayed: a results directory, or a database (path that ends in .db,
    or URL); None: published or embedded settings."""
    searched_on: str | None = None
    """Backbone whose best points serve those that were not searched; None: they are refused."""
    study: str | None = None
    """First digits of the searched study or protocol, where there are several."""
    adopt: bool = False
    """FoMAML and Reptile take the inner rate, outer rate and steps that MAML's search found, as in
    the paper (§5.3); their own searches do not count."""
    published: bool = False
    """Published settings, for the embedded backbone too."""
    options: StudyOptions = field(default_factory=StudyOptions)
    """What replaces values of the study; fine-tuning keeps its own rates and steps."""

    def __post_init__(self) -> None:
        if self.sweep is not None and self.sweep not in SWEEPS:
            raise UsageError(f"sweep is {self.sweep!r}, but must be one of {', '.join(SWEEPS)}")
        if self.adopt and self.searched is None:
            raise UsageError(
                "adopt takes MAML's searched settings; say with --from where they are"
            )
        known = (*replayable(), BASELINE)
        for method in self.methods:
            if method not in known:
                raise UsageError(f"method {method!r} is unknown; known are {', '.join(known)}")
        if self.methods and set(self.methods) == {BASELINE}:
            raise UsageError(
                f"{BASELINE} is the baseline of every cell and is computed with any other method; "
                "name one"
            )


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a method is tried."""

    partition: str
    source_set: str = "all"
    source_shots: int | None = None
    target_shots: int | None = None
    source: tuple[str, ...] | None = None
    """These source tasks, called `source_set`; None: the catalogue's of that name."""
    scored: tuple[str, ...] | None = None
    """These target tasks; None: the partition's."""


def settings_of(request: Request, settings: ReplaySettings) -> list[Setting]:
    """Return the settings of a request, in the order they are started.

    Raises:
        UsageError: a partition is unknown, or has no parts of its sources to sweep over.
    """
    catalogue = load_catalogue(gym_folder(request.gym))
    sweep = settings.sweeps[request.sweep] if request.sweep else None
    names = request.partitions or (sweep.partitions if sweep else catalogue.partition_names)
    if request.smoke:
        names = names[: settings.smoke.partitions]
    for name in names:
        catalogue.partition(name)
    if sweep is None:
        return [Setting(partition=name) for name in names]
    if request.sweep == "sources":
        parts = {name: source_sets(catalogue, name) for name in names}
        for name, sets in parts.items():
            if not sets:
                raise UsageError(
                    f"partition {name} has no parts of its sources to sweep over; those with some "
                    f"are named in source_subsets: {', '.join(catalogue.source_subsets) or 'none'}"
                )
        return [
            Setting(partition=name, source_set=part)
            for name, sets in parts.items()
            for part in (*sets, "all")
        ]
    # the published size is the task's own: its cells are those of the replay without a sweep
    sizes = [None if shots == PUBLISHED_SHOTS else shots for shots in sweep.shots]
    if request.sweep == "source_shots":
        return [Setting(partition=name, source_shots=size) for name in names for size in sizes]
    return [Setting(partition=name, target_shots=size) for name in names for size in sizes]


def methods_asked(request: Request, settings: ReplaySettings | None) -> tuple[str, ...]:
    """Return the methods that a request or its sweep names; none if it leaves them open.

    Plain prompt tuning is computed with any other method and has no trials of its own here.
    """
    asked = request.methods
    if not asked and request.sweep and settings is not None:
        asked = settings.sweeps[request.sweep].methods
    return tuple(method for method in asked if method != BASELINE)


def searched_by(request: Request) -> Searched | None:
    """Return where a request's best points are; None if it asks for none."""
    if request.searched is None:
        return None
    address, store = str(request.searched), None
    if "://" in address or address.endswith(".db"):
        results, store = request.results, address
    else:
        results = Path(address)
        same = results.absolute() == request.results.absolute()
        store = request.store if same else None
    return Searched(
        results=results,
        store=store,
        study=request.study,
        backbone=request.searched_on and absolute_backbone(request.searched_on),
        smoke=request.smoke,
        partial=request.allow_missing,
    )


def default_backbone(request: Request) -> str:
    """Return the backbone of a request that names none."""
    return "embedded" if request.recipe is None else recipe(request.recipe).backbone
