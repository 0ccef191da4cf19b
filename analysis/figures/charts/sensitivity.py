"""What a search says about its settings: importance, agreement of rungs, path from worst to best.

Only points with a score take part; those without one (diverged, incomplete) are counted and said.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from scipy.stats import kendalltau, norm, spearmanr

from mpt.seeds import derive

from .data import Estimate, Search, SearchPoint, missing, write

REPEATS = 5
"""Random forests of fANOVA, each from its own seed."""
TOP = 1 / 3
"""Share of the points that PED-ANOVA compares with all: of 27 points, the best 9."""
FEWEST = 6
"""Points with a score that importances need."""
LOG_RATIO = 5.0
"""A setting whose largest value is this many times its smallest is taken on a log scale."""


def on_log_scale(values: object) -> bool:
    """Return whether a setting's values are to be shown and compared by their logarithms."""
    ordered = sorted(float(value) for value in values)  # type: ignore[attr-defined]
    return ordered[0] > 0 and ordered[-1] >= LOG_RATIO * ordered[0]


def heights(search: Search, name: str) -> dict[float, float]:
    """Return value → height in [0, 1] on the axis of a setting."""
    values = sorted({point.settings[name] for point in search.points})
    scale = np.log(values) if on_log_scale(values) else np.array(values)
    shares = (scale - scale[0]) / ((scale[-1] - scale[0]) or 1.0)
    return dict(zip(values, shares.tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Share of the score's variation that each setting accounts for."""

    evaluators: Mapping[str, Mapping[str, Estimate]]
    """Evaluator → setting → share; the shares of an evaluator sum to 1. The interval of fANOVA is
    the range over its forests: how sure the estimate is of itself, no confidence interval."""
    points: int
    without: int
    """Points without a score, which are left out."""


def importance(search: Search, root_seed: int) -> Importance | str:
    """Return the settings' importance, or the reason why there is none.

    fANOVA (Hutter et al. 2014) is the mean of `REPEATS` forests; PED-ANOVA (Watanabe et al. 2023)
    tells the best `TOP` of the points from all of them.
    """
    varied, scored = search.varied, search.scored
    values = {point.score.value for point in scored}
    if len(varied) < 2:
        return "importance needs two settings with more than one value"
    if len(scored) < FEWEST or len(values) < 2:
        return f"importance needs {FEWEST} different points with a score; there are {len(scored)}"
    study = _optuna_study(search)
    forests = [
        _shares(study, FanovaImportanceEvaluator(seed=derive(root_seed, "fanova", n) % 2**32))
        for n in range(REPEATS)
    ]
    fanova = {
        name: Estimate(
            value=math.fsum(shares[name] for shares in forests) / REPEATS,
            low=min(shares[name] for shares in forests),
            high=max(shares[name] for shares in forests),
        )
        for name in varied
    }
    ped = _shares(study, PedAnovaImportanceEvaluator(target_quantile=TOP))
    return Importance(
        evaluators={
            "fANOVA": fanova,
            "PED-ANOVA": {name: Estimate(value=ped[name]) for name in varied},
        },
        points=len(scored),
        without=len(search.without),
    )


def _optuna_study(search: Search) -> optuna.Study:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # creating a study is no news
    try:
        study = optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(before)
    columns = {n: [point.settings[n] for point in search.points] for n in search.varied}
    spaces = {
        name: FloatDistribution(min(column), max(column), log=on_log_scale(column))
        for name, column in columns.items()
    }
    for point in search.scored:
        params = {name: point.settings[name] for name in spaces}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=dict(spaces), value=point.score.value
            )
        )
    return study


def _shares(study: optuna.Study, evaluator: BaseImportanceEvaluator) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return get_param_importances(study, evaluator=evaluator)


@dataclass(frozen=True, kw_only=True)
class RungAgreement:
    """How well the order of trajectories at one rung tells their order at another."""

    rungs: tuple[int, ...]
    """Steps, ascending."""
    spearman: Mapping[tuple[int, int], Estimate]
    """(earlier, later rung) → Spearman's ρ."""
    kendall: Mapping[tuple[int, int], Estimate]
    """(earlier, later rung) → Kendall's τ-b."""
    trajectories: Mapping[tuple[int, int], int]
    """(earlier, later rung) → trajectories with a score at both."""


