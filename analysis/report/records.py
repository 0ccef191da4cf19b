"""The records behind a report's pages: read for them, and copied into the report if asked for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpt.store.records import Run

from ..results.cells import Cell, Samples
from ..results.sections import Section
from .cell_page import Sources, record_path


class RecordFiles:
    """The runs of a section's cells; those of a baseline are read once for cells in a row.

    Args:
        section: whose.
        out: folder of the report that copies go into; None: no copies.
    """

    def __init__(self, section: Section, out: Path | None) -> None:
        self._section, self._out = section, out
        self._baseline: tuple[str | None, Mapping[str, Run]] = (None, {})

    def sources(self, cell: Cell) -> Sources:
        """Return what the page of a cell is made of; write its copies."""
        points = {point.key: self._section.runs(_keys(point.tasks)) for point in cell.points}
        if self._baseline[0] != cell.study.key:
            self._baseline = cell.study.key, self._section.runs(_keys(cell.baseline))
            if cell.baseline_point is not None:
                self._copy(cell, cell.baseline_point, {}, self._baseline[1])
        for point in cell.points:
            self._copy(cell, point.key, dataclasses.asdict(point.point), points[point.key])
        own = {key: run for runs in points.values() for key, run in runs.items()}
        return Sources(runs={**self._baseline[1], **own}, copies=self._out is not None)

    def _copy(
        self, cell: Cell, point: str, body: Mapping[str, Any], runs: Mapping[str, Run]
    ) -> None:
        if self._out is None:
            return
        path = self._out / record_path(point)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "study": dataclasses.asdict(cell.study),
            "point": {**body, "key": point},
            "runs": {key: dataclasses.asdict(run) for key, run in sorted(runs.items())},
        }
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False, default=dict) + "\n")


def _keys(samples: Samples) -> list[str]:
    every = (sample for row in samples.values() for sample in row.values())
    return [run.key for sample in every for run in sample.runs if run.key is not None]
