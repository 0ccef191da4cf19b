"""Which of several records of one thing counts, and when two of them contradict each other.

- Records of one trajectory at different steps are *rungs*; of target cells the one with most steps
  stands in the tables, the others serve comparisons at equal budget.
- A record that left tasks out ("partial") gives way to one that did not, with a note.
- Everything else is contradictory, and an error that names both records.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpt.errors import DataError

from .cells import Cell, Place

FIELDS_SHOWN = 4
"""Differing settings that an error about two records names."""


def without_superseded(cells: Sequence[Cell], results: Path, notes: list[str]) -> list[Cell]:
    """Return the cells without the partial ones that a whole one replaces.

    Raises:
        DataError: two records contradict each other.
    """
    gone: set[str] = set()
    groups: dict[Place, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.place, []).append(cell)
    for group in groups.values():
        for one, other in itertools.combinations(group, 2):
            if not _same_thing(one, other):
                continue
            if (one.partial is None) == (other.partial is None):
                raise DataError(_contradiction(one, other, results))
            loser, winner = (one, other) if one.partial is not None else (other, one)
            gone.add(loser.key)
            notes.append(
                f"{loser.place}: point {loser.key[:12]} ({loser.partial}) gives way to the whole "
                f"point {winner.key[:12]}"
            )
    return [cell for cell in cells if cell.key not in gone]


def _same_thing(one: Cell, other: Cell) -> bool:
    """Return whether two records of one place claim to be the same result."""
    if one.trajectory == other.trajectory:
        if one.trajectory is not None and one.steps != other.steps:
            return False  # rungs
    elif one.place.role != "target":
        return False  # two settings of a search
    # pilots of different target tasks share a place
    return not one.tasks or not other.tasks or bool(set(one.tasks) & set(other.tasks))


def _contradiction(one: Cell, other: Cell, results: Path) -> str:
    left, right = (
        flat({"config": c.config, **c.identity, "steps": c.steps}) for c in (one, other)
    )
    names = [name for name in sorted({*left, *right}) if left.get(name) != right.get(name)]
    shown = ", ".join(
        f"{name} ({_short(left.get(name))} and {_short(right.get(name))})"
        for name in names[:FIELDS_SHOWN]
    )
    more = f" and {len(names) - FIELDS_SHOWN} more" if len(names) > FIELDS_SHOWN else ""
    paths = " and ".join(str(results / "points" / f"{cell.key}.json") for cell in (one, other))
    return (
        f"{paths}: both are {one.place}, but differ in {shown}{more}; move one of them out of "
        "points/"
    )


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level: {"a": {"b": 1}} → {"a.b": 1}."""
    found: dict[str, Any] = {}
    for name, part in value.items():
        if isinstance(part, Mapping):
            found |= flat(part, f"{prefix}{name}.")
        else:
            found[prefix + name] = part
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:21]}…"


def rungs_of(cells: Sequence[Cell]) -> tuple[list[Cell], dict[str, tuple[Cell, ...]]]:
    """Return the cells that tables show, and key of a cell → the rungs of its trajectory."""
    groups: dict[tuple[Place, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.place, cell.trajectory or cell.key), []).append(cell)
    tops: list[Cell] = []
    rungs: dict[str, tuple[Cell, ...]] = {}
    for (place, _), group in groups.items():
        ordered = tuple(sorted(group, key=lambda cell: cell.steps))
        last = ordered[-1].steps
        tops += [cell for cell in ordered if place.role != "target" or cell.steps == last]
        rungs |= {cell.key: ordered for cell in ordered}
    return tops, rungs


def baseline_notes(cells: Sequence[Cell]) -> list[str]:
    """Say where cells that stand in one table are compared with different baselines."""
    first: dict[tuple[str, ...], tuple[Cell, tuple[str, ...]]] = {}
    notes: dict[str, None] = {}
    for cell in cells:
        if cell.place.role != "target":
            continue
        for task, row in cell.baseline.items():
            for seed, sample in row.items():
                keys = tuple(key for _, key in sample.keys)
                at = (
                    cell.place.backbone,
                    cell.place.gym,
                    cell.place.target_shots,
                    task,
                    str(seed),
                )
                other, seen = first.setdefault(at, (cell, keys))
                if seen != keys:
                    notes[f"{task}: {other.place} and {cell.place} have different baselines"] = (
                        None
                    )
    return list(notes)
