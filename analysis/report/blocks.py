"""Which picture stands beside which table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mpt.words import counted

from ..figures import Figure
from ..figures.interactive.tables import EXCLUDES, cost_score, heat_map
from ..results.cells import Place
from ..results.names import METHODS, method_label
from ..tables.table import Row, Table

WIDE = 8
"""Columns above which a table takes the whole width, and its pictures stand below it."""
FOLDED = ("studies", "table-1", "table-9", "table-10", "table-11", "paper")
"""Tables that are looked up rather than read."""
_BESIDE = (
    ("source-shots-", "figure-3"),
    ("target-shots-", "table-3"),
    ("source-tasks-", "table-4"),
    ("curves-cls-to-cls", "table-3"),
    ("duels", "duels"),
    ("contest", "contest-pooled"),
)
"""Beginning of a figure's name → table that it stands beside."""
_DETAILS = "table-2-details"
_SWEEPS = {"table-3": (2, 0), "figure-3": (2, 0), "table-4": (2, 0), "table-5": (0, 1)}
"""Table → most columns and rows with which it repeats another one."""
_MORE = ("score-", "curves-tasks-", "steps-", "search-rungs-", "search-ablation-", "search-maps-")
"""Figures that are shown on request."""
_HEATED = ("table-2", "table-5")
_HEAT = (
    f"Blue: above prompt tuning, red: below. {EXCLUDES}: the interval excludes 0. Hovering or "
    "a touch tells the numbers, which a narrow page has no room for."
)
_COST = "One dot a row; line: 95 % interval. A click opens the point's page."


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Rows of a table with the pictures of their own beside them."""

    title: str
    """What the rows share: their first cell."""
    table: Table
    """Without that cell, and without notes."""
    pictures: Sequence[Figure]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A table with its pictures, or pictures alone."""

    anchor: str
    title: str
    """What it is of; the section's own name is not repeated in it."""
    table: Table | None = None
    pictures: list[Figure] = field(default_factory=list)
    more: list[Figure] = field(default_factory=list)

    @property
    def strips(self) -> list[Strip]:
        """The table in parts, where pictures belong beside single rows; empty otherwise."""
        if self.table is None or all(one.row is None for one in self.pictures):
            return []
        groups: dict[str, list[Row]] = {}
        for row in self.table.rows:
            groups.setdefault(row[0].text or "", []).append(row[1:])
        return [
            Strip(
                title=label,
                table=replace(
                    self.table,
                    title=f"{self.table.title}: {label}",
                    columns=self.table.columns[1:],
                    rows=tuple(rows),
                    notes=(),
                ).trimmed(),
                pictures=[one for one in self.pictures if one.row == label],
            )
            for label, rows in groups.items()
        ]

    @property
    def beside(self) -> list[Figure]:
        """The pictures beside the table as a whole."""
        return [one for one in self.pictures if one.row is None]

    @property
    def wide(self) -> bool:
        """Whether the table needs the whole width."""
        columns = 0 if self.table is None else len(self.table.columns)
        return columns - bool(self.strips) > WIDE

    @property
    def broad(self) -> bool:
        """Whether the table needs more than half of the width."""
        return self.table is not None and len(self.table.columns) == WIDE

    @property
    def folded(self) -> bool:
        """Whether the table is opened on request."""
        return self.table is not None and base_name(self.table.name) in FOLDED

    @property
    def rows(self) -> str:
        """How much is behind it where it is opened on request."""
        return "" if self.table is None else counted(len(self.table.rows), "row")

    @property
    def short(self) -> str:
        """Its title for a list of links."""
        return short_title(self.title)


def short_title(title: str) -> str:
    """Return the beginning of a table's title: its number, or what it is about."""
    return re.split(r"[.(:–]", title)[0].strip()


def base_name(name: str) -> str:
    """Return a table's name without the id of its section."""
    return re.sub(r"-[0-9a-f]{8}(-partial)?$", "", name)


def blocks_of(
    tables: Sequence[Table],
    figures: Sequence[Figure],
    places: Mapping[str, Place],
    suffix: str = "",
) -> list[Block]:
    """Return the blocks of a section: every table that holds something, with its pictures.

    `places`: name of a search's table → place of its points; `suffix` ends the names of tables and
    figures, behind a hyphen.
    """
    methods = {method_label(name): name for name in METHODS}
    blocks: dict[str, Block] = {}
    for table in tables:
        kept = _shown(table)
        if kept is None:
            continue
        blocks[table.name] = Block(
            anchor=table.name,
            title=table.title.rpartition(" – ")[0] or table.title,
            table=kept,
            pictures=list(_pictures_of(kept, methods)) if figures else [],
        )
    for figure in figures:
        if figure.drawn:
            _add_figure(figure, blocks, places, suffix)
    return list(blocks.values())


def _pictures_of(table: Table, methods: Mapping[str, str]) -> Iterator[Figure]:
    """Yield the pictures of a table's own numbers; `methods`: label → name, for the colour."""
    name = table.name
    if name.startswith(_HEATED) and not name.startswith(_DETAILS):
        plot = heat_map(table)
        if plot is not None:
            title = "The same as colours."
            yield Figure(name=f"heat-{name}", title=title, caption=_HEAT, plot=plot)
    costs: dict[str, tuple[str, str, str | None]] = {}
    if name.startswith("costs"):
        for cost in ("upstream device-hours", "downstream device-hours"):
            costs[f"cost-{cost.partition(' ')[0]}"] = (cost, f"Score against {cost}.", "method")
    if name.startswith("search-") and "upstream samples" in table.columns:
        costs["cost"] = ("upstream samples", "Score against cost.", None)
    for start, (cost, title, by) in costs.items():
        plot = cost_score(table, cost, "ARG %", by, methods)
        if plot is not None:
            yield Figure(name=f"{start}-{name}", title=title, caption=_COST, plot=plot)


def _shown(table: Table) -> Table | None:
    """Return a table as a page shows it; None if there is nothing to be shown.

    Of the paper's numbers those that were attempted, and a sweep only if something was swept.
    """
    if base_name(table.name) == "paper":
        at = table.columns.index("status")
        rows = tuple(row for row in table.rows if row[at].text != "not attempted")
        table = replace(table, rows=rows)
    kept = table.trimmed()
    least = _SWEEPS.get(base_name(table.name), (0, 0))
    return kept if len(kept.columns) > least[0] and len(kept.rows) > least[1] else None


def _add_figure(
    figure: Figure, blocks: dict[str, Block], places: Mapping[str, Place], suffix: str
) -> None:
    """Put a figure beside its table; where that is not there, into a block of its own."""
    name = _table_of(figure, places, suffix, blocks)
    if name not in blocks:
        title = "By task" if not figure.name.startswith("search-") else "Search"
        blocks[name] = Block(anchor=name, title=title)
    block = blocks[name]
    labels = {row[0].text for row in block.table.rows} if block.table is not None else set()
    if base_name(name) != _DETAILS or figure.row not in labels:
        figure = replace(figure, row=None)
    (block.more if figure.name.startswith(_MORE) else block.pictures).append(figure)


def _table_of(
    figure: Figure, places: Mapping[str, Place], suffix: str, blocks: Mapping[str, Block]
) -> str:
    ending = f"-{suffix}" if suffix else ""
    if figure.place is not None:
        return next((name for name, at in places.items() if at == figure.place), "search")
    for beginning, table in _BESIDE:
        if figure.name.startswith(beginning) and table + ending in blocks:
            return table + ending
    return f"{_DETAILS}{ending}"
