"""Spaces that count epochs, tied to the files of a study: how many rows an epoch runs over."""

from __future__ import annotations

from mpt.gym.catalogue import load_catalogue
from mpt.gym.fewshot import load_task
from mpt.study.spaces import Space
from mpt.study.study import StudyPlan, gym_folder


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
