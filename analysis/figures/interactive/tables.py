"""Pictures of tables: a heat map of gains, and cost against score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...tables.table import Row, Table, TableCell, shown
from .frame import DIVERGING, Plot, escaped, marker, plot

EXCLUDES = "●"
"""Marks a number whose interval excludes 0."""


def heat_map(table: Table) -> Plot | None:
    """Return the numbers of a table (labels in the first column) as colours; None without two.

    Red is below 0, blue above; the scale ends at the 90th percentile of |number|, so that one
    task near zero does not grey out all others. `EXCLUDES` marks intervals without 0.
    """
    rows = table.rows[::-1]
    values = [cell.value for row in rows for cell in row[1:] if cell.value is not None]
    if len(values) < 2:
        return None
    end = sorted(map(abs, values))[int(0.9 * (len(values) - 1))] or max(map(abs, values)) or 1.0
    trace = {
        "type": "heatmap",
        "x": [escaped(column) for column in table.columns[1:]],
        "y": [escaped(row[0].text or "") for row in rows],
        "z": [[cell.value for cell in row[1:]] for row in rows],
        "text": [[_written(cell) for cell in row[1:]] for row in rows],
        "customdata": [[cell.link or "" for cell in row[1:]] for row in rows],
        "hovertext": [_hovers(table, row) for row in rows],
        "hoverinfo": "text",
        "hoverongaps": False,
        "colorscale": DIVERGING,
        "zmin": -end,
        "zmax": end,
        "xgap": 2,
        "ygap": 2,
        "colorbar": {"title": {"text": "ARG %"}, "thickness": 10},
    }
    return plot([trace], height=90 + 42 * len(rows), xaxis={"side": "top"})


def _written(cell: TableCell) -> str:
    if cell.value is None:
        return ""
    return f"{shown(cell.value, 1)}{f' {EXCLUDES}' if excludes_zero(cell) else ''}"


def excludes_zero(cell: TableCell) -> bool:
    """Return whether a number's interval excludes 0."""
    return cell.low is not None and cell.high is not None and (cell.low > 0 or cell.high < 0)


def _hovers(table: Table, row: Row) -> list[str]:
    return [
        "<br>".join(
            escaped(line)
            for line in (
                f"{row[0].text} – {column}",
                f"{cell.number} % {cell.interval}",
                f"{cell.count} runs" if cell.count else "",
                f"point {cell.link.rsplit('/', 1)[-1][:8]}" if cell.link else "",
            )
            if line
        )
        for column, cell in zip(table.columns[1:], row[1:], strict=True)
    ]


def cost_score(
    table: Table, cost: str, score: str, by: str | None, methods: Mapping[str, str]
) -> Plot | None:
    """Return score against cost of the rows of a table; None with less than two.

    Args:
        table: the table.
        cost: column of the x axis; where every cost is alike there is nothing to see.
        score: column of the y axis, with intervals.
        by: column of the methods' labels, one colour each; None: all are one.
        methods: label → name of a method, for its colour.
    """
    at = {column: index for index, column in enumerate(table.columns)}
    if cost not in at or score not in at:
        return None
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        if row[at[cost]].value is not None and row[at[score]].value is not None:
            label = "" if by is None else row[at[by]].text or ""
            groups.setdefault(label, []).append(row)
    costs = {row[at[cost]].value for rows in groups.values() for row in rows}
    if len(costs) < 2:
        return None
    traces = [
        _points(rows, (at[cost], at[score]), label, table, methods)
        for label, rows in groups.items()
    ]
    return plot(
        traces,
        height=360,
        showlegend=by is not None,
        xaxis={"title": {"text": cost}, "type": "log" if min(c or 0 for c in costs) > 0 else None},
        yaxis={"title": {"text": score}, "zeroline": True},
    )


def _points(
    rows: Sequence[Row],
    places: tuple[int, int],
    label: str,
    table: Table,
    methods: Mapping[str, str],
) -> dict[str, object]:
    x, y = places
    cells = [row[y] for row in rows]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escaped(label),
        "x": [row[x].value for row in rows],
        "y": [cell.value for cell in cells],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [0 if c.high is None else c.high - (c.value or 0) for c in cells],
            "arrayminus": [0 if c.low is None else (c.value or 0) - c.low for c in cells],
            "thickness": 1,
            "width": 0,
        },
        "marker": marker(methods.get(label, "maml")),
        "customdata": [cell.link or "" for cell in cells],
        "hovertext": ["<br>".join(_labels(table, row)) for row in rows],
        "hoverinfo": "text",
    }


def _labels(table: Table, row: Row) -> list[str]:
    return [
        escaped(f"{column}: {cell.text if cell.text is not None else cell.number} {cell.interval}")
        for column, cell in zip(table.columns, row, strict=True)
        if (cell.text or cell.value is not None)
    ]
