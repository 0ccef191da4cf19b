"""The control of a search: the start of its learned prompts with nothing learned, if it was run.

A gain over plain prompt tuning holds what was learned and what the start is worth. `untrained` is
the second part alone; where the database has it for the study of a search, on upstream seeds that
the best configuration has too, the search says what learning has added.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpt.config import CONTROL, UpstreamConfig
from mpt.metrics.control import added_to
from mpt.metrics.replicates import Replicates, args_of
from mpt.search.comparison import name_of, seed_of, tables_of
from mpt.search.leaderboard import PointStatus
from mpt.seeds import numpy_generator
from mpt.study.specs import UpstreamSpec

if TYPE_CHECKING:
    from mpt.metrics.differences import Difference
    from mpt.search.comparison import Ranking
    from mpt.search.leaderboard import RecordedLeaderboard


@dataclass(frozen=True, kw_only=True)
class Control:
    """What the best configuration of a ranking adds to its start."""

    arg: float
    """ARG of the start in %, mean over the upstream seeds of `added`."""
    added: Difference
    """Best minus start, paired."""
    fresh: bool
    """Whether on upstream seeds that were run after the best was chosen."""

    def text(self) -> str:
        """Return the finding as one line."""
        ends, seeds = self.added.interval, self.added.seeds
        if ends is None:
            verdict, told = "one seed: nothing shows whether learning adds to it", ""
        else:
            above, below = ends[0] > 0, ends[1] < 0
            verdict = "learning adds" if above else "learning takes" if below else "not told apart"
            told = f" [{ends[0]:+.1f}, {ends[1]:+.1f}]"
        where = "fresh seed" if self.fresh else "seed"
        where += ("" if seeds == 1 else "s") + ("" if self.fresh else " that chose the best")
        return (
            f"control  the start with nothing learned: ARG {self.arg:+.2f}; best minus start "
            f"{self.added.mean:+.2f}{told} on {seeds} {where}: {verdict}"
        )


def control_of(
    board: RecordedLeaderboard, entries: Sequence[PointStatus], ranking: Ranking
) -> Control | None:
    """Return what learning has added to the start; None if the control was not run."""
    best = ranking.best.first
    plan = best.trial.plan
    if best.trial.learned is None or best.trial.method == CONTROL:
        return None
    starts = dict(_starts(board, best))
    seeds = {
        seed_of(one.trial): one
        for one in entries
        if one.score is not None
        and one.trial.learned is not None
        and name_of(one) == ranking.comparison.leader
    }
    fresh = [seed for seed in plan.config.fresh_seeds if seed in seeds and seed in starts]
    chosen = [seed for seed in ranking.best.entries if seed in starts]
    used = fresh or chosen
    if not used:
        return None
    groups = {
        "best": {seed: seeds[seed] for seed in used},
        "start": starts,
        **{one.summary.name: dict(one.entries) for one in ranking.configurations},
    }
    flat = [one for group in groups.values() for one in group.values()]
    reference, tables = tables_of(board, plan, flat)
    table_iterator = iter(tables)
    rows = {
        name: Replicates(name=name, scores={seed: next(table_iterator) for seed in group})
        for name, group in groups.items()
    }
    start, winner = rows.pop("start"), rows.pop("best")
    rng = numpy_generator(board.studies[plan].train_seed, "control")
    added = added_to(start, winner, list(rows.values()), reference, rng=rng)
    assert added is not None  # both have these seeds
    args = args_of(start, reference)
    return Control(
        arg=float(np.mean([args[seed] for seed in used])), added=added, fresh=bool(fresh)
    )


def _starts(board: RecordedLeaderboard, best: PointStatus) -> Iterator[tuple[int, PointStatus]]:
    """Yield upstream seed and point of the untrained starts that are drawn like the best one's."""
    plan, config = best.trial.plan, best.trial.learned
    assert config is not None
    for point, score in board.scored_of(plan, CONTROL):
        # nothing but what the start is drawn by matters without learning
        names = {"start", "start_seed", "seed"} & set(point.settings)
        own = UpstreamConfig(method=CONTROL, **{name: point.settings[name] for name in names})
        if (own.start, own.start_seed) == (config.start, config.start_seed):
            spec = UpstreamSpec(config=own, rungs=(point.steps,))
            trial = dataclasses.replace(best.trial, upstream=spec)
            yield (
                seed_of(trial),
                PointStatus(index=-1, trial=trial, steps=point.steps, record=point, score=score),
            )
