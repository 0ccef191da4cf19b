"""The whole study as stages: searches, replay, sweeps, backbones, and what follows from them.

One backbone is searched, on random_to_random, as in the paper; its best points are replayed on
everything else. So there are two jobs: the searches, and one replay that holds the trials of all
other stages, each cell once. Two stages may ask for the same cell (the published sample size of a
sweep is the replay's own); it belongs to the first of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mpt.config import EMBEDDED_BACKBONES
from mpt.errors import UsageError
from mpt.replay.best import COMMON
from mpt.replay.replay import Replay, plan_replay
from mpt.replay.request import JobRequest, Request
from mpt.replay.settings import studied
from mpt.replay.similarity.pilot import METHOD, Pilot, plan_pilot
from mpt.replay.similarity.prompts import Tuner
from mpt.replay.similarity.ranking import Ranking
from mpt.search.job import SearchJob
from mpt.search.look import open_plan
from mpt.study.grids import grid_trials
from mpt.study.options import StudyOptions
from mpt.study.presets import default_space, load_smoke_size, load_study
from mpt.study.record import study_record
from mpt.study.spaces import load_space
from mpt.study.specs import BASELINES, TrialSpec
from mpt.study.study import plan_study

COMPARED = "nonpara_to_para"
"""The partition on which backbones are compared (Table 5)."""


@dataclass(frozen=True, kw_only=True)
class WholeRequest(JobRequest):
    """What the study runs over."""

    backbones: tuple[str, ...] = EMBEDDED_BACKBONES
    """The first is searched and stands in all tables, the others in the comparison."""
    stages: tuple[str, ...] = ()
    """Names of `STAGES`; none: all of them."""
    methods: tuple[str, ...] = ()
    """What is searched and replayed; none: all that are known or have settings."""
    partitions: tuple[str, ...] = ()
    """What the stage "replay" runs over; none: all."""
    precision: str | None = None
    """Number format in place of the recipe's."""
    options: StudyOptions = field(default_factory=StudyOptions)
    """What replaces values of the studies, of the search and of the replays."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.stages if name not in STAGES]
        if unknown:
            raise UsageError(
                f"stage {', '.join(unknown)} is unknown; known are {', '.join(STAGES)}"
            )

    def has(self, stage: str) -> bool:
        """Return whether a stage is asked for."""
        return not self.stages or stage in self.stages


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of the study."""

    name: str
    """One of `STAGES`."""
    trials: tuple[TrialSpec, ...]
    """Those that no stage before has."""

    @property
    def about(self) -> str:
        """What the report makes of it."""
        return STAGES[self.name].about


@dataclass(frozen=True)
class _Kind:
    about: str
    plan: Callable[[Request, WholeRequest, Tuner | None], Replay] | None
    """Makes its part of the replay, with who tunes the prompts that sources are chosen by; None:
    it is a search."""


def _sweep(name: str) -> Callable[[Request, WholeRequest, Tuner | None], Replay]:
    return lambda request, *_: plan_replay(dataclasses.replace(request, sweep=name))


def _partitions(request: Request, whole: WholeRequest, _: Tuner | None) -> Replay:
    return plan_replay(dataclasses.replace(request, partitions=whole.partitions))


def _backbones(request: Request, whole: WholeRequest, _: Tuner | None) -> Replay:
    return plan_replay(
        dataclasses.replace(request, backbones=whole.backbones, partitions=(COMPARED,))
    )


STAGES: Mapping[str, _Kind] = {
    "search": _Kind("settings of every method on random_to_random", None),
    "replay": _Kind("Tables 2 and 6: all partitions", _partitions),
    "target_shots": _Kind("Table 3: examples of the target tasks", _sweep("target_shots")),
    "source_shots": _Kind("Figure 3: examples of the source tasks", _sweep("source_shots")),
    "sources": _Kind("Table 4: number of source tasks", _sweep("sources")),
    "backbones": _Kind("Table 5: other language models", _backbones),
    "similarity": _Kind(
        "Tables 7 and 8: sources by similarity",
        # of MAML alone, whatever else is studied
        lambda request, _, tuner: plan_pilot(
            dataclasses.replace(request, methods=()), tuner=tuner
        ),
    ),
}
"""Name → what it is, in the order of the run."""


