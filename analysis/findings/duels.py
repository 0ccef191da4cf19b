"""The win/tie/loss matrix as a table and as a picture."""

from __future__ import annotations

from ..figures.interactive.frame import DIVERGING, Plot, escaped, plot
from ..results.names import method_label
from ..tables.table import Table, number, text
from .finding import extent, signed
from .matrix import Duel, Matrix

NAME = "duels"
NOTES = (
    "A setting is won where the 95 % interval of the paired difference of ARGs lies above 0, lost "
    "where it lies below, a tie otherwise; intervals are not corrected for the number of pairs.",
    "The interval is over data seeds (drawn alike for both methods and the baseline, widened by "
    "√(D / (D − 1)) for D of them), and over upstream seeds where there are two or more; their "
    "spread is estimated from all pairs together, so the interval of a method against PT is not, "
    "to the last digit, that of its cell, which is drawn by itself.",
)


def duel_table(matrix: Matrix, about: str) -> Table:
    """Return a row for each pair of methods, the better mean first."""
    rows = []
    for at, row in enumerate(matrix.methods):
        for column in matrix.methods[at + 1 :]:
            duel = matrix.duels.get((row, column))
            if duel is None:
                continue
            rows.append(
                (
                    text(method_label(row)),
                    text(method_label(column)),
                    *(number(n, 0) for n in (duel.wins, duel.ties, duel.losses)),
                    number(duel.mean.value, interval=duel.mean.interval),
                    text(len(duel.mean.tasks)),
                )
            )
    return Table(
        name=NAME,
        title=f"Every pair of methods: wins, ties, losses over settings ({about})",
        columns=("method", "against", "wins", "ties", "losses", "difference of ARG", "tasks"),
        rows=tuple(rows),
        notes=NOTES,
    )


def duel_plot(matrix: Matrix) -> Plot:
    """Return the matrix as a heat map: colour is (wins − losses) / settings of the row."""
    names = [escaped(method_label(name)) for name in matrix.methods]
    rows = [
        [matrix.duels.get((row, column)) for column in matrix.methods] for row in matrix.methods
    ]
    trace = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [[None if d is None else (d.wins - d.losses) / d.settings for d in r] for r in rows],
        "text": [["" if d is None else f"{d.wins}–{d.ties}–{d.losses}" for d in r] for r in rows],
        "hovertext": [
            [
                "" if d is None else _said(name, column, d)
                for column, d in zip(names, r, strict=True)
            ]
            for name, r in zip(names, rows, strict=True)
        ],
        "hoverinfo": "text",
        "hoverongaps": False,
        "colorscale": DIVERGING,
        "zmin": -1,
        "zmax": 1,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    axes = {"xaxis": {"side": "top"}, "yaxis": {"autorange": "reversed"}}
    return plot([trace], height=90 + 44 * len(names), **axes)


def _said(row: str, column: str, duel: Duel) -> str:
    lines = (
        f"{row} against {column}: {duel.wins} won, {duel.ties} tied, {duel.losses} lost",
        f"mean difference {signed(duel.mean, ' points')}",
        extent(duel.mean, duel.settings),
    )
    return "<br>".join(map(escaped, lines))
