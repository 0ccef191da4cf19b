"""The page of one cell: what it was computed from, down to every run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpt.keys import flat
from mpt.store.records import Run

from ..results.cells import AskedRun, Cell, Sample, Samples
from ..results.names import method_label, partition_label
from ..results.sections import Section
from ..results.summary import summary_of
from ..results.upstream_seeds import upstream_seed
from ..tables.arg import DETAILS, INTERVALS, arg_cell, detail_cells, seeds_note
from ..tables.lookup import Lookup, with_edition
from ..tables.table import MISSING, Row, Table, TableCell, number, text
from .page import render

_LONGEST = 2000
"""Letters of a value that are shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """What a cell's page is made of beside the cell."""

    runs: Mapping[str, Run]
    """The runs of the cell and of its baseline by key."""
    copies: bool = False
    """Whether copies of the records lie in the report (see `record_path`)."""


def record_path(point: str) -> str:
    """Return the path of the copy of a point with its runs, within the report."""
    return f"records/{point}.json"


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


def cell_page(look: Lookup, cell: Cell, sources: Sources) -> str:
    """Return the page of a cell."""
    cell_place, study = cell.place, cell.study
    marks = ", smoke run" * study.smoke + ", partial" * (study.partial is not None)
    title = (
        f"{method_label(cell_place.method)} on "
        f"{with_edition(partition_label(cell_place.partition), cell_place.edition)}, "
        f"{cell_place.role} – study {study.id}{marks}"
    )
    lines = [str(cell_place)]
    if cell.status != "ok" or cell.note:
        lines.append(f"Status: {cell.status}. {cell.note}")
    if study.smoke:
        lines.append("Of a smoke run: the numbers mean nothing.")
    if cell.study.partial:
        lines.append(f"Partial: {cell.study.partial}")
    tables = [_score_table(look, cell), _task_table(look, cell), _run_table(cell, sources)]
    if cell.replicates:
        tables.insert(1, _seeds_table(look, cell, sources))
    shown = [*(table.trimmed() for table in tables), _origin_table(cell, sources)]
    return render("cell.html.j2", title, lines=lines, shown=shown)


def _score_table(look: Lookup, cell: Cell) -> Table:
    summary = look.summary(cell)
    shown = dataclasses.replace(look.table_cell(cell), link=None)
    rows = () if summary is None else (detail_cells(summary, shown),)
    notes = (INTERVALS,) if rows else ("There is no score.",)
    return Table(name="score", title="Score", columns=DETAILS, rows=rows, notes=notes)


def _seeds_table(look: Lookup, cell: Cell, sources: Sources) -> Table:
    summary = look.summary(cell)
    rows = []
    for point in cell.points:
        own = summary_of(dataclasses.replace(point, replicates=()))
        done, of = point.counts
        shown = TableCell() if own is None else arg_cell(own, done=done, of=of)
        link = f"../{record_path(point.key)}" if sources.copies else None
        about = (upstream_seed(point), point.status, point.trajectory[:12])
        rows.append((*map(text, about), shown, text(point.key, link)))
    note = "" if summary is None else seeds_note(summary)
    return Table(
        name="upstream-seeds",
        title=f"{len(rows)} upstream seeds",
        columns=("upstream seed", "status", "trajectory", "ARG %", "point"),
        rows=tuple(rows),
        notes=(
            *([f"The score above is the {note}."] if note else []),
            "Intervals of single seeds are over data seeds alone. A trajectory that diverged "
            "counts as one that got nothing right; one that was stopped is not averaged.",
        ),
    )


def _task_table(look: Lookup, cell: Cell) -> Table:
    rows = []
    for task in sorted(cell.tasks):
        summary = look.summary(cell, task)
        assert summary is not None
        gain = summary.gain.tasks[0]
        rows.append(
            (
                text(task),
                number(gain.baseline, 4),
                number(gain.score, 4),
                dataclasses.replace(look.table_cell(cell, task=task), link=None),
                text(gain.reason or ""),
            )
        )
    return Table(
        name="tasks",
        title="Tasks",
        columns=("task", "prompt tuning", "method", "relative gain %", "why none"),
        rows=tuple(rows),
        notes=("Scores are fractions, means over the data seeds.",),
    )


def _run_table(cell: Cell, sources: Sources) -> Table:
    sides = [
        (f"method, upstream seed {upstream_seed(point)}", point.tasks, point.key)
        for point in cell.replicates
    ] or [("method", cell.tasks, cell.key)]
    if cell.tasks:
        sides.append(("prompt tuning", cell.baseline, cell.baseline_point or ""))
    starts = cell.study.starts > 1
    rows = [
        _run_row((side, task, seed), asked, sample, sources, point, starts=starts)
        for side, samples, point in sides
        for task in sorted(samples)
        for seed, sample in sorted(samples[task].items())
        for asked in sample.runs
    ]
    return Table(
        name="runs",
        title="Runs",
        columns=(
            "run",
            "of",
            "task",
            "data seed",
            *(["train seed"] if starts else []),
            "learning rate",
            "dev",
            "test",
            "best step",
            "status",
            "counts",
            "data digest",
        ),
        rows=tuple(rows),
        notes=(
            "Of the learning rates of a (task, data seed) the one with the best dev score counts; "
            "ties keep the first."
            + (" So it does at each train seed, and their mean is the score." if starts else ""),
        ),
    )


def _run_row(
    about: tuple[str, str, int],
    asked: AskedRun,
    sample: Sample,
    sources: Sources,
    point: str,
    *,
    starts: bool,
) -> Row:
    key = asked.key
    start = (text(asked.train_seed),) if starts else ()
    head = (*map(text, about), *start, text(f"{asked.lr:g}"))
    run = None if key is None else sources.runs.get(key)
    if run is None or key is None:
        gap = number(None)
        return (text(MISSING), *head, gap, gap, text(""), text("missing"), text(""), text(""))
    taken = any(row.run == key for row in sample.taken)
    return (
        text(key[:12], f"../{record_path(point)}" if sources.copies else None),
        *head,
        number(run.dev, 4),
        number(run.test, 4),
        text(run.best_step),
        text(run.status),
        text("yes" if taken else ""),
        text(run.identity.data[:16]),
    )


def _origin_table(cell: Cell, sources: Sources) -> Table:
    study = dataclasses.asdict(cell.study)
    data = {name: study.pop(name) for name in ("source", "scored")}
    origin: dict[str, Any] = {
        "study": cell.study.key,
        "protocol": cell.study.protocol,
        "point": cell.key,
        "trajectory": cell.trajectory,
        "learned prompt": cell.point.prompt,
        "steps": cell.steps,
        "source tasks": cell.sources,
        "names of source tasks": ", ".join(cell.source_tasks) or None,
        **_prefixed("config", cell.config),
        "made at": cell.point.created,
        **_prefixed("made by", cell.point.provenance),
        **_prefixed("cost", cell.cost),
        **_prefixed("study", study),
        **{
            f"study: data of {kind} tasks": ", ".join(f"{t} {n} {sha[:12]}" for t, n, sha in items)
            for kind, items in data.items()
        },
    }
    link = f"../{record_path(cell.key)}" if sources.copies else None
    return Table(
        name="origin",
        title="Where it comes from",
        columns=("what", "value"),
        rows=tuple(
            (text(name), text(_line(value), link if name == "point" else None))
            for name, value in origin.items()
        ),
        notes=("The study is everything that its numbers may be compared within.",),
    )


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}: {name}": value for name, value in flat(values).items()}


def _line(value: object) -> str:
    """Return a value as one line; long lists are cut."""
    line = MISSING if value is None else str(value)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
