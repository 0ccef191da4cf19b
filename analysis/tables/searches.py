"""Searches: every configuration of a method's search, best first, and what was stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpt.store.records import Stop
from mpt.words import counted

from ..results.cells import Cell
from ..results.names import method_label, partition_label
from ..results.searched import unstable_points
from .lookup import Lookup, about
from .table import Row, Table, number, quantity, text

_NO_SETTINGS = ("method", "seed")
_SEEDS = ("upstream seeds",)
_RACE = (
    "Ranked by the mean over upstream seeds. A race gives more of them to what may be the best: "
    "the search has chosen the highest mean among those with most, and a configuration with one "
    "seed stands high by chance more easily. A maximum is too high by chance in any case."
)
_UNSTABLE = (
    "Unstable (*): the upstream seeds lie wider apart than the configurations that cannot be told "
    "from the best and than the seeds of the others (F test of variances at 1 %, Bonferroni), or "
    "the loss of a trajectory jumped or diverged."
)
_RANK_COLUMNS = ("ARG %", "median RG %", "upstream samples")


def search_tables(look: Lookup) -> list[Table]:
    """Return one ranking for each search, the points of one study; then what was stopped."""
    rankings = [_ranking(look, n, cells) for n, cells in enumerate(searches(look), start=1)]
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


def searches(look: Lookup) -> list[list[Cell]]:
    """Return the configurations of each (study, method), in the order of their places."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in look.section.select(role="validation"):
        groups.setdefault((cell.study.key, cell.place.method), []).append(cell)
    return list(groups.values())


def _ranking(look: Lookup, at: int, cells: list[Cell]) -> Table:
    place = cells[0].place
    # the section's own title names the study where it is the only one
    which = f", study {cells[0].study.id}" if len(look.section.studies) > 1 else ""
    settings = searched_settings(cells)
    ordered = sorted(cells, key=lambda cell: (_order(look, cell), cell.line, cell.steps))
    several = any(cell.replicates for cell in cells)
    points = sum(len(cell.points) for cell in cells)
    counts = [counted(points, "point")]
    counts += [counted(len(cells), "configuration")] if several else []
    reasons = unstable_points(cells)
    unstable = {cell.key: why for cell in ordered if (why := _reasons_of(cell, reasons))}
    return Table(
        name=f"search-{at}",
        title=f"Search of {method_label(place.method)} on {partition_label(place.partition)}: "
        f"validation tasks ({about(place.backbone, place.gym)}{which})",
        columns=("rank", *settings, "steps", *(_SEEDS if several else ()), *_RANK_COLUMNS),
        rows=tuple(
            _row(look, f"{rank}{'*' * (cell.key in unstable)}", cell, settings, several=several)
            for rank, cell in enumerate(ordered, start=1)
        ),
        notes=(
            f"{', '.join(counts)}; shared settings stand on the cells' pages.",
            *((_RACE,) if several else ()),
            *((_UNSTABLE,) if unstable else ()),
            *(
                f"* {_settings_text(cell, settings)}: {'; '.join(unstable[cell.key])}."
                for cell in ordered
                if cell.key in unstable
            ),
        ),
    )


def searched_settings(cells: Sequence[Cell]) -> list[str]:
    """Return the names of the settings that differ between points, in the record's order."""
    names = dict.fromkeys(name for cell in cells for name in cell.config)
    return [
        name
        for name in names
        if name not in _NO_SETTINGS and len({repr(cell.config.get(name)) for cell in cells}) > 1
    ]


def _order(look: Lookup, cell: Cell) -> tuple[bool, float]:
    """The best first; points that cannot be compared at the end."""
    value = look.rank_value(cell)
    return value is None, 0.0 if value is None else -value


def _row(look: Lookup, rank: str, cell: Cell, settings: list[str], *, several: bool) -> Row:
    summary = look.summary(cell)
    median = None if summary is None else summary.gain.median_of_defined
    return (
        text(rank),
        *(text(_setting(cell.config.get(name))) for name in settings),
        text(cell.steps),
        *((text(len(cell.points)),) if several else ()),
        look.table_cell(cell),
        number(median),
        quantity(cell.cost["examples"]),
    )


def _reasons_of(cell: Cell, reasons: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return why a configuration is unstable, each reason once; none if it is not."""
    return tuple(dict.fromkeys(why for one in cell.points for why in reasons.get(one.key, ())))


def _settings_text(cell: Cell, settings: Sequence[str]) -> str:
    words = [f"{name} {_setting(cell.config.get(name))}" for name in settings]
    return ", ".join([*words, f"{cell.steps} steps"])


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
