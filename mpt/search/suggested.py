"""What Optuna has suggested in earlier sessions, read from the database and not changed."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from mpt.store.keys import digest

if TYPE_CHECKING:
    import optuna

    from mpt.search.job import Suggestions
    from mpt.store.database import Database


def study_name(suggestions: Suggestions) -> str:
    """Return the name of the Optuna study: readable, and one for what suggestions depend on."""
    space = suggestions.space
    domains = [[d.name, d.values, d.low, d.high, d.scale] for d in space.domains]
    parts = [space.method, domains, dict(space.fixed), dict(space.first)]
    plan = dataclasses.asdict(suggestions.plan)
    mark = digest(["tpe", *parts, plan, suggestions.seed])[:8]
    return f"{space.method} on {suggestions.plan.config.partition} ({space.name}, {mark})"


def suggested_before(suggestions: Suggestions, database: Database) -> list[dict[str, Any]]:
    """Return the settings that earlier sessions suggested, in order, each once.

    Trials that only served to draw a suggestion, or are not of the space, are left out.
    """
    if not database.has_table("studies"):  # nothing of Optuna's is there, and none is made
        return []
    import optuna

    name = study_name(suggestions)
    if name not in optuna.study.get_all_study_names(storage=database.url):
        return []
    domains = {domain.name: domain for domain in suggestions.space.domains}
    points: list[dict[str, Any]] = []
    for trial in open_optuna_study(name, database.url).get_trials(deepcopy=False):
        point = dict(trial.params)
        tried = trial.user_attrs.get("tried") and set(point) == set(domains)
        if tried and point not in points and all(domains[n].holds(v) for n, v in point.items()):
            points.append(point)
    return points


def open_optuna_study(name: str, storage: str | None) -> optuna.Study:
    """Open or make an Optuna study; quiet."""
    import optuna

    logging.getLogger("optuna").setLevel(logging.WARNING)
    return optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True
    )