def rung_agreement(search: Search) -> RungAgreement | str:
    """Return the rank correlations between rungs, or the reason why there are none.

    Intervals (95 %): Fisher's z with the standard errors of Fieller, Hartley and Pearson (1957),
    √(1.06/(n − 3)) for ρ and √(0.437/(n − 4)) for τ; none for n < 5, nor for ±1, where z is
    infinite.
    """
    rungs = tuple(sorted({point.steps for point in search.points}))
    if len(rungs) < 2:
        return "there is one rung only"
    scores: dict[int, dict[str, float]] = {rung: {} for rung in rungs}
    for point in search.scored:
        if point.trajectory in scores[point.steps]:
            return f"trajectory {point.trajectory[:12]} has two points at {point.steps} steps"
        scores[point.steps][point.trajectory] = float(point.score.value or 0.0)
    spearman, kendall, counts = {}, {}, {}
    for number, early in enumerate(rungs):
        for late in rungs[number + 1 :]:
            both = sorted(scores[early].keys() & scores[late].keys())
            x, y = ([scores[rung][name] for name in both] for rung in (early, late))
            counts[early, late] = len(both)
            if len(both) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
                why = missing(f"{len(both)} trajectories with different scores at both rungs")
                spearman[early, late] = kendall[early, late] = why
                continue
            rho, tau = float(spearmanr(x, y).statistic), float(kendalltau(x, y).statistic)
            spearman[early, late] = _with_fisher(rho, 1.06, len(both) - 3, len(both))
            kendall[early, late] = _with_fisher(tau, 0.437, len(both) - 4, len(both))
    return RungAgreement(rungs=rungs, spearman=spearman, kendall=kendall, trajectories=counts)


def _with_fisher(value: float, variance: float, freedom: int, n: int) -> Estimate:
    """Return a correlation with the interval tanh(artanh r ± 1.96 √(variance / freedom))."""
    if n < 5 or abs(value) >= 1 - 1e-12:
        return Estimate(value=value)
    half = float(norm.ppf(0.975)) * math.sqrt(variance / freedom)
    middle = math.atanh(value)
    return Estimate(value=value, low=math.tanh(middle - half), high=math.tanh(middle + half))


@dataclass(frozen=True, kw_only=True)
class Change:
    """One step of the way from the worst point to the best."""

    setting: str | None
    """The setting that was changed; None at the start."""
    before: float | None
    """Its value until then."""
    after: float | None
    """Its value from here on: the best point's."""
    point: SearchPoint


@dataclass(frozen=True, kw_only=True)
class AblationPath:
    """The way from the worst point to the best, one setting at a time (the paper's A.5)."""

    changes: tuple[Change, ...]
    """The start, then one entry a change; the last one is the best point if the path is whole."""
    stopped: str
    """Why it does not come to the best point; empty if it does."""


def ablation_path(search: Search) -> AblationPath | str:
    """Return the greedy path from the worst to the best point, or the reason why there is none.

    At each step one more setting takes the best point's value: the one that gives the highest
    score (Fawcett and Hoos 2016); settings that tie keep their order. Only recorded points count,
    so the path stops where none of the next ones was run or has a score.
    """
    scored, names = search.scored, tuple(search.points[0].settings)
    if len(scored) < 2:
        return f"a path needs two points with a score; there are {len(scored)}"
    best, here = search.best, scored[-1]
    assert best is not None
    known = {tuple(point.settings.values()): point for point in scored[::-1]}
    changes = [Change(setting=None, before=None, after=None, point=here)]
    while here is not best:
        open_ = [name for name in names if here.settings[name] != best.settings[name]]
        steps = []
        for name in open_:
            wanted = {**here.settings, name: best.settings[name]}
            neighbour = known.get(tuple(wanted[n] for n in names))
            if neighbour is not None:
                steps.append((name, neighbour))
        if not steps:
            lack = ", ".join(f"{name} = {write(best.settings[name])}" for name in open_)
            return AblationPath(
                changes=tuple(changes), stopped=f"no point with only {lack} changed"
            )
        name, after = max(steps, key=lambda step: float(step[1].score.value or 0.0))
        changes.append(
            Change(
                setting=name,
                before=here.settings[name],
                after=best.settings[name],
                point=after,
            )
        )
        here = after
    return AblationPath(changes=tuple(changes), stopped="")


def marginal(search: Search, x: str, y: str) -> dict[tuple[float, float], tuple[float, int, int]]:
    """Return (x, y) → (mean score over the other settings, points with a score, points).

    A pair whose points all lack a score has the mean NaN; a pair that was not run is absent.
    """
    cells: dict[tuple[float, float], list[float | None]] = {}
    for point in search.points:
        at = (point.settings[x], point.settings[y])
        cells.setdefault(at, []).append(point.score.value)
    means = {}
    for at, values in cells.items():
        scores = [value for value in values if value is not None]
        mean = float(np.mean(scores)) if scores else math.nan
        means[at] = (mean, len(scores), len(values))
    return means
