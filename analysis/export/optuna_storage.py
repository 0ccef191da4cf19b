"""Searches as studies of Optuna: one a study and method, one trial a point.

A trial has the searched settings as parameters, the ARG on the validation tasks as its value (to
be maximised), and the ARGs of its trajectory's rungs up to its own steps as intermediate values.
A point that was stopped is pruned; one that diverged, or misses a run, has failed and says why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.errors import DataError, UsageError

from ..results.cells import Cell
from ..results.reading import read_results
from ..tables.lookup import Lookup
from ..tables.searches import searched_settings
from .file import Exported, new_path

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SQLITE, JOURNAL = (".db", ".sqlite"), (".log", ".journal")
_LOG_FROM = 10.0
"""A range this many times its lower end is searched by its logarithm."""


def export_optuna(
    results: Path, out: Path, *, store: str | None = None, study: str | None = None
) -> Exported:
    """Write every search of a database into a new Optuna storage.

    Args:
        results: results directory, only read.
        out: a new file: SQLite (.db, .sqlite) or a journal (.log, .journal).
        store: URL of the database; None: the one in `results`.
        study: first eight digits or more of the only study or protocol; None: all.

    Raises:
        UsageError: `results` is absent, or `out` exists or has another ending.
        DataError: no point of a search is recorded.
    """
    if out.suffix not in SQLITE + JOURNAL:
        raise UsageError(
            f"--out is {str(out)!r}, but must end in {', '.join(SQLITE)} (SQLite) or "
            f"{', '.join(JOURNAL)} (journal)"
        )
    recorded = read_results(results, store=store, study=study, averaged=False)
    looks = [Lookup(section) for section in recorded.sections]
    groups = [(look, one.cells) for look in looks for one in look.section.searches]
    if not groups:
        raise DataError(f"{results}: holds no point of a search, so there is no trial to export")
    with new_path(out) as path, _storage(path) as storage:
        for look, cells in groups:
            _add_study(storage, look, cells)
    count = sum(len(cells) for _, cells in groups)
    return Exported(path=out, count=count, what="trials", problems=recorded.problems)


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[BaseStorage]:
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)  # it reports every study on stderr
    try:
        if path.suffix in JOURNAL:
            yield JournalStorage(JournalFileBackend(str(path)))
            return
        storage = RDBStorage(f"sqlite:///{path}")
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()
    finally:
        optuna.logging.set_verbosity(before)


def _add_study(storage: BaseStorage, look: Lookup, cells: Sequence[Cell]) -> None:
    import optuna

    search_place, ours = dataclasses.replace(cells[0].place, edition=""), cells[0].study
    name = f"{search_place}, study {ours.id}"
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    for field in ("method", "partition", "backbone", "gym", "role"):
        study.set_user_attr(field, getattr(search_place, field))
    for field in ("key", "protocol", "smoke", "partial", "code"):
        study.set_user_attr(field, getattr(ours, field))
    study.set_user_attr("value", "ARG in % over prompt tuning, on the validation tasks")
    distributions = distributions_of(cells)
    for cell in cells:
        study.add_trial(_trial(look, cell, distributions))


def distributions_of(cells: Sequence[Cell]) -> dict[str, BaseDistribution]:
    """Return the range or the choices that the points of a search span, by searched setting."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    spans: dict[str, BaseDistribution] = {}
    for name in [*searched_settings(cells), "steps"]:
        values = [_setting(cell, name) for cell in cells]
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) < len(values):
            spans[name] = CategoricalDistribution(sorted(set(values), key=repr))
            continue
        low, high = min(numbers), max(numbers)
        log = low > 0 and high / low >= _LOG_FROM
        if all(isinstance(value, int) for value in numbers):
            spans[name] = IntDistribution(int(low), int(high), log=log)
        else:
            spans[name] = FloatDistribution(float(low), float(high), log=log)
    return spans


def _setting(cell: Cell, name: str) -> Any:
    return cell.steps if name == "steps" else cell.config.get(name)


def _trial(look: Lookup, cell: Cell, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    value = look.rank_value(cell)
    scores = {rung.steps: look.rank_value(rung) for rung in look.section.rungs[cell.key]}
    state = TrialState.COMPLETE if value is not None else TrialState.FAIL
    if cell.status == "stopped":
        state = TrialState.PRUNED
    done, of = cell.counts
    attributes: dict[str, Any] = {
        "point": cell.key,
        "trajectory": cell.trajectory,
        "status": cell.status,
        "note": cell.note,
        "runs": f"{done}/{of}",
        "cost": dict(cell.cost),
        "commit": cell.point.provenance.get("commit"),
    }
    summary = look.summary(cell)
    if summary is not None:
        attributes |= {"low": summary.gain.low, "high": summary.gain.high}
        attributes["missing"] = list(summary.gain.reasons)
    return create_trial(
        state=state,
        value=value if state == TrialState.COMPLETE else None,
        params={name: _setting(cell, name) for name in distributions},
        distributions=dict(distributions),
        user_attrs=attributes,
        intermediate_values={
            steps: score
            for steps, score in scores.items()
            if score is not None and steps <= cell.steps
        },
    )
