"""Multitask points that were searched in epochs: how many epochs their steps are.

A stored point has steps. An epoch is ⌈rows / batch⌉ steps, and the rows are those of the searched
study's source tasks; on another partition the same epochs are other steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mpt.errors import MptError
from mpt.gym.catalogue import load_catalogue
from mpt.gym.fewshot import load_task
from mpt.study.choice import point_config
from mpt.study.grids import source_rows
from mpt.study.study import gym_folder

if TYPE_CHECKING:
    from mpt.store.records import Point, StudyRecord
    from mpt.study.study import StudyPlan

COUNTED = "multitask"
"""The method whose spaces may count epochs."""


def searched_epochs(study: StudyRecord, points: Sequence[Point]) -> Mapping[str, int]:
    """Return point → epochs of the multitask points of a search; empty if it counted steps.

    The search counted epochs if the steps of every one of its points are whole epochs: one that
    counts steps has the same ones at all batch sizes, and few of them are. Where the files of the
    source tasks are gone or changed since, that cannot be told, and the steps stay what they are.
    """
    own = [point for point in points if point.method == COUNTED]
    rows = _rows(study) if own else None
    if rows is None:
        return {}
    each = {point.key: math.ceil(rows / point_config(point).batch_size) for point in own}
    if any(point.steps % each[point.key] for point in own):
        return {}
    return {point.key: point.steps // each[point.key] for point in own}


def epoch_steps(epochs: int, batch_size: int, plan: StudyPlan) -> int:
    """Return the steps that some epochs are on a study's source tasks."""
    return epochs * math.ceil(source_rows(plan) / batch_size)


def _rows(study: StudyRecord) -> int | None:
    """Return the train and dev rows of a study's source items; None if a file is not the same."""
    total = 0
    try:
        gym = gym_folder(study.gym)
        catalogue = load_catalogue(gym)
        for name, seed, digest in study.source:
            task = load_task(gym, catalogue.task(name), seed)
            if task.digest != digest:
                return None
            total += len(task.train) + len(task.dev)
    except MptError:
        return None
    return total or None
