"""A verdict as tables and as JSON."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpt.study.contest.frozen import write_kept
from mpt.words import counted

from ..findings.paired import Paired
from ..tables.table import Table, TableCell, number, text
from .verdict import Against, Verdict, order_of

if TYPE_CHECKING:
    from mpt.study.contest.frozen import Frozen

MISSING = 5
"""Missing points that are named."""


def kept_verdict(results: Path) -> Verdict:
    """Return what the contest of a results directory says.

    The frozen settings are those that the database kept when the confirmation began.

    Raises:
        UsageError: there is no database, or no confirmatory point in it.
        DataError: it is broken.
    """
    from .arenas import read_confirmed  # statistics take seconds to import
    from .verdict import judge

    with tempfile.TemporaryDirectory(prefix="mpt-contest-") as folder:
        return judge(read_confirmed(results, None, write_kept(results, None, Path(folder))))


def future_work(verdict: Verdict) -> list[Table]:
    """Return a contest as tables of a report on the paper.

    The paper leaves open whether an algorithm beats multitask learning everywhere.
    """
    pooled, arenas = pooled_table(verdict), arena_table(verdict)
    notes = (*(f"{one[0].upper()}{one[1:]}" for one in verdict.sentences), *pooled.notes)
    title = f"The paper's future work, pooled. {pooled.title}"
    return [
        dataclasses.replace(pooled, title=title, notes=notes),
        dataclasses.replace(arenas, title=f"The paper's future work by partition. {arenas.title}"),
    ]


def pooled_table(verdict: Verdict) -> Table:
    """Return a row a contestant: its mean ARG, and its difference to the best MTL."""
    by_name = {one.name: one for one in verdict.against}
    return Table(
        name="contest-pooled",
        title=f"Difference to the best multitask learning ({verdict.best_pooled}), pooled",
        columns=(
            "contestant",
            "ARG, %",
            "difference, simultaneous 95 %",
            "p (Holm)",
            "seeds won",
            "partitions clearly won",
            "clearly lost",
            "row passes",
        ),
        rows=tuple(_pooled_row(verdict, name, by_name.get(name)) for name in order_of(verdict)),
        notes=tuple(_notes(verdict)),
    )


def _pooled_row(verdict: Verdict, name: str, one: Against | None) -> tuple[TableCell, ...]:
    own = (text(name), number(verdict.pooled_arg(name)))
    passes = number(verdict.passes[name], digits=0)
    if one is None:
        return (*own, text("the reference"), *(text("") for _ in range(4)), passes)
    return (
        *own,
        number(one.pooled.value, interval=one.interval),
        number(one.p, digits=4),
        text(f"{one.won} of {len(one.pooled.by_seed)}"),
        text(", ".join(one.partitions_of(1)) or "none"),
        text(", ".join(one.partitions_of(-1)) or "none"),
        passes,
    )


def arena_table(verdict: Verdict) -> Table:
    """Return a row an arena: the best MTL's ARG there, and all differences to it."""
    names = list(order_of(verdict))
    by_name = {one.name: one for one in verdict.against}
    rows = []
    for arena, best in verdict.best.items():
        cells = [text(arena.label), text(best), number(_mean(verdict.args[arena][best]))]
        for name in names:
            if name == best:
                cells.append(text("the reference"))
            elif name in by_name:
                here = by_name[name].arenas[arena]
                cells.append(number(here.value, interval=here.interval))
            else:  # the best MTL of all arenas is not the best of this one
                gap = _mean(verdict.args[arena][name]) - _mean(verdict.args[arena][best])
                cells.append(number(gap))
        rows.append(tuple(cells))
    return Table(
        name="contest-arenas",
        title="Difference to the best multitask learning of every arena",
        columns=("arena", "best MTL", "its ARG, %", *names),
        rows=tuple(rows),
        notes=("Intervals are 95 %, over upstream seeds and data seeds, and not corrected.",),
    )


def _mean(values: tuple[float, ...]) -> float:
    return float(np.mean(values))


