"""What earlier sessions have suggested, read from the database and not changed."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from mpt.errors import MptError
from mpt.keys import digest

if TYPE_CHECKING:
    import optuna

    from mpt.search.job import Suggestions
    from mpt.store.database import Database
    from mpt.study.spaces import Space
    from mpt.study.specs import TrialSpec
    from mpt.study.study import OpenStudy


def study_name(suggestions: Suggestions) -> str:
    """Return the name of the Optuna study: readable, and one for what suggestions depend on."""
    space = suggestions.space
    domains = [[d.name, d.values, d.low, d.high, d.scale] for d in space.domains]
    parts = [space.method, domains, dict(space.fixed), dict(space.first)]
    plan = dataclasses.asdict(suggestions.plan)
    mark = digest(["tpe", *parts, plan, suggestions.seed])[:8]
    return f"{space.method} on {suggestions.plan.config.partition} ({space.name}, {mark})"


def suggested_before(suggestions: Suggestions, database: Database) -> list[dict[str, Any]]:
    """Return the settings that earlier sessions suggested; see `suggested_points`."""
    if not database.has_table("studies"):  # nothing of Optuna's is there, and none is made
        return []
    import optuna

    name = study_name(suggestions)
    if name not in optuna.study.get_all_study_names(storage=database.url):
        return []
    return suggested_points(open_optuna_study(name, database.url), suggestions.space)


def suggested_points(
    study: optuna.Study, space: Space, *states: optuna.trial.TrialState
) -> list[dict[str, Any]]:
    """Return the settings that an Optuna study has suggested, in order, each once.

    Trials that only served to draw a suggestion, or are not of the space, are left out.

    Those of trials in some `states`; none: all.
    """
    domains = {domain.name: domain for domain in space.domains}
    points: list[dict[str, Any]] = []
    for trial in study.get_trials(deepcopy=False, states=states or None):
        point = dict(trial.params)
        if trial.user_attrs.get("tried") and set(point) == set(domains) and point not in points:
            points += [point] if all(domains[name].holds(point[name]) for name in point) else []
    return points


def on_record(suggestions: Suggestions, study: OpenStudy, database: Database) -> list[TrialSpec]:
    """Return the trials of a search's space that have a point in its study, the oldest first."""
    from mpt.study.record import study_record
    from mpt.trial.runs import upstream_key

    space = suggestions.space
    by_upstream: dict[str, TrialSpec] = {}
    for point in database.points(study_record(study).key):
        if point.upstream in by_upstream or point.method != space.method:
            continue
        values = {**point.settings, **dict(point.settings.get("extra") or ())}
        settings = {domain.name: values.get(domain.name) for domain in space.domains}
        with contextlib.suppress(MptError, TypeError, ValueError):  # not one of this space
            spec = suggestions.trial(settings)
            if upstream_key(study, spec.upstream.config) == point.upstream:
                by_upstream[point.upstream] = spec
    return list(by_upstream.values())


def open_optuna_study(name: str, storage: str | None) -> optuna.Study:
    """Open or make an Optuna study; quiet."""
    import optuna

    logging.getLogger("optuna").setLevel(logging.WARNING)
    return optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True
    )
