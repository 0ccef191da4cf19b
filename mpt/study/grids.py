"""Spaces on a study: their trials, and how many rows an epoch runs over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.gym.catalogue import load_catalogue
from mpt.gym.fewshot import load_task
from mpt.study.specs import TrialSpec, trials_of
from mpt.study.study import gym_folder

if TYPE_CHECKING:
    from mpt.study.presets import SmokeSize
    from mpt.study.spaces import Space
    from mpt.study.study import StudyPlan


def on_study(space: Space, plan: StudyPlan) -> Space:
    """Return the space with the study's number of rows, where it counts epochs.

    Raises:
        DataError: a source task's file is absent or malformed (file and line).
    """
    return space.on_rows(source_rows(plan)) if space.epochs else space


def source_rows(plan: StudyPlan) -> int:
    """Return the train and dev rows of a study's source tasks at all data seeds together."""
    gym = gym_folder(plan.config.gym, plan.source_shots)
    catalogue = load_catalogue(gym).with_shots(plan.source_shots)
    tasks = (
        load_task(gym, catalogue.task(name), seed)
        for name in plan.source
        for seed in plan.config.data_seeds
    )
    return sum(len(task.train) + len(task.dev) for task in tasks)


def grid_trials(
    plan: StudyPlan,
    spaces: Sequence[Space],
    *,
    samples: int | None = None,
    seed: int = 0,
    size: SmokeSize | None = None,
) -> list[TrialSpec]:
    """Return the trials of every space, in their order.

    Args:
        plan: the study.
        spaces: one a method.
        samples: random trajectories of each instead of its whole grid.
        seed: of these draws.
        size: cuts them down to a smoke run.

    Raises:
        UsageError: a space has no grid, or fewer trajectories than are to be drawn.
        DataError: a space counts epochs, and a source task's file is absent or malformed.
    """
    trials: list[TrialSpec] = []
    for space in spaces:
        own_space = on_study(space, plan)
        trajectories = own_space.grid() if samples is None else own_space.sample(samples, seed)
        trials += trials_of(plan, trajectories if size is None else size.cut(trajectories))
    return trials
