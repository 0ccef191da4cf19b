"""Searches: every configuration of a method's search, best first, and what was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.store.records import Stop
from mpt.words import counted

from ..results.cells import Cell
from ..results.names import method_label, partition_label
from ..results.searched import Choice, Searched
from .lookup import Lookup, about, page_of
from .table import Row, Table, TableCell, number, quantity, shown, text

if TYPE_CHECKING:
    from mpt.metrics.differences import Interval

_NO_SETTINGS = ("method", "seed")
_ONE_SEED = "intervals are over data seeds alone; another upstream seed may lie outside"
_UNSTABLE = (
    "Unstable (*): the upstream seeds of the choice lie wider apart than the configurations that "
    "cannot be told from the best and than the seeds of the others (F test of variances at 1 %, "
    "Bonferroni), or the loss of a trajectory jumped or diverged."
)
_COMPARED = ("one new run", "to the best", "P(best)")
_COSTS = ("median RG %", "upstream samples")


def search_tables(look: Lookup) -> list[Table]:
    """Return one ranking for each search, the points of one study; then what was stopped."""
    searches = look.section.searches
    rankings = [_ranking(look, n, search) for n, search in enumerate(searches, start=1)]
    stops = look.section.stops
    return [*rankings, stop_table(stops)] if stops else rankings


def stop_table(stops: Sequence[Stop]) -> Table:
    """Return the trials that were not carried on, and the numbers that decided."""
    return Table(
        name="stops",
        title="Trials that were stopped",
        columns=("trial", "rung", "by", "reason", "time"),
        rows=tuple(
            tuple(map(text, (stop.trial, stop.steps, stop.by, stop.reason, stop.created)))
            for stop in stops
        ),
        notes=("A stopped trial has no later points; those that it has stand in its ranking.",),
    )


def _ranking(look: Lookup, at: int, search: Searched) -> Table:
    """Return the ranking that the search itself shows: its order, numbers and marks."""
    cells, search_place = search.cells, search.cells[0].place
    # the section's own title names the study where it is the only one
    which = f", study {cells[0].study.id}" if len(look.section.studies) > 1 else ""
    settings = searched_settings(cells)
    ordered = sorted(cells, key=lambda cell: _order(look, search, cell))
    several = search.replicated
    return Table(
        name=f"search-{at}",
        title=f"Search of {method_label(search_place.method)} on "
        f"{partition_label(search_place.partition)}: "
        f"validation tasks ({about(search_place.backbone, search_place.gym)}{which})",
        columns=(
            *("rank", *settings, "steps", *(("upstream seeds",) if several else ()), "ARG %"),
            *(*(_COMPARED if several else ()), *_COSTS),
        ),
        rows=tuple(
            _row(look, search, rank, cell, settings) for rank, cell in enumerate(ordered, start=1)
        ),
        notes=tuple(_notes(look, search, ordered, settings)),
    )


def searched_settings(cells: Sequence[Cell]) -> list[str]:
    """Return the names of the settings that differ between points, in the record's order."""
    names = dict.fromkeys(name for cell in cells for name in cell.config)
    return [
        name
        for name in names
        if name not in _NO_SETTINGS and len({repr(cell.config.get(name)) for cell in cells}) > 1
    ]


def _order(look: Lookup, search: Searched, cell: Cell) -> tuple[bool, float, int]:
    """The best first; points that cannot be compared at the end."""
    value = searched_value(look, search, cell)
    return value is None, 0.0 if value is None else -value, search.index_of(cell)


def searched_value(look: Lookup, search: Searched, cell: Cell) -> float | None:
    """Return the ARG in % that a search ranks a cell by; None if it cannot be compared."""
    if not search.replicated:
        return look.rank_value(search.compared(cell))
    summary = search.summary(cell)
    return None if summary is None else summary.arg


def _row(look: Lookup, search: Searched, rank: int, cell: Cell, settings: Sequence[str]) -> Row:
    compared, summary = search.compared(cell), search.summary(cell)
    several = search.replicated
    own = look.summary(compared)
    median = None if own is None else own.gain.median_of_defined
    tied = several and summary is not None and summary.tied
    marks = "=" * tied + "*" * bool(search.reasons(cell))
    return (
        text(f"{rank}{marks}"),
        *(text(_setting(cell.config.get(name))) for name in settings),
        text(cell.steps),
        *((text(len(compared.points)),) if several else ()),
        searched_cell(look, search, cell),
        *(_compared_cells(search, cell) if several else ()),
        number(median),
        quantity(cell.cost["examples"]),
    )


