"""A database of results as typed cells: what was run, and the scores that the recipe takes.

    studies of one protocol → Section(cells)        point of a study → Cell(place, tasks, baseline)

The baseline of a cell are the runs of its study's point of plain prompt tuning. Per (task, data
seed) the run with the best dev score is taken and equal dev scores keep the earlier learning rate
(`mpt.metrics.relative_gain`). A (task, data seed) one of whose runs is missing has no score: it is
missing, never 0. What does not fit its checksum is named and left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mpt.errors import DataError
from mpt.store.database import Database, open_results
from mpt.store.doctor import check
from mpt.store.records import BASELINE, DRIVER, Point, Run, Stop, StudyRecord, point_key
from mpt.study.choice import DIGITS, chosen

from .cells import OWN, Cell, Place
from .editions import data_notes, rungs_of, with_editions, with_settings
from .protocols import differences, group_id, group_of
from .samples import RunTable
from .sections import PAIRS, RANKING, Results, Section, gym_name
from .upstream_seeds import with_priors, with_replicates

_BROKEN = re.compile(r"(?:run|point|study) ([0-9a-f]{8})\b")
"""How a line of the doctor begins that is about a run, point or study: with its id."""
_EMPTY = "has no points"
"""What a line of the doctor says about a study that is only begun, which is nothing broken."""


def read_results(
    results: Path, *, store: str | None = None, study: str | None = None, averaged: bool = True
) -> Results:
    """Read every point with its runs; nothing is written.

    Args:
        results: results directory.
        store: URL of its database; None: the one inside it.
        study: only this study or protocol: its first eight digits or more.
        averaged: take points that differ in the upstream seed alone as one cell.

    Raises:
        UsageError: there is no such database or study.
        DataError: it is no database of this program, or holds no point of a method.
    """
    with open_results(results, store, read_only=True) as database:
        records = _records(database, study, averaged=averaged)
    groups: dict[tuple[str, bool], list[StudyRecord]] = {}
    for one, points in records.studies:
        if any(point.method != BASELINE for point in points):
            groups.setdefault(group_of(one), []).append(one)
    if not groups:
        raise DataError(f"{results}: holds no point of a method; run a search into it first")
    words = differences([group[0] for group in groups.values()])
    read = partial(_runs, results, store)
    sections = [
        _section(group, records, said, read)
        for group, said in zip(groups.values(), words, strict=True)
    ]
    return Results(
        root=results,
        sections=tuple(sorted(sections, key=_importance)),
        problems=(*records.problems, *records.runs.problems),
    )


@dataclass(frozen=True, kw_only=True)
class _Records:
    """What is read of a database, apart from what is broken."""

    studies: tuple[tuple[StudyRecord, list[Point]], ...]
    """Those asked for, with their points."""
    runs: RunTable
    stops: Mapping[str, Stop]
    """Key of a point → why its trial was not carried on from there."""
    documents: Mapping[str, Sequence[Mapping[str, Any]]]
    problems: Sequence[str]
    averaged: bool
    """Whether points that differ in the upstream seed alone are one cell."""


def _records(database: Database, study: str | None, *, averaged: bool) -> _Records:
    problems = [line for line in check(database, storage=False) if _EMPTY not in line]
    broken = {match[1] for line in problems if (match := _BROKEN.match(line))}
    studies = chosen([one for one in database.studies() if one.id not in broken], study)
    points: dict[str, list[Point]] = {one.key: [] for one in studies}
    recorded = [
        point
        for point in database.points()
        if point.study in points and point.key[:DIGITS] not in broken
    ]
    rows = database.score_rows([point.key for point in recorded])
    known = {row.point for row in rows}
    for point in recorded:
        if point.key in known or not point.runs:  # one that was edited has lost its key
            points[point.study].append(point)
    return _Records(
        studies=tuple((one, points[one.key]) for one in studies),
        runs=RunTable(row for row in rows if row.run[:DIGITS] not in broken),
        stops={stop.point: stop for stop in database.stops()},
        documents={kind: _documents(database, kind) for kind in (PAIRS, RANKING, DRIVER)},
        problems=problems,
        averaged=averaged,
    )


def _documents(database: Database, kind: str) -> list[Mapping[str, Any]]:
    """Return the documents of a kind; none if one was changed, which the doctor has said."""
    try:
        return list(database.documents(kind).values())
    except DataError:
        return []


def _runs(results: Path, store: str | None, keys: Collection[str]) -> dict[str, Run]:
    """Read runs by key; the database is open for this call only."""
    with open_results(results, store, read_only=True) as database:
        return database.runs(keys)


def _section(
    studies: Sequence[StudyRecord],
    records: _Records,
    words: str,
    read: Callable[[Collection[str]], Mapping[str, Run]],
) -> Section:
    notes = data_notes(studies)
    own = [(study, points) for study, points in records.studies if study in studies]
    every = [cell for study, points in own for cell in _cells(study, points, records)]
    every = with_editions(every, notes)
    if records.averaged:
        every = with_priors(with_replicates(every))
    tops, rungs = rungs_of(with_settings(every, notes))
    trials = {(study.key, point.upstream) for study, points in own for point in points}
    return Section(
        id=group_id(studies[0]),
        differs=words,
        studies=tuple(studies),
        cells=tuple(sorted(tops, key=lambda cell: (cell.place, cell.line, cell.steps))),
        rungs=rungs,
        notes=tuple(notes),
        stops=tuple(
            stop
            for stop in records.stops.values()
            if any(stop.point == point_key(*trial, stop.steps) for trial in trials)
        ),
        documents={
            kind: tuple(body for body in bodies if _fits(body, studies[0]))
            for kind, bodies in records.documents.items()
            if kind != DRIVER
        },
        drivers=tuple(
            note
            for note in sorted(records.documents[DRIVER], key=lambda one: str(one.get("updated")))
            if {study.key for study in studies} & set(note.get("studies", ()))
        )[::-1],
        runs=read,
    )


def _cells(study: StudyRecord, points: Sequence[Point], records: _Records) -> list[Cell]:
    """Return the cells of a study: one a point but for that of its baseline."""
    own = next((point for point in points if point.method == BASELINE), None)
    baseline = own, records.runs.samples(own, study)
    baseline_place = Place(
        role=study.role,
        backbone=study.backbone,
        gym=gym_name(study.gym),
        partition=study.partition,
        method=BASELINE,
        source_set=study.source_set,
        source_shots=_shots(study.source_shots),
        target_shots=_shots(study.target_shots),
    )
    return [
        records.runs.cell(point, baseline_place, study, baseline, records.stops.get(point.key))
        for point in points
        if point.method != BASELINE
    ]


def _shots(value: int | str | None) -> str:
    return OWN if value is None else str(value)


def _fits(document: Mapping[str, Any], study: StudyRecord) -> bool:
    smoke = document.get("smoke", study.smoke)
    return (gym_name(document["gym"]), smoke) == (gym_name(study.gym), study.smoke)


def _importance(section: Section) -> tuple[bool, bool, int, int, str]:
    targets = len(section.select(role="target"))
    partial = section.studies[0].partial is not None
    return section.smoke, partial, -targets, -len(section.cells), section.id
