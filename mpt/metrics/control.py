"""What a configuration adds to a control that was run on the same upstream seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpt.metrics.differences import Difference, fitted_prior, kappa_of, tested
from mpt.metrics.replicates import RESAMPLES, Replicates, args_of, args_on_draws


def added_to(
    control: Replicates,
    one: Replicates,
    others: Sequence[Replicates],
    baseline: np.ndarray,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Difference | None:
    """Return ARG of a configuration minus that of the control, paired by seeds and draws.

    Args:
        control: its scores by upstream seed.
        one: the configuration, on the upstream seeds that count.
        others: configurations whose differences to the control say how far such a difference
            scatters over upstream seeds (two or three seeds say little alone); `one` may be
            among them, on other seeds.
        baseline: [T, D] test scores of plain prompt tuning; every task's mean must be positive.
        rng: draws data seeds with replacement.
        resamples: draws.

    Returns:
        The difference with a 95 % interval over upstream seeds and data seeds and its p, which is
        not corrected; None if the two have no upstream seed in common.
    """
    seeds = [seed for seed in one.scores if seed in control.scores]
    if not seeds:
        return None
    start = args_of(control, baseline)
    rows = []
    for other in others:
        own = args_of(other, baseline)
        rows.append([own[seed] - start[seed] for seed in own if seed in start])
    stack = np.stack([side.scores[seed] for side in (one, control) for seed in seeds])
    whole, drawn = args_on_draws(stack, baseline, rng, resamples)
    row = [float(a - b) for a, b in zip(whole[: len(seeds)], whole[len(seeds) :], strict=True)]
    tasks, data_seeds = baseline.shape
    data = 0.0
    if len(drawn):
        moved = drawn[:, : len(seeds)].mean(1) - drawn[:, len(seeds) :].mean(1)
        data = float((kappa_of(data_seeds) * moved).var())
    mean, interval, p = tested(row, fitted_prior(rows), data, max(1, tasks * (data_seeds - 1)))
    return Difference(mean=mean, interval=interval, p=p, seeds=len(seeds))
