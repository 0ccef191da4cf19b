"""What may share a table, as values: sections of one protocol, and all that a database says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from mpt.store.records import Run, Stop, StudyRecord
from mpt.study.choice import DIGITS
from mpt.study.replaced import REPLACED, replaced_text

from .cells import Cell
from .searched import Searched

PAIRS, RANKING = "similarity_pairs", "similarity_ranking"
"""Kinds of the documents that Tables 7 and 8 are made of."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The cells that may stand in one table: those of one protocol, whole or partial."""

    id: str
    """First digits of the protocol; with "-partial" of studies that left tasks out."""
    differs: str
    """What tells the section from the others, in words; empty if it is alone and ordinary."""
    studies: tuple[StudyRecord, ...]
    """At least one; all have the same protocol."""
    cells: tuple[Cell, ...]
    """One a place and setting; of target cells the rung with most steps."""
    rungs: Mapping[str, tuple[Cell, ...]]
    """Key of a cell → every recorded rung of its trajectory at its place, ascending, with it."""
    notes: tuple[str, ...]
    """What a reader must know about the choice of records."""
    stops: tuple[Stop, ...]
    """Trials of the section's searches that were stopped."""
    documents: Mapping[str, tuple[Mapping[str, Any], ...]]
    """Kind (`PAIRS`, `RANKING`) → documents of the section's gym and size."""
    drivers: tuple[Mapping[str, Any], ...]
    """What drivers have noted of the section's studies, the newest first."""
    runs: Callable[[Collection[str]], Mapping[str, Run]]
    """Reads runs by key, for what is not in a cell (curves)."""

    @property
    def gym(self) -> str:
        """Name of the gym."""
        return gym_name(self.studies[0].gym)

    @property
    def smoke(self) -> bool:
        """Whether its numbers mean nothing."""
        return self.studies[0].smoke

    @property
    def name(self) -> str:
        """Its only study or its protocol, by the id that ``--study`` takes."""
        only = len(self.studies) == 1
        return f"study {self.studies[0].id}" if only else f"protocol {self.id[:DIGITS]}"

    @property
    def label(self) -> str:
        """Name and marks, for titles."""
        first = self.studies[0]
        marks = ["smoke run"] * self.smoke + ["partial"] * (first.partial is not None)
        marks += [replaced_text(first.settings[REPLACED])] if REPLACED in first.settings else []
        return ", ".join([self.name, *marks])

    @property
    def every_rung(self) -> list[Cell]:
        """Its cells and the other rungs of their trajectories, each once."""
        rungs = {rung.key: rung for cell in self.cells for rung in self.rungs[cell.key]}
        return list(rungs.values())

    @cached_property
    def searches(self) -> tuple[Searched, ...]:
        """Its searches, one a study and method, in the order of their places."""
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.select(role="validation"):
            groups.setdefault((cell.study.key, cell.place.method), []).append(cell)
        return tuple(Searched(cells=tuple(own), drivers=self.drivers) for own in groups.values())

    def select(self, **fields: str) -> list[Cell]:
        """Return the cells whose place has these values, in the order of their places."""
        return [
            cell
            for cell in self.cells
            if all(getattr(cell.place, name) == value for name, value in fields.items())
        ]


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that a database says."""

    root: Path
    sections: tuple[Section, ...]
    """At least one; that with the most to show is the first, smoke sections are the last."""
    problems: tuple[str, ...]
    """What was found broken and ignored, one line each."""

    @property
    def main(self) -> Section:
        """The section with the most to show."""
        return self.sections[0]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of all sections."""
        return tuple(cell for section in self.sections for cell in section.cells)


def gym_name(gym: str) -> str:
    """Return the name of a gym: "embedded", or the last part of its folder."""
    return PurePath(gym).name
