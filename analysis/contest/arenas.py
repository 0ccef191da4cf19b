"""The confirmation of a contest as cells: arena → contestant → upstream seed.

An arena is a backbone, a partition and a number of downstream steps. Points that are not those of
the frozen settings are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mpt.config import DownstreamConfig
from mpt.errors import DataError, UsageError
from mpt.store.database import open_results
from mpt.study.choice import point_config
from mpt.study.contest.definition import REFERENCE
from mpt.study.contest.frozen import KIND, Frozen, read_frozen
from mpt.study.contest.part import WHOLE, ContestPart

from ..results.cells import Cell
from ..results.names import PARTITION_LABELS, partition_label, rank
from ..results.reading import read_results


@dataclass(frozen=True, kw_only=True, order=True)
class Arena:
    """Where contestants meet."""

    backbone: str
    tuning_steps: int
    """Downstream steps."""
    partition: str

    @property
    def label(self) -> str:
        """For tables and figures."""
        return f"{partition_label(self.partition)}, {self.backbone}, {self.tuning_steps} steps"


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What a database has of a confirmation."""

    frozen: Frozen
    arenas: Mapping[Arena, Mapping[str, Mapping[int, Cell]]]
    """Arena → contestant → upstream seed → cell, of the seeds that all contestants have everywhere
    (`seeds`); arenas in which a contestant has none are absent."""
    seeds: tuple[int, ...]
    missing: tuple[str, ...]
    """What is not there or diverged, one line each."""
    smoke: bool
    kept: bool
    """Whether the settings are those that the database kept when the confirmation began."""
    left_out: tuple[str, ...] = ()
    """How the results were restricted (`ContestPart`), one line each."""

    @property
    def contestants(self) -> list[str]:
        """Those that are in every arena, in the order of the frozen file."""
        return [n for n in self.frozen.entries if all(n in row for row in self.arenas.values())]

    @property
    def references(self) -> list[str]:
        """The contestants that are multitask learning."""
        entries = self.frozen.entries
        return [n for n in self.contestants if entries[n].upstream.config.method == REFERENCE]


def read_confirmed(
    results: Path, store: str | None, frozen: Path, part: ContestPart = WHOLE
) -> Confirmed:
    """Read a confirmation, or a part of it.

    Raises:
        UsageError: there is no such database or file, or no confirmatory point (of a part).
        DataError: they are broken, or no upstream seed is complete.
    """
    settings, cells = read_frozen(frozen), _cells(results, store)
    points = [
        (_arena(cell), name, cell)
        for cell in cells
        if (name := _contestant(cell, settings)) is not None
    ]
    if not points:
        raise UsageError(
            f"{results} holds no confirmatory point of {frozen}; run --stages confirm first"
        )
    left_out = part.told(
        backbones={arena.backbone for arena, _, _ in points},
        tuning_steps={arena.tuning_steps for arena, _, _ in points},
        partitions={arena.partition for arena, _, _ in points},
        upstream_seeds={cell.upstream_seed for _, _, cell in points},
        contestants={name for _, name, _ in points},
    )
    by_arena: dict[Arena, dict[str, dict[int, Cell]]] = {}
    for arena, name, cell in points:
        if _takes(part, arena, name, cell):
            by_arena.setdefault(arena, {}).setdefault(name, {})[cell.upstream_seed] = cell
    if not by_arena:
        raise UsageError(
            f"{results} holds no confirmatory point of this part ({'; '.join(left_out)}); ask for "
            "more, or run --stages confirm first"
        )
    names = [n for n in settings.entries if any(n in row for row in by_arena.values())]
    if not any(settings.entries[n].upstream.config.method == REFERENCE for n in names):
        raise UsageError(
            f"contestants are {', '.join(names)}, but one must be {REFERENCE}, which all others "
            "are compared with; name it with --contestants, or run --stages confirm first"
        )
    seeds, missing = _complete(by_arena, names)
    if not seeds:
        raise DataError(
            f"{results}: no upstream seed is complete ({len(missing)} points are missing, the "
            f"first: {missing[0]}); run --stages confirm to its end"
        )
    places = sorted(by_arena, key=_order)
    return Confirmed(
        frozen=settings,
        arenas={
            arena: {name: {seed: by_arena[arena][name][seed] for seed in seeds} for name in names}
            for arena in places
        },
        seeds=seeds,
        missing=tuple(missing),
        smoke=any(cell.study.smoke for cell in cells),
        kept=_kept(results, store, frozen, settings),
        left_out=tuple(left_out),
    )


def _takes(part: ContestPart, arena: Arena, name: str, cell: Cell) -> bool:
    return part.takes(
        backbones=arena.backbone,
        tuning_steps=arena.tuning_steps,
        partitions=arena.partition,
        upstream_seeds=cell.upstream_seed,
        contestants=name,
    )


def _order(arena: Arena) -> tuple[str, int, tuple[int, str]]:
    return arena.backbone, arena.tuning_steps, rank(arena.partition, PARTITION_LABELS)


def _complete(
    by_arena: Mapping[Arena, Mapping[str, Mapping[int, Cell]]], names: Sequence[str]
) -> tuple[tuple[int, ...], list[str]]:
    """Return the upstream seeds that all have everywhere, and what the others lack."""
    every = {seed for row in by_arena.values() for own in row.values() for seed in own}
    missing, broken = [], set()
    for arena, row in by_arena.items():
        for name in names:
            own = row.get(name, {})
            for seed in sorted(every):
                status = own[seed].status if seed in own else "missing"
                if status != "ok":
                    missing.append(f"{name} on {arena.label}, upstream seed {seed}: {status}")
                    broken.add(seed)
    return tuple(sorted(every - broken)), missing


def _cells(results: Path, store: str | None) -> Sequence[Cell]:
    sections = read_results(results, store=store, averaged=False).sections
    return [c for section in sections for c in section.every_rung if c.place.role == "target"]


def _contestant(cell: Cell, frozen: Frozen) -> str | None:
    if cell.steps == 0:
        return None
    config = replace(point_config(cell.point), seed=None)
    own = (config, cell.steps, _downstream(cell, "start"), _downstream(cell, "race_steps"))
    for name, entry in frozen.entries.items():
        frozen_as = (entry.upstream.config, *entry.upstream.rungs, entry.start, entry.race_steps)
        if frozen_as == own:
            return name
    return None


def _arena(cell: Cell) -> Arena:
    return Arena(
        backbone=cell.place.backbone,
        tuning_steps=int(str(_downstream(cell, "steps"))),
        partition=cell.place.partition,
    )


def _downstream(cell: Cell, name: str) -> object:
    """Return a downstream setting of a cell's study, whose record has what is not the default."""
    own = cell.study.settings.get("downstream", {})
    return own.get(name, getattr(DownstreamConfig(), name))


def _kept(results: Path, store: str | None, path: Path, frozen: Frozen) -> bool:
    with open_results(results, store, read_only=True) as database:
        kept = database.documents(KIND, frozen.contest).get(frozen.contest)
    return kept is not None and kept["text"] == path.read_text(encoding="utf-8")
