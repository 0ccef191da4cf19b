"""The trials of several methods' spaces on one study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.study.epochs import on_study
from mpt.study.specs import TrialSpec, trials_of

if TYPE_CHECKING:
    from mpt.study.presets import SmokeSize
    from mpt.study.spaces import Space
    from mpt.study.study import StudyPlan


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
