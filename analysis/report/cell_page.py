"""The page of one cell: what it was computed from, down to every leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ..results.cells import Cell, Sample
from ..results.names import method_label, partition_label
from ..results.selection import flat
from ..tables.arg import DETAILS, INTERVALS, detail_cells
from ..tables.lookup import Lookup
from ..tables.render import to_html
from ..tables.table import MISSING, Row, Table, TableCell, number, text
from .page import navigation, page, paragraph

Address = Callable[[str], str]
"""Path of a record within the results directory → its address from the page."""


def leaf_path(key: str) -> str:
    """Return the path of a leaf within its results directory."""
    return f"leaves/{key[:2]}/{key}.json"


def cell_page(look: Lookup, cell: Cell, address: Address) -> str:
    """Return the page of a cell.

    Args:
        look: summaries.
        cell: the cell.
        address: where a record lies, as seen from the page.
    """
    place = cell.place
    title = f"{method_label(place.method)} on {partition_label(place.partition)}, {place.role}"
    parts = [navigation([("../index.html", "report")]), paragraph(str(place))]
    if cell.status != "ok" or cell.note:
        parts.append(paragraph(f"Status: {cell.status}. {cell.note}"))
    if cell.partial:
        parts.append(paragraph(f"Partial: {cell.partial}"))
    tables = [_score_table(look, cell), _task_table(look, cell), _leaf_table(look, cell, address)]
    tables.append(_origin_table(cell, address))
    return page(title, [*parts, *map(to_html, tables)])


def _score_table(look: Lookup, cell: Cell) -> Table:
    summary = look.summary(cell)
    shown = _unlinked(look.table_cell(cell))
    rows = () if summary is None else (detail_cells(summary, shown),)
    notes = (INTERVALS,) if rows else ("There is no score.",)
    return Table(name="score", title="Score", columns=DETAILS, rows=rows, notes=notes)


def _unlinked(cell: TableCell) -> TableCell:
    """Return a cell without the link to the page that it stands on."""
    return dataclasses.replace(cell, link=None)


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
                _unlinked(look.table_cell(cell, task=task)),
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


def _leaf_table(look: Lookup, cell: Cell, address: Address) -> Table:
    rows = [
        _leaf_row(look, key, (side, task, seed, lr), sample, address)
        for side, samples in (("method", cell.tasks), ("prompt tuning", cell.baseline))
        for task in sorted(samples)
        for seed, sample in sorted(samples[task].items())
        for lr, key in sample.keys
    ]
    return Table(
        name="leaves",
        title="Leaves",
        columns=(
            "leaf",
            "of",
            "task",
            "data seed",
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
            "ties keep the first. A leaf's record holds its configuration, commit and versions.",
        ),
    )


def _leaf_row(
    look: Lookup,
    key: str,
    about: tuple[str, str, int, float],
    sample: Sample,
    address: Address,
) -> Row:
    side, task, seed, lr = about
    head = (text(side), text(task), text(seed), text(f"{lr:g}"))
    leaf = look.study.leaves.get(key)
    if leaf is None:
        gap = number(None)
        return (text(key[:12]), *head, gap, gap, text(""), text("missing"), text(""), text(""))
    result = leaf["result"]
    taken = sample.taken is not None and sample.taken.key == key
    return (
        text(key[:12], address(leaf_path(key))),
        *head,
        number(result["dev"], 4),
        number(result["test"], 4),
        text(result.get("best_step", "")),
        text(result.get("status", "")),
        text("yes" if taken else ""),
        text(str(leaf["identity"].get("data", ""))[:16]),
    )


def _origin_table(cell: Cell, address: Address) -> Table:
    """Return configuration, identity, commit, versions and machine."""
    found: dict[str, Any] = {
        "point record": cell.key,
        "trajectory": cell.trajectory,
        "learned prompt": cell.prompt,
        "steps": cell.steps,
        "source tasks": cell.sources,
        "names of source tasks": ", ".join(cell.source_tasks) or None,
        **_prefixed("config", cell.config),
        **_prefixed("made by", cell.provenance),
        **_prefixed("cost", cell.cost),
        **_prefixed("identity", cell.identity),
    }
    link = address(f"points/{cell.key}.json")
    rows = [
        (text(name), text(_line(value), link if name == "point record" else None))
        for name, value in found.items()
    ]
    return Table(
        name="origin",
        title="Where it comes from",
        columns=("what", "value"),
        rows=tuple(rows),
        notes=(
            "Identity is everything that can change the numbers; its hash is the record's key.",
        ),
    )


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}: {name}": value for name, value in flat(values).items()}


def _line(value: object) -> str:
    """Return a value as one line; long lists are cut."""
    line = MISSING if value is None else str(value)
    return line if len(line) <= 2000 else f"{line[:2000]} …"
