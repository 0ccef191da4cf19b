"""Win, tie, loss: every pair of methods over the settings that both have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ..results.names import BASELINE, METHODS, in_order
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
