"""A results directory as typed cells: what was run, and the scores that the recipe takes from it.

    point record → Cell(where, tasks: task → data seed → Sample, baseline: the same for plain PT)

Per (task, data seed) the run with the best dev score is taken and equal dev scores keep the
earlier learning rate (`mpt.metrics.relative_gain`). A (task, data seed) one of whose leaves is
missing has no score: it is missing, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpt.errors import DataError, UsageError
from mpt.metrics.relative_gain import Candidate, select_by_dev
from mpt.records import LeafStore, PointStore, Record

from .cells import COSTS, OWN, Cell, Place, Run, Sample, Samples
from .selection import baseline_notes, rungs_of, without_superseded


@dataclass(frozen=True, kw_only=True)
class Study:
    """All cells of a results directory."""

    results: Path
    cells: tuple[Cell, ...]
    """One a place and setting; of target cells the rung with most steps."""
    rungs: Mapping[str, tuple[Cell, ...]]
    """Key of a cell → every recorded rung of its trajectory at its place, ascending, with it."""
    problems: tuple[str, ...]
    """Files that were found broken and ignored, one line each."""
    notes: tuple[str, ...]
    """What a reader must know about the selection of records."""
    leaves: LeafStore
    """The leaves by key, for what is not in a cell (curves)."""

    def select(self, **fields: str) -> list[Cell]:
        """Return the cells whose place has these values, in the order of their places."""
        return [
            cell
            for cell in self.cells
            if all(getattr(cell.place, name) == value for name, value in fields.items())
        ]


def load_study(results: Path) -> Study:
    """Read every point of a results directory with its leaves; nothing is written.

    Raises:
        UsageError: there is no such directory.
        DataError: it holds no point record, or records that contradict each other.
    """
    if not results.is_dir():
        raise UsageError(f"results {str(results)!r} is not a directory; run a search first")
    leaves, points = LeafStore(results, read_only=True), PointStore(results, read_only=True)
    reader = _Reader(leaves)
    every = [reader.cell(record) for record in points.all()]
    problems = (*points.problems, *leaves.problems)
    if not every:
        more = f" ({problems[0]})" if problems else ""
        raise DataError(f"{results}: holds no point record{more}; run a search into it first")
    notes: list[str] = []
    kept = without_superseded(every, results, notes)
    tops, rungs = rungs_of(kept)
    notes += baseline_notes(tops)
    return Study(
        results=results,
        cells=tuple(
            sorted(tops, key=lambda cell: (cell.place, cell.trajectory or "", cell.steps))
        ),
        rungs=rungs,
        problems=problems,
        notes=tuple(notes),
        leaves=leaves,
    )


class _Reader:
    """Turns point records into cells; a leaf shared by cells is read once."""

    def __init__(self, store: LeafStore) -> None:
        self._store = store
        self._read: dict[str, Record | None] = {}

    def cell(self, record: Record) -> Cell:
        try:
            return self._cell(record)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"point {record['key']}: is no point record of this program "
                f"({type(error).__name__}: {error}); move it out of points/"
            ) from None

    def _cell(self, record: Record) -> Cell:
        identity = record["identity"]
        cost = record.get("cost") or {}
        origin = record.get("provenance") or {}
        return Cell(
            place=_place(record),
            key=record["key"],
            steps=int(record["steps"] or 0),
            trajectory=record.get("trajectory"),
            sources=record.get("sources"),
            source_tasks=tuple(map(str, record.get("source_tasks") or ())),
            config=record["config"] or {},
            identity=identity,
            prompt=record.get("prompt"),
            status=record["status"],
            note=record.get("note") or "",
            partial=record.get("partial"),
            cost={name: float(cost.get(name) or 0) for name in COSTS},
            devices=int(cost.get("devices") or 1),
            provenance=origin,
            tasks=self._samples(record, "leaves"),
            baseline=self._samples(record, "baseline"),
        )

    def _samples(self, record: Record, part: str) -> Samples:
        return {
            task: {
                int(seed): self._sample(record["key"], task, int(seed), lrs)
                for seed, lrs in seeds.items()
            }
            for task, seeds in record[part].items()
        }

    def _sample(
        self, point: str, task: str, seed: int, lrs: Sequence[tuple[float, str]]
    ) -> Sample:
        found = [self._leaf(point, task, seed, float(lr), key) for lr, key in lrs]
        there = [leaf for leaf in found if leaf is not None]
        taken, reason = None, None
        if len(there) < len(found):
            reason = f"{len(found) - len(there)} of {len(found)} leaves are missing"
        else:
            taken = _taken(there)
            reason = None if taken else "every run diverged"
        return Sample(
            keys=tuple((float(lr), key) for lr, key in lrs),
            there=len(there),
            taken=taken,
            reason=reason,
            cost={n: math.fsum(float(x["cost"].get(n) or 0) for x in there) for n in COSTS},
        )

    def _leaf(self, point: str, task: str, seed: int, lr: float, key: str) -> Record | None:
        if key not in self._read:
            self._read[key] = self._store.get(key)
        leaf = self._read[key]
        if leaf is None:
            return None
        stated = tuple(leaf["identity"].get(name) for name in ("task", "data_seed", "lr"))
        if stated != (task, seed, lr):
            raise DataError(
                f"point {point} names leaf {key} as {(task, seed, lr)}, but the leaf is of "
                f"{stated}; move the point out of points/"
            )
        return leaf


def _place(record: Record) -> Place:
    """Return the place of a record; records of older programs are points of a search."""
    return Place(
        role=record.get("role") or "validation",
        backbone=record.get("backbone") or f"digest {record['identity']['backbone'][:12]}",
        gym=record.get("gym") or "unknown",
        partition=record["partition"],
        method=record["method"],
        source_set=record.get("source_set") or "all",
        source_shots=_shots(record.get("source_shots")),
        target_shots=_shots(record.get("target_shots")),
    )


def _shots(value: int | str | None) -> str:
    return OWN if value is None else str(value)


def _taken(leaves: Sequence[Record]) -> Run | None:
    """Return the run that the recipe takes: best dev score, the earlier rate on ties."""
    candidates = [
        Candidate(
            lr=float(leaf["identity"]["lr"]), dev=_number(leaf, "dev"), test=_number(leaf, "test")
        )
        for leaf in leaves
    ]
    best = select_by_dev(candidates)
    if best is None:
        return None
    leaf = next(leaf for leaf, one in zip(leaves, candidates, strict=True) if one is best)
    identity = leaf["identity"]
    return Run(
        key=leaf["key"],
        lr=best.lr,
        dev=best.dev,
        test=best.test,
        data=str(identity.get("data", "")),
        metric=str(identity.get("metric", "")),
    )


def _number(leaf: Record, name: str) -> float:
    value = leaf["result"][name]
    return math.nan if value is None else float(value)
