"""The best settings that searches have found, read from the database of a results directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.config import PromptConfig
from mpt.errors import UsageError
from mpt.keys import digest
from mpt.replay.epochs import epoch_steps, searched_epochs
from mpt.store.database import open_results
from mpt.study.choice import chosen, listed, only_protocol, point_config
from mpt.study.replaced import REPLACED, replaced_text
from mpt.study.specs import BASELINES, UpstreamSpec
from mpt.trial.score import BAD_SCORE
from mpt.trial.store import TrialStore
from mpt.words import counted

if TYPE_CHECKING:
    from mpt.store.database import Database
    from mpt.store.records import Point, StudyRecord
    from mpt.study.study import StudyPlan
    from mpt.trial.score import PointScore

COMMON = "random_to_random"
"""The setting whose best point serves those that were not searched, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """Where best points are looked for."""

    results: Path
    """Results directory of one or more searches; nothing is written."""
    store: str | None = None
    """URL of their database; None: the one in the directory."""
    study: str | None = None
    """First digits of the study or protocol; None: there must be only one that fits."""
    backbone: str | None = None
    """Backbone whose best points serve those that were not searched, as T5-large's serve all in
    the paper; None: there is no such one."""
    smoke: bool = False
    """Take points of smoke runs where there are some."""
    partial: bool = False
    """Take points of searches that left tasks out where there are no others."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """A setting to be replayed, and where it is from."""

    upstream: UpstreamSpec
    """With one rung."""
    origin: str
    """For people."""


@dataclass(frozen=True)
class Choice:
    """A configuration at a rung, with its scores under different upstream seeds."""

    replicates: tuple[tuple[PointScore, Point], ...]

    @property
    def arg(self) -> float:
        """Mean ARG over upstream seeds, in %."""
        return sum(score.score for score, _ in self.replicates) / len(self.replicates)

    @property
    def point(self) -> Point:
        """One of its points: it has the settings."""
        return self.replicates[0][1]

    @property
    def text(self) -> str:
        """ARG for people: its interval with one upstream seed, the number of seeds with more."""
        if len(self.replicates) > 1:
            return f"ARG {self.arg:+.2f} (mean of {len(self.replicates)} upstream seeds)"
        gain = self.replicates[0][0].gain
        if gain is None or gain.low is None or gain.high is None:
            return f"ARG {self.arg:+.2f}"
        return f"ARG {self.arg:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"


@dataclass
class _Search:
    """The scored points of one method in one study."""

    study: StudyRecord
    points: list[tuple[PointScore, Point]] = field(default_factory=list)
    epochs: Mapping[str, int] | None = None
    """Point → epochs (`searched_epochs`); None: not looked at yet."""

    @property
    def best(self) -> Choice:
        """The configuration with the highest mean over upstream seeds, of those with the most.

        A race gives more seeds to what may be the best, and fresh ones to the best alone, so this
        is what the search has chosen. Of equal ones it is the one with the first key.
        """
        replicates: dict[str, list[tuple[PointScore, Point]]] = {}
        for score, point in sorted(self.points, key=lambda one: one[1].key):
            settings = {**point.settings, "seed": None}
            replicates.setdefault(digest([settings, point.steps]), []).append((score, point))
        most = max(map(len, replicates.values()))
        choices = [Choice(tuple(of)) for of in replicates.values() if len(of) == most]
        return max(choices, key=lambda one: one.arg)


class BestPoints:
    """The best points of searches, each within one study.

    A point counts if it is of a search (its scored tasks are validation tasks), on all source
    tasks at their own sample size, and has an ARG. Points of smoke runs and of searches that left
    tasks out count only where `Searched` says so.

    Raises:
        UsageError: there are no results, or `Searched.study` is none of their studies.
        DataError: the database is broken.
    """

    def __init__(self, searched: Searched) -> None:
        self._searched = searched
        if searched.store is None and not searched.results.is_dir():
            raise UsageError(
                f"--from is {str(searched.results)!r}, but must be the results directory of a "
                "search; run one first, or leave --from out"
            )
        self._searches: list[_Search] = []
        self._left_out: dict[str, StudyRecord] = {}
        with open_results(searched.results, searched.store, read_only=True) as database:
            self.name = str(searched.results) if searched.store is None else database.name
            """Where the points are from, for messages."""
            self._read(database)

    def _read(self, database: Database) -> None:
        studies = [one for one in database.studies() if _is_search(one)]
        store = TrialStore(database)
        for study in chosen(studies, self._searched.study):
            points = database.points(study.key)
            scores = store.scores([point.key for point in points])
            by_method: dict[str, _Search] = {}
            for point in points:
                score = scores.get(point.key)
                # these are never searched: fine-tuning's settings are of replay.toml or a recipe
                own = point.method not in BASELINES
                if own and score is not None and score.score > BAD_SCORE:
                    entry = by_method.setdefault(point.method, _Search(study))
                    entry.points.append((score, point))
            self._searches += by_method.values()

    def best(self, method: str, plan: StudyPlan) -> Best | None:
        """Return the best point of a method for a study; None if there is none.

        That is the best one of the study's own partition if it was searched, and else that of
        random_to_random; on its own backbone, and else on `Searched.backbone`.

        Raises:
            UsageError: several studies fit, which cannot be compared; all are listed.
            DataError: its settings are not those of this program.
        """
        own, other = plan.config.backbone, self._searched.backbone
        for backbone in dict.fromkeys((own, other)):
            fitting = self._fitting(method, backbone)
            what = f"{method} on {backbone}"
            only_protocol([one.study for one in fitting], f"--from {self.name}", what)
            for partition in (plan.config.partition, COMMON):
                for search in fitting:
                    if search.study.partition == partition:
                        return self._taken(search, plan)
        return None

    @property
    def left_out(self) -> str:
        """Which searches were asked for and do not count, for messages; empty if there is none."""
        return listed(list(self._left_out.values()))

    def _fitting(self, method: str, backbone: str | None) -> list[_Search]:
        """Return the searches of a method on a backbone: the first kind of which there are any."""
        searches = [
            one
            for one in self._searches
            if one.points[0][1].method == method and one.study.backbone == backbone
        ]
        smoke = [one for one in searches if one.study.smoke]
        whole = [one for one in searches if one.study.partial is None]
        partial = [
            one for one in searches if one.study.partial is not None and not one.study.smoke
        ]
        kinds = [
            *([smoke] if self._searched.smoke else []),
            whole,
            *([partial] if self._searched.partial or self._searched.smoke else []),
        ]
        taken = next((kind for kind in kinds if kind), [])
        if not taken:
            self._left_out |= {one.study.key: one.study for one in searches}
        return taken

    def _taken(self, search: _Search, plan: StudyPlan) -> Best:
        choice = search.best
        point = choice.point
        config = dataclasses.replace(point_config(point), seed=None)
        if search.epochs is None:
            search.epochs = searched_epochs(search.study, [one for _, one in search.points])
        epochs = search.epochs.get(point.key)
        steps = point.steps if epochs is None else epoch_steps(epochs, config.batch_size, plan)
        return Best(
            upstream=UpstreamSpec(config=config, rungs=(steps,)),
            origin="; ".join(self._origin(search, choice, epochs, plan)),
        )

    def _origin(
        self, search: _Search, choice: Choice, epochs: int | None, plan: StudyPlan
    ) -> Iterable[str]:
        study = search.study
        yield (
            f"best of {counted(len(search.points), 'point')} on {study.partition} in "
            f"{self.name}, study {study.id}, {choice.text}"
        )
        if epochs is not None:
            yield f"searched in epochs, replayed for {epochs}"
        if study.partial is not None:
            yield study.partial
        if REPLACED in study.settings:
            yield f"searched with {replaced_text(study.settings[REPLACED])}"
        if study.backbone != plan.config.backbone:
            yield f"searched on {study.backbone}"
        length = dict(study.settings.get("prompt", {})).get("length", PromptConfig().length)
        replayed = plan.config.prompt.length
        if length != replayed:
            yield f"searched with {length} prompt tokens, replayed with {replayed}"


def _is_search(study: StudyRecord) -> bool:
    return (
        study.role == "validation"
        and study.source_set == "all"
        and study.source_shots is None
        and study.target_shots is None
    )