def search_stage(request: WholeRequest) -> Stage | None:
    """Return the searches of all methods; None if they are not asked for.

    Raises:
        UsageError: backbone or gym is unknown.
        DataError: few-shot files are missing; all are listed.
    """
    if not request.has("search"):
        return None
    backbone = request.backbones[0]
    study = dataclasses.replace(
        load_study(backbone, smoke=request.smoke, precision=request.precision),
        gym=request.gym,
        partition=COMMON,
        train_seed=request.train_seed,
    )
    size = load_smoke_size() if request.smoke else None
    plan = plan_study(
        request.options.apply(study),
        allow_missing=request.allow_missing,
        smoke_sources=None if size is None else size.source_tasks,
    )
    methods = [name for name in request.methods if name not in BASELINES] or studied()
    spaces = [load_space(method, default_space(backbone)) for method in methods]
    return Stage(name="search", trials=tuple(grid_trials(plan, spaces, size=size)))


@dataclass(frozen=True, kw_only=True)
class Replays:
    """The stages after the search."""

    stages: tuple[Stage, ...]
    notes: tuple[str, ...]
    """Where their settings are from, and which sources were chosen by similarity."""
    rankings: tuple[Ranking, ...]
    """What these were chosen by."""


def searched_study(search: Stage) -> str:
    """Return the key of the study whose points a search stage makes; backbone and data are read.

    Raises:
        UsageError: the backbone cannot be loaded.
        DataError: a few-shot file is malformed.
    """
    return study_record(open_plan(search.trials[0].plan)).key


def replay_request(request: WholeRequest, searched: str | None) -> Request:
    """Return what all stages after the search share.

    Args:
        request: the study.
        searched: key of the study in the results directory whose best points are replayed
            (`searched_study`); None: the settings of ``search_spaces/replay.toml`` or the
            published ones.
    """
    return Request(
        **request.places,
        gym=request.gym,
        backbones=request.backbones[:1],
        methods=request.methods,
        precision=request.precision,
        options=request.options,
        searched=None if searched is None else request.results,
        searched_on=None if searched is None else request.backbones[0],
        study=searched,
        train_seed=request.train_seed,
        smoke=request.smoke,
        allow_missing=request.allow_missing,
    )


def replay_stages(
    request: WholeRequest, searched: str | None, tuner: Tuner | None = None
) -> Replays:
    """Return the stages after the search.

    Raises:
        UsageError: something named is unknown, or the search knows no best point of some method.
        DataError: few-shot files are missing; all are listed.
    """
    replay = replay_request(request, searched)
    stages: list[Stage] = []
    rankings: tuple[Ranking, ...] = ()
    notes, seen = dict[str, None](), dict[TrialSpec, None]()
    for name, kind in STAGES.items():
        if kind.plan is None or not request.has(name):
            continue
        if name == "similarity" and not has_similarity(request):
            notes |= {f"{name}: left out, it is of {METHOD}, which --methods does not name": None}
            continue
        part = kind.plan(replay, request, tuner)
        notes |= dict.fromkeys(part.notes)
        rankings = part.rankings if isinstance(part, Pilot) else rankings
        new = [trial for trial in part.job.trials if trial not in seen]
        seen |= dict.fromkeys(new)
        stages.append(Stage(name=name, trials=tuple(new)))
    return Replays(stages=tuple(stages), notes=tuple(notes), rankings=rankings)


def has_similarity(request: WholeRequest) -> bool:
    """Return whether tables of similarity are asked for; they are of `METHOD` alone."""
    return request.has("similarity") and (not request.methods or METHOD in request.methods)


def job_of(stages: Sequence[Stage], request: WholeRequest, title: str) -> SearchJob:
    """Return the job that computes some stages."""
    return SearchJob(
        trials=tuple(trial for stage in stages for trial in stage.trials),
        **request.places,
        title=title,
    )