def searched_cell(look: Lookup, search: Searched, cell: Cell) -> TableCell:
    """Return the ARG that a configuration is ranked by, with the interval of the expected ARG.

    Where there is one upstream seed, or the configuration takes no part: what its own points say.
    """
    compared, summary = search.compared(cell), search.summary(cell)
    table_cell = dataclasses.replace(look.table_cell(compared), link=page_of(cell))
    if summary is None or not search.replicated:
        return table_cell
    low, high = summary.expected or (None, None)
    flags = tuple(flag for flag in table_cell.flags if flag != "no_interval" or low is None)
    return dataclasses.replace(table_cell, value=summary.arg, low=low, high=high, flags=flags)


def _compared_cells(search: Searched, cell: Cell) -> Row:
    summary = search.summary(cell)
    if summary is None:
        return (TableCell(), TableCell(), TableCell())
    to = summary.to_leader
    best = text("best") if to is None else number(to.mean, interval=to.interval)
    return number(None, interval=summary.new_run), best, number(summary.p_best)


def _notes(
    look: Lookup, search: Searched, ordered: Sequence[Cell], settings: Sequence[str]
) -> list[str]:
    cells, choice = search.cells, search.choice
    counts = [counted(sum(len(cell.points) for cell in cells), "point")]
    if any(cell.replicates for cell in cells):
        counts.append(counted(len(cells), "configuration"))
    notes = [f"{', '.join(counts)}; shared settings stand on the cells' pages."]
    if choice is not None:
        notes += _choice_notes(look, search, choice, settings)
    unstable = {cell.key: why for cell in ordered if (why := search.reasons(cell))}
    return [
        *notes,
        *((_UNSTABLE,) if unstable else ()),
        *(
            f"* {_settings_text(cell, settings)}: {'; '.join(unstable[cell.key])}."
            for cell in ordered
            if cell.key in unstable
        ),
    ]


def _choice_notes(
    look: Lookup, search: Searched, choice: Choice, settings: Sequence[str]
) -> list[str]:
    named = ", ".join(map(str, choice.seeds))
    if not search.replicated:
        shown_here = any(look.table_cell(one).low is not None for one in search.cells)
        end = f"; {_ONE_SEED}" if shown_here else ""
        return [f"Ranked on upstream seed {named}, as the search ranks{end}."]
    notes = [
        f"Ranked as the search ranks: by the mean over the upstream seeds {named}, or those of "
        "them that a configuration was given. The best is the highest of those with most. Seeds "
        "that the best alone was run with afterwards have no part in a row.",
        f"{_ties_text(choice)}Behind ARG stands 95 % of the expected ARG over upstream and data "
        "seeds; one new run: the same of one more upstream seed; to the best: the difference on "
        "the upstream seeds that both have, with 95 %; P(best): how often its expected ARG is the "
        "highest.",
    ]
    return notes if look.section.smoke else [*notes, _reported_text(search, choice, settings)]


def _ties_text(choice: Choice) -> str:
    """Say how many configurations cannot be told from the best; nothing of one alone."""
    count, ties = len(choice.comparison.summaries), len(choice.comparison.ties)
    how = f"paired, Holm over {counted(choice.comparison.tests, 'test')}"
    if count == 1:
        return ""
    if ties == 1:
        return f"The best can be told from the {count - 1} others at 95 % ({how}). "
    return f"{ties} of {count} cannot be told from the best at 95 % (marked =; {how}). "


def _reported_text(search: Searched, choice: Choice, settings: Sequence[str]) -> str:
    on, leader = choice.reported, search.leader
    assert leader is not None
    best = choice.comparison.summaries[choice.comparison.leader]
    first = (
        f"Best ({_settings_text(leader, settings)}): ARG {shown(best.arg, 2)}"
        f"{_ends(best.expected)} on the seeds it was chosen on"
    )
    if on.arg is None:
        return f"{first}; no other is reported: {on.how}."
    return f"{first}; reported: ARG {shown(on.arg, 2)}{_ends(on.expected)} {on.how}."


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f" [{shown(interval[0], 2)}, {shown(interval[1], 2)}]"


def _settings_text(cell: Cell, settings: Sequence[str]) -> str:
    words = [f"{name} {_setting(cell.config.get(name))}" for name in settings]
    return ", ".join([*words, f"{cell.steps} steps"])


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
