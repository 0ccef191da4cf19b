"""Win, tie, loss: every pair of methods over the settings that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..results.names import BASELINE, METHODS, in_order
from .paired import Paired, mean_of, paired
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
    settings: int
    """Settings of any pair."""


def matrix_of(settings: Sequence[Setting]) -> Matrix:
    """Return the win/tie/loss matrix of all methods over settings."""
    names = [*in_order({name for one in settings for name in one.methods}, METHODS), BASELINE]
    duels: dict[tuple[str, str], Duel] = {}
    for at, row in enumerate(names):
        for column in names[at + 1 :]:
            pairs = pairs_of(settings, row, column)
            if pairs:
                duels[row, column] = _duel(list(pairs.values()))
                duels[column, row] = _reversed(duels[row, column])
    gains = {name: duels[name, BASELINE].mean.value for name in names if (name, BASELINE) in duels}
    ranked = sorted(names, key=lambda name: (-gains.get(name, 0.0), names.index(name)))
    return Matrix(methods=tuple(ranked), duels=duels, settings=len(settings))


def pairs_of(settings: Sequence[Setting], row: str, column: str) -> dict[str, Paired]:
    """Return label of a setting → difference of two methods, where both have scores."""
    found = {}
    for setting in settings:
        one, other = setting.methods.get(row), setting.methods.get(column)
        if one is None or (other is None and column != BASELINE):
            continue
        difference = paired(one, other)
        if difference is not None:
            found[f"{setting.label}, {setting.place.backbone}"] = difference
    return found


def _duel(pairs: Sequence[Paired]) -> Duel:
    signs = [one.sign for one in pairs]
    return Duel(
        wins=signs.count(1), ties=signs.count(0), losses=signs.count(-1), mean=mean_of(pairs)
    )


def _reversed(duel: Duel) -> Duel:
    mean = replace(duel.mean, value=-duel.mean.value, deviations=-duel.mean.deviations)
    return Duel(wins=duel.losses, ties=duel.ties, losses=duel.wins, mean=mean)
