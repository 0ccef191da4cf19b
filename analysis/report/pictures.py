"""Pictures that are made of a table's own numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..figures.interactive.frame import Plot
from ..figures.interactive.tables import EXCLUDES, cost_score, heat_map
from ..tables.table import Table

_HEATED = ("table-2", "table-5")
_HEAT = (
    f"Blue: above prompt tuning, red: below. {EXCLUDES}: the interval excludes 0. Hovering or "
    "a touch tells the numbers, which a narrow page has no room for."
)
_COST = "One dot a row; line: 95 % interval. A click opens the point's page."

Made = tuple[str, str, str, Plot]
"""Beginning of the name, title, caption, figure."""


def pictures_of(table: Table, methods: Mapping[str, str]) -> Iterator[Made]:
    """Yield the pictures of a table as the page shows it.

    Args:
        table: without empty rows and columns.
        methods: label → name of a method, for its colour.
    """
    name = table.name
    if name.startswith(_HEATED) and not name.startswith("table-2-details"):
        plot = heat_map(table)
        if plot is not None:
            yield "heat", "The same as colours.", _HEAT, plot
    if name.startswith("costs"):
        for cost in ("upstream device-hours", "downstream device-hours"):
            plot = cost_score(table, cost, "ARG %", "method", methods)
            if plot is not None:
                yield f"cost-{cost.partition(' ')[0]}", f"Score against {cost}.", _COST, plot
    if name.startswith("search-") and "upstream samples" in table.columns:
        plot = cost_score(table, "upstream samples", "ARG %", None, methods)
        if plot is not None:
            yield "cost", "Score against cost.", _COST, plot
