"""What happens where several records claim one place: each is shown by itself, none is lost.

- Points of one trajectory at different steps are *rungs*; of target cells the one with most steps
  stands in the tables, the others serve comparisons at equal budget.
- Studies of one protocol that claim a place (the data or the weights have changed between them)
  are *editions*: each has rows or columns of its own, named by its id.
- Target cells of one study and method with several settings: the newest keeps the place, the
  others are rows of their own, named by the first digits of their point.

Points that differ in the upstream seed alone are one cell before (`upstream_seeds`). Nothing else
is mixed or averaged, and notes name every such case.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mpt.keys import flat
from mpt.store.records import StudyRecord
from mpt.study.choice import DIGITS

from .cells import Cell, Place
from .protocols import data_differences, shortened


def with_editions(cells: Sequence[Cell], notes: list[str]) -> list[Cell]:
    """Return the cells; where several studies claim a place, their places name the study."""
    claims: dict[Place, dict[str, StudyRecord]] = {}
    for cell in cells:
        claims.setdefault(_column(cell), {})[cell.study.key] = cell.study
    for cell_place, studies in claims.items():
        first, *others = studies.values()
        notes += [
            f"{cell_place.partition} ({cell_place.backbone}; {cell_place.role}): studies "
            f"{first.id} and {other.id} differ in {data_differences(first, other)}; each is shown "
            "by itself"
            for other in others
        ]
    return [
        dataclasses.replace(cell, place=dataclasses.replace(cell.place, edition=cell.study.id))
        if len(claims[_column(cell)]) > 1
        else cell
        for cell in cells
    ]


def _column(cell: Cell) -> Place:
    return dataclasses.replace(cell.place, method="")


def with_settings(cells: Sequence[Cell], notes: list[str]) -> list[Cell]:
    """Return the cells; where a target cell has several settings, all but the newest say which."""
    groups: dict[Place, dict[str, list[Cell]]] = {}
    for cell in cells:
        if cell.place.role == "target":
            rungs = groups.setdefault(cell.place, {}).setdefault(cell.line, [])
            rungs.append(cell)
    renamed: dict[str, str] = {}
    for cell_place, trajectories in groups.items():
        ordered = sorted(trajectories.values(), key=_age)
        for older in ordered[:-1]:
            mark = max(older, key=lambda cell: cell.steps).key[:DIGITS]
            renamed |= {cell.key: f"{cell_place.method} [{mark}]" for cell in older}
            notes.append(
                f"{cell_place}: point {mark} is older, its settings are others ("
                f"{_other_settings(older[0], ordered[-1][0])}); it stands in a row of its own"
            )
    return [
        dataclasses.replace(cell, place=dataclasses.replace(cell.place, method=renamed[cell.key]))
        if cell.key in renamed
        else cell
        for cell in cells
    ]


def _age(rungs: Sequence[Cell]) -> tuple[str, str]:
    return max(one.point.created for cell in rungs for one in cell.points), rungs[0].line


def _other_settings(older: Cell, newer: Cell) -> str:
    old, new = flat(older.config), flat(newer.config)
    names = [n for n in {**old, **new} if n != "seed" and old.get(n) != new.get(n)]
    return shortened(f"{n} {old.get(n)} instead of {new.get(n)}" for n in names) or "a rerun"


def rungs_of(cells: Sequence[Cell]) -> tuple[list[Cell], dict[str, tuple[Cell, ...]]]:
    """Return the cells that tables show, and key of a cell → the rungs of its trajectory."""
    groups: dict[tuple[Place, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.place, cell.line), []).append(cell)
    tops: list[Cell] = []
    rungs: dict[str, tuple[Cell, ...]] = {}
    for (cell_place, _), group in groups.items():
        ordered = tuple(sorted(group, key=lambda cell: cell.steps))
        tops += ordered[-1:] if cell_place.role == "target" else ordered
        rungs |= {cell.key: ordered for cell in ordered}
    return tops, rungs


def data_notes(studies: Sequence[StudyRecord]) -> list[str]:
    """Say where studies that stand in one table differ in a task's data or in the weights."""
    first: dict[tuple[object, ...], tuple[StudyRecord, str]] = {}
    differences: dict[tuple[str, str], set[str]] = {}
    for study in (study for study in studies if study.role == "target"):
        facts: dict[tuple[object, ...], str] = {
            (study.target_shots, task, seed): sha for task, seed, sha in study.scored
        }
        facts[study.backbone,] = study.backbone_digest
        for fact, sha in facts.items():
            other, known = first.setdefault(fact, (study, sha))
            if known != sha:
                weights = len(fact) == 1
                what = f"the weights of {fact[0]}" if weights else f"the data of {fact[1]}"
                differences.setdefault((other.id, study.id), set()).add(what)
    return [
        f"studies {one} and {other} differ in {shortened(what)}"
        for (one, other), what in differences.items()
    ]
