"""ARG over replicates: upstream seeds × data seeds, two intervals, paired differences, ties.

A configuration is run with several *upstream seeds* (start, episodes, dropout), each of them tuned
on every *data seed* of every task. The levels are crossed: an upstream seed's prompt meets all
data seeds, and a data seed's rows meet all prompts and the baseline. With A(u, d) the ARG of one
upstream seed on a draw d of data seeds, and Â the mean of A over upstream seeds,

    expected ARG     Â + κ (Â(d) − Â) + t · s / √U          mean over upstream seeds
    one new run      Â + κ (Â(d) − Â) + t · s · √(1 + 1/U)  one more upstream seed

d draws the data seeds of each task with replacement, the same draw for all configurations and the
baseline, and κ = √(D / (D − 1)) makes up for the few there are. Two to five upstream seeds are too
few to be drawn from: their mean is taken as normal with the variance s² between seeds, moderated
by that of all configurations (`mpt.metrics.moderation`), so t has the degrees of freedom of both.

Differences are paired: of the same upstream seeds on the same draws, so what two configurations
have in common (rows, baseline, start) cancels. The tests of all configurations against the leader
are corrected together (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mpt.metrics.differences import (
    LEVEL,
    Difference,
    Interval,
    fitted_prior,
    holm,
    kappa_of,
    tested,
    variance_of,
)
from mpt.metrics.distributions import t_quantile
from mpt.metrics.instability import wide_spreads
from mpt.metrics.moderation import Prior

RESAMPLES = 4000


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """The test scores of one configuration."""

    name: str
    """What its summary is found by; different for all."""
    scores: Mapping[int, np.ndarray]
    """Upstream seed → test scores [tasks T, data seeds D], fractions."""
    events: tuple[str, ...] = ()
    """What happened while it was learned that makes it unstable (a loss that jumped, a trajectory
    that diverged), for people."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the replicates of one configuration say. Unit: ARG, in %."""

    name: str
    arg: float
    """Mean over upstream seeds."""
    by_seed: Mapping[int, float]
    """Upstream seed → ARG over all data seeds."""
    expected: Interval | None
    """95 % of the expected ARG; with one upstream seed and no others to learn from, None."""
    new_run: Interval | None
    """95 % for one more upstream seed."""
    data_only: Interval | None
    """95 % over data seeds alone, these upstream seeds taken as they are."""
    to_leader: Difference | None
    """None for the leader itself."""
    tied: bool
    """Whether it cannot be told from the leader (it belongs to the tie set)."""
    p_best: float
    """Share of draws in which it has the highest expected ARG."""
    reasons: tuple[str, ...]
    """Why it is unstable, for people: its upstream seeds lie wider apart than the tie set and the
    leader's interval are wide and than those of the others do (`mpt.metrics.instability`), or
    its learning was (`Replicates.events`)."""

    @property
    def unstable(self) -> bool:
        """Whether there is such a reason."""
        return bool(self.reasons)

    @property
    def seeds(self) -> int:
        """Upstream seeds."""
        return len(self.by_seed)

    @property
    def spread(self) -> float | None:
        """Standard deviation between upstream seeds; None with one."""
        values = list(self.by_seed.values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All configurations of one method in one study."""

    summaries: Mapping[str, Summary]
    """By name, in the order given."""
    leader: str
    """The highest ARG among those with the most upstream seeds."""
    prior: Prior
    """What the spread between upstream seeds is like over all configurations."""
    levels: tuple[str, ...]
    """What the intervals stand for: ("upstream seeds", "data seeds") or less."""
    tests: int
    """Comparisons that the correction is for."""

    @property
    def ties(self) -> list[Summary]:
        """The leader and what cannot be told from it, best first."""
        tied = [one for one in self.summaries.values() if one.tied]
        return sorted(tied, key=lambda one: -one.arg)


@dataclass
class _Draws:
    """ARG of every (configuration, upstream seed) on every draw of data seeds."""

    owner: list[tuple[str, int]]
    whole: np.ndarray
    """[N], on the data seeds as they are."""
    drawn: np.ndarray
    """[B, N]; no rows if there is one data seed."""
    at: dict[str, dict[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, (name, seed) in enumerate(self.owner):
            self.at.setdefault(name, {})[seed] = index

    def deviations(self, name: str, seeds: Sequence[int]) -> np.ndarray:
        """Return the draws' deviations [B] of the mean over some upstream seeds."""
        places = [self.at[name][seed] for seed in seeds]
        return self.drawn[:, places].mean(1) - float(self.whole[places].mean())


def args_on_draws(
    scores: np.ndarray, baseline: np.ndarray, rng: np.random.Generator, resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ARG in % on the data seeds as they are [N], and on draws of them [B, N].

    Args:
        scores: [N, T, D] test scores.
        baseline: [T, D] those of plain prompt tuning; every task's mean must be positive.
        rng: draws data seeds, for each task on its own and alike for all N and the baseline.
        resamples: B. Draws in which a task's baseline is not positive are drawn as a whole again
            from those that are left; with D = 1 there are none.
    """
    tasks, seeds = baseline.shape
    reference = baseline.mean(1)
    if not (reference > 0).all():
        raise ValueError("every task needs a baseline above 0")
    whole = 100 * (scores.mean(2) / reference - 1).mean(1)
    if seeds < 2:
        return whole, np.empty((0, len(scores)))
    draw = rng.integers(seeds, size=(resamples, tasks, seeds))
    counts = (draw[..., None] == np.arange(seeds)).sum(2)  # [B, T, D]
    drawn_reference = np.einsum("btd,td->bt", counts, baseline) / seeds
    counts = counts[(drawn_reference > 0).all(1)]
    weights = counts / (np.einsum("btd,td->bt", counts, baseline)[..., None])
    return whole, 100 * (np.einsum("btd,ntd->bnt", weights, scores).mean(2) - 1)


def compare(
    configurations: Sequence[Replicates],
    baseline: np.ndarray,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    prior: Prior | None = None,
) -> Comparison:
    """Compare configurations by their replicates.

    Args:
        configurations: at least one, each with at least one upstream seed.
        baseline: [T, D] test scores of plain prompt tuning; every task's mean must be positive.
        rng: draws data seeds; the same generator gives the same comparison.
        resamples: draws.
        prior: spread between upstream seeds; None: that of these configurations.
    """
    if not configurations or not all(one.scores for one in configurations):
        raise ValueError("compare needs configurations, each with an upstream seed")
    data_rng, seed_rng = rng.spawn(2)
    owner = [(one.name, seed) for one in configurations for seed in one.scores]
    stack = np.stack([table for one in configurations for table in one.scores.values()])
    draws = _Draws(owner, *args_on_draws(stack, baseline, data_rng, resamples))
    by_seed = {
        name: {seed: float(draws.whole[at]) for seed, at in places.items()}
        for name, places in draws.at.items()
    }
    args = {name: float(np.mean(list(values.values()))) for name, values in by_seed.items()}
    most = max(len(values) for values in by_seed.values())
    leader = max((n for n in args if len(by_seed[n]) == most), key=lambda n: args[n])
    if prior is None:
        prior = prior_of(by_seed.values())
    tasks, data_seeds = baseline.shape
    kappa = kappa_of(data_seeds)
    data_df = max(1, tasks * (data_seeds - 1))
    differences = _to_leader(by_seed, leader, draws, kappa, data_df)
    samples, intervals = {}, {}
    for name, values in by_seed.items():
        data = kappa * draws.deviations(name, list(values))
        intervals[name], samples[name] = _intervals(values, data, prior, seed_rng, resamples)
    best = _shares_of_best(samples, args)
    tied = {n: n == leader or (d := differences[n]).p is None or d.p > 1 - LEVEL for n in args}
    return Comparison(
        summaries=_summaries(
            by_seed, args, intervals, differences, tied, best, leader, configurations
        ),
        leader=leader,
        prior=prior,
        levels=_levels(prior, baseline),
        tests=len(args) - 1,
    )


def estimate(
    configuration: Replicates,
    baseline: np.ndarray,
    prior: Prior,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Summary:
    """Return what some replicates say by themselves, compared with nothing.

    For a configuration that was chosen before these upstream seeds were run: its ARG on them is
    not raised by the choice.

    Args:
        configuration: its fresh replicates.
        baseline: see `compare`.
        prior: spread between upstream seeds, of the `Comparison` it was chosen in.
        rng: draws data seeds.
        resamples: draws.
    """
    data_rng, seed_rng = rng.spawn(2)
    stack = np.stack(list(configuration.scores.values()))
    whole, drawn = args_on_draws(stack, baseline, data_rng, resamples)
    values = {seed: float(arg) for seed, arg in zip(configuration.scores, whole, strict=True)}
    arg = float(whole.mean())
    data = kappa_of(baseline.shape[1]) * (drawn.mean(1) - arg)
    (expected, new_run, only), _ = _intervals(values, data, prior, seed_rng, resamples)
    return Summary(
        name=configuration.name,
        arg=arg,
        by_seed=values,
        expected=expected,
        new_run=new_run,
        data_only=only,
        to_leader=None,
        tied=True,
        p_best=math.nan,
        reasons=configuration.events,
    )


def args_of(configuration: Replicates, baseline: np.ndarray) -> dict[int, float]:
    """Return upstream seed → ARG in % over all data seeds.

    Args:
        configuration: its replicates.
        baseline: see `compare`.
    """
    stack = np.stack(list(configuration.scores.values()))
    whole = 100 * (stack.mean(2) / baseline.mean(1) - 1).mean(1)
    return {seed: float(arg) for seed, arg in zip(configuration.scores, whole, strict=True)}


def prior_of(by_seed: Iterable[Mapping[int, float]]) -> Prior:
    """Return what the spread between upstream seeds is like.

    Args:
        by_seed: of each configuration, upstream seed → ARG; those with one say nothing.
    """
    return fitted_prior([list(values.values()) for values in by_seed])


def _levels(prior: Prior, baseline: np.ndarray) -> tuple[str, ...]:
    known = ["upstream seeds"] if prior.variance > 0 or prior.df > 0 else []
    return tuple(known + (["data seeds"] if baseline.shape[1] > 1 else []))


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _intervals(
    by_seed: Mapping[int, float],
    data: np.ndarray,
    prior: Prior,
    rng: np.random.Generator,
    resamples: int,
) -> tuple[tuple[Interval | None, Interval | None, Interval | None], np.ndarray]:
    """Return (expected, new run, data only) and the draws of the expected ARG [B].

    Args:
        by_seed: upstream seed → ARG.
        data: deviations of their mean over draws of data seeds, times κ [B].
        prior: spread between upstream seeds.
        rng: pairs both parts.
        resamples: B where there are no draws of data seeds.
    """
    values, seeds = list(by_seed.values()), len(by_seed)
    arg = float(np.mean(values))
    variance, df = prior.moderate(variance_of(values), seeds - 1)
    only = _percentiles(arg + data) if len(data) else None
    noise = data if len(data) else np.zeros(resamples)
    ranks = (rng.permutation(len(noise)) + 0.5) / len(noise)  # one of each: no noise of drawing
    if math.isnan(variance):  # nothing says how far upstream seeds differ
        return (None, None, only), arg + noise
    t = t_quantile(ranks, min(df, 1e6)) * math.sqrt(variance)
    mean = arg + noise + t / math.sqrt(seeds)
    one = arg + noise + t * math.sqrt(1 + 1 / seeds)
    return (_percentiles(mean), _percentiles(one), only), mean


def _to_leader(
    by_seed: Mapping[str, Mapping[int, float]],
    leader: str,
    draws: _Draws,
    kappa: float,
    data_df: int,
) -> dict[str, Difference]:
    """Return the paired differences of all others to the leader, with corrected p-values."""
    common = {
        name: [seed for seed in values if seed in by_seed[leader]] or list(values)
        for name, values in by_seed.items()
        if name != leader
    }
    rows: dict[str, list[float]] = {}
    for name, seeds in common.items():
        own, other = by_seed[name], by_seed[leader]
        mean = float(np.mean(list(other.values())))
        rows[name] = [own[seed] - other.get(seed, mean) for seed in seeds]
    prior = fitted_prior(list(rows.values()))
    differences: dict[str, Difference] = {}
    raw: dict[str, float] = {}
    for name, row in rows.items():
        seeds = common[name]
        of_leader = [seed for seed in seeds if seed in by_seed[leader]] or list(by_seed[leader])
        data = np.zeros(1)
        if len(draws.drawn):
            data = kappa * (draws.deviations(name, seeds) - draws.deviations(leader, of_leader))
        mean, interval, raw_p = tested(row, prior, float(data.var()), data_df)
        differences[name] = Difference(mean=mean, interval=interval, p=None, seeds=len(seeds))
        if raw_p is not None:
            raw[name] = raw_p
    corrected = holm(raw)
    return {
        name: Difference(
            mean=one.mean, interval=one.interval, p=corrected.get(name), seeds=one.seeds
        )
        for name, one in differences.items()
    }


def _shares_of_best(
    samples: Mapping[str, np.ndarray], args: Mapping[str, float]
) -> dict[str, float]:
    names = list(args)
    width = min(len(sample) for sample in samples.values())
    winners = np.argmax(np.stack([samples[name][:width] for name in names]), axis=0)
    return {name: float((winners == index).mean()) for index, name in enumerate(names)}


def _summaries(
    by_seed: Mapping[str, Mapping[int, float]],
    args: Mapping[str, float],
    intervals: Mapping[str, tuple[Interval | None, Interval | None, Interval | None]],
    differences: Mapping[str, Difference],
    tied: Mapping[str, bool],
    best: Mapping[str, float],
    leader: str,
    configurations: Sequence[Replicates],
) -> dict[str, Summary]:
    ties = [args[name] for name, is_tied in tied.items() if is_tied]
    expected = intervals[leader][0]
    width = max(max(ties) - min(ties), 0.0 if expected is None else expected[1] - expected[0])
    wide, events = wide_spreads(by_seed), {one.name: one.events for one in configurations}
    summaries = {}
    for name, values in by_seed.items():
        span = max(values.values()) - min(values.values())
        spread = (wide[name].text,) if name in wide and span > width else ()
        summaries[name] = Summary(
            name=name,
            arg=args[name],
            by_seed=values,
            expected=intervals[name][0],
            new_run=intervals[name][1],
            data_only=intervals[name][2],
            to_leader=differences.get(name),
            tied=tied[name],
            p_best=best[name],
            reasons=(*spread, *events[name]),
        )
    return summaries
