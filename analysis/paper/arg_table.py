"""The table of ``python -m analysis arg``: ARG of methods, beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence

from ..results.names import method_label
from ..tables.arg import DETAILS, INTERVALS, ScoredMethod, arg_cell, detail_cells, seeds_note
from ..tables.lookup import column_label
from ..tables.table import Row, Table, number, text
from .answers import scores_comparison


def arg_table(methods: Sequence[ScoredMethod], label: str = "") -> Table:
    """Return one row a method, with Table 2's number and the status of ours."""
    rows = []
    notes = []
    for one in methods:
        cell = arg_cell(one.summary, done=one.done, of=one.of)
        column = column_label((one.partition, one.edition))
        names = (column, one.backbone, method_label(one.method))
        rows.append((*map(text, names), *detail_cells(one.summary, cell), *_paper_cells(one)))
        said = [*filter(None, [seeds_note(one.summary)]), *one.summary.gain.reasons]
        notes += [f"{', '.join(names)}: {why}" for why in said]
    return Table(
        name="arg",
        title=f"ARG over prompt tuning{label and f' – {label}'}",
        columns=("partition", "backbone", "method", *DETAILS, "Table 2", "status"),
        rows=tuple(rows),
        notes=(INTERVALS, *notes),
    )


def _paper_cells(one: ScoredMethod) -> Row:
    comparison = scores_comparison(one)
    if comparison is None:
        return text("–"), text("–")
    why = f" ({comparison.why})" if comparison.why else ""
    return number(comparison.published.value), text(comparison.status + why)
