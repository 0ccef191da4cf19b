"""Win, tie, loss: every pair of methods over the settings that both have; table and picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ..figures.interactive.frame import DIVERGING, Plot, escaped, plot
from ..results.names import BASELINE, METHODS, in_order, method_label
from ..tables.table import Table, number, text
from .finding import extent, signed
from .paired import Paired, mean_of, moderated, paired
from .settings import Setting


@dataclass(frozen=True, kw_only=True)
class Duel:
    """One method against another."""

    wins: int
    """Settings in which the interval of the paired difference lies above 0."""
    ties: int
    """Settings in which it holds 0, or in which there is none."""
    losses: int
    """Settings in which it lies below 0."""
    mean: Paired
    """The difference of ARGs, mean over these settings."""
    pairs: Mapping[str, Paired]
    """Label of a setting → its difference."""

    @property
    def settings(self) -> int:
        """Settings that both methods have."""
        return self.wins + self.ties + self.losses


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """All pairs of methods, plain prompt tuning among them."""

    methods: tuple[str, ...]
    """Best first: by the mean ARG over settings; prompt tuning stands at 0."""
    duels: Mapping[tuple[str, str], Duel]
    """(row, column) → row against column; pairs without a common setting are absent."""


def matrix_of(settings: Sequence[Setting]) -> Matrix:
    """Return the win/tie/loss matrix of all methods over settings."""
    names = [*in_order({name for one in settings for name in one.methods}, METHODS), BASELINE]
    differences = differences_of(settings, combinations(names, 2))
    duels: dict[tuple[str, str], Duel] = {}
    for (row, column), pairs in differences.items():
        duels[row, column] = _duel(pairs)
        duels[column, row] = _reversed(duels[row, column])
    gains = {name: duels[name, BASELINE].mean.value for name in names if (name, BASELINE) in duels}
    ranked = sorted(names, key=lambda name: (-gains.get(name, 0.0), names.index(name)))
    return Matrix(methods=tuple(ranked), duels=duels)


def differences_of(
    settings: Sequence[Setting], pairs: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, Paired]]:
    """Return (row, column) → label of a setting → difference, where both methods have scores.

    What upstream seeds do to a gain, and to a difference of two learned starts, is moderated over
    all pairs and settings given, each of the two kinds by itself. Pairs without a setting are
    absent.
    """
    differences: dict[tuple[str, str], dict[str, Paired]] = {}
    for row, column in pairs:
        own = _raw(settings, row, column)
        if own:
            differences[row, column] = own
    for plain in (True, False):
        kind = [
            (pair, label)
            for pair in differences
            if (BASELINE in pair) is plain
            for label in differences[pair]
        ]
        steadier = moderated([differences[pair][label] for pair, label in kind])
        for (pair, label), one in zip(kind, steadier, strict=True):
            differences[pair][label] = one
    return differences


def _raw(settings: Sequence[Setting], row: str, column: str) -> dict[str, Paired]:
    differences = {}
    for setting in settings:
        one, other = setting.methods.get(row), setting.methods.get(column)
        if one is None or (other is None and column != BASELINE):
            continue
        difference = paired(one, other)
        if difference is not None:
            differences[f"{setting.label}, {setting.place.backbone}"] = difference
    return differences


def _duel(pairs: Mapping[str, Paired]) -> Duel:
    signs = [one.sign for one in pairs.values()]
    return Duel(
        wins=signs.count(1),
        ties=signs.count(0),
        losses=signs.count(-1),
        mean=mean_of(list(pairs.values())),
        pairs=pairs,
    )


def _reversed(duel: Duel) -> Duel:
    pairs = {label: _negated(one) for label, one in duel.pairs.items()}
    return Duel(
        wins=duel.losses, ties=duel.ties, losses=duel.wins, mean=_negated(duel.mean), pairs=pairs
    )


def _negated(one: Paired) -> Paired:
    return replace(one, value=-one.value, deviations=-one.deviations)


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
