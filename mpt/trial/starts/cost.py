"""What it costs a target to take a start, before it does: for a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig
    from mpt.study.study import OpenStudy


class ChoiceWork(NamedTuple):
    """What a target does to take its starts."""

    steps: int
    """Optimiser steps."""
    rows: int
    """Rows that pass forward or are evaluated."""

    def plus(self, other: ChoiceWork) -> ChoiceWork:
        """Return the work of both."""
        return ChoiceWork(self.steps + other.steps, self.rows + other.rows)


NOTHING = ChoiceWork(0, 0)


def choice_work(
    down: DownstreamConfig, *, learned: int, starts: int, train: int, dev: int
) -> ChoiceWork:
    """Return what it costs a target to take one start at each of the downstream starts.

    A learned prompt has one loss whatever the downstream start, but is raced at each: the order of
    train rows is another. The losses that decide ties of a race are not in it.

    Args:
        down: the recipe.
        learned: learned prompts at hand, see `learned_starts`.
        starts: downstream starts, with a start of plain prompt tuning each.
        train: train rows of the target.
        dev: its dev rows.
    """
    dev = min(dev, down.max_dev or dev)
    if down.start == "learned":
        return NOTHING
    if down.start == "chosen":
        return ChoiceWork(0, (learned + starts) * (train + dev))
    race = down.race_on(train)
    runs = (learned + 1) * starts * len(down.lrs)
    return ChoiceWork(runs * race.steps, runs * -(-race.steps // race.eval_every) * dev)


def choice_of_all(study: OpenStudy, learned: int) -> ChoiceWork:
    """Return what it costs all targets of a point to take their starts."""
    total = NOTHING
    for samples in study.scored.values():
        for task in samples.values():
            own = choice_work(
                study.config.downstream,
                learned=learned,
                starts=study.config.starts,
                train=len(task.train),
                dev=len(task.dev),
            )
            total = total.plus(own)
    return total


def learned_starts(members: int) -> int:
    """Return how many learned prompts are at hand: one, or members of a soup and their mean."""
    return 1 if members == 1 else members + 1