def _notes(verdict: Verdict) -> list[str]:
    confirmed, frozen = verdict.confirmed, verdict.confirmed.frozen
    seeds = ", ".join(map(str, confirmed.seeds))
    notes = [
        "Smoke run: the numbers mean nothing." if confirmed.smoke else "",
        f"Mean over {len(verdict.args)} arenas and fresh upstream seeds {seeds}. "
        f"{_searched(frozen)}",
        "The reference is the best multitask contestant on these very runs. Intervals hold "
        "upstream seeds × data seeds and are simultaneous for "
        f"{counted(len(verdict.against), 'comparison')}.",
        "" if confirmed.kept else "The frozen file is not what the confirmation began with.",
        *(f"Missing: {line}." for line in confirmed.missing[:MISSING]),
        f"And {more} more are missing." if (more := len(confirmed.missing) - MISSING) > 0 else "",
        *(f"Budget: {line}." for line in verdict.unequal),
        "" if verdict.unequal else "Budgets are equal within 2 %, by the records.",
        _races(frozen),
        _choosing(verdict),
    ]
    return [note for note in notes if note]


def _searched(frozen: Frozen) -> str:
    if not frozen.search_seeds:
        return "Every contestant had one point: no settings were chosen."
    tried = next(iter(frozen.entries.values())).tried
    seeds = ", ".join(map(str, frozen.search_seeds))
    return (
        f"Settings were chosen on {frozen.backbone}, validation tasks and upstream seeds {seeds}, "
        f"of {counted(tried, 'point')} a contestant."
    )


def _races(frozen: Frozen) -> str:
    own = {name: one.told for name, one in frozen.entries.items() if one.race_steps is not None}
    return f"{'; '.join(f'{name}: {told}' for name, told in own.items())}." if own else ""


def _choosing(verdict: Verdict) -> str:
    """Say what choosing starts has cost beside the row passes."""
    costs = [
        starts
        for arena in verdict.confirmed.arenas.values()
        for cells in arena.values()
        for cell in cells.values()
        if (starts := cell.point.provenance.get("starts")) is not None
    ]
    raced = [one for one in costs if "trained rows" in one]
    chosen = [one for one in costs if "trained rows" not in one]
    told = []
    if chosen:
        rows = _rows_of(chosen, "forward rows")
        told.append(f"the forward passes by which targets choose, {rows} rows")
    if raced:
        told.append(
            f"races of starts, {_rows_of(raced, 'trained rows')} rows forward and backward, "
            f"{_rows_of(raced, 'evaluated rows')} evaluated and {_rows_of(raced, 'forward rows')} "
            "forward (of ties)"
        )
    mean = "a point on average, over all of its targets"
    return f"Not among the row passes, {mean}: {'; '.join(told)}." if told else ""


def _rows_of(costs: Sequence[Mapping[str, Any]], name: str) -> str:
    return f"{np.mean([float(one[name]) for one in costs]):.0f}"


def to_json(verdict: Verdict) -> dict[str, Any]:
    """Return everything that the tables hold, for other programs."""
    confirmed = verdict.confirmed
    return {
        "contest": confirmed.frozen.contest,
        "smoke": confirmed.smoke,
        "upstream_seeds": list(confirmed.seeds),
        "best_mtl": verdict.best_pooled,
        "verdict": verdict.sentences,
        "missing": list(confirmed.missing),
        "frozen_kept": confirmed.kept,
        "left_out": list(confirmed.left_out),
        "row_passes": dict(verdict.passes),
        "race_steps": {
            name: one.race_steps
            for name, one in confirmed.frozen.entries.items()
            if one.start == "raced"
        },
        "unequal_budgets": list(verdict.unequal),
        "pooled": {
            one.name: {
                **_body(one.pooled),
                "simultaneous_interval": one.interval,
                "p_holm": one.p,
                "partitions": {name: _body(pair) for name, pair in one.partitions.items()},
            }
            for one in verdict.against
        },
        "arenas": [
            {
                "backbone": arena.backbone,
                "tuning_steps": arena.tuning_steps,
                "partition": arena.partition,
                "best_mtl": verdict.best[arena],
                "arg": {name: _mean(values) for name, values in row.items()},
                "difference": {one.name: _body(one.arenas[arena]) for one in verdict.against},
            }
            for arena, row in verdict.args.items()
        ],
    }


def _body(one: Paired) -> dict[str, Any]:
    return {"difference": one.value, "interval": one.interval, "by_seed": list(one.by_seed)}
