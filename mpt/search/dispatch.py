"""Which trials have to run: what is missing, plain prompt tuning first, shared work once.

A trial of Tune may serve several studies: those with the same sources share what is learned
upstream, and those that score the same tasks share plain prompt tuning, fine-tuning and zero-shot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.store.records import BASELINE
from mpt.study.record import study_record
from mpt.study.specs import PromptTuningConfig, TrialSpec, baseline_trials, settings_of
from mpt.trial.runs import baseline_packs, keys_of, of_tasks
from mpt.trial.store import TrialStore
from mpt.trial.trial import finish_point

if TYPE_CHECKING:
    from mpt.search.cost.time_left import TimeLeft
    from mpt.search.leaderboard import Leaderboard
    from mpt.store.database import Database
    from mpt.study.study import OpenStudy, StudyPlan
    from mpt.trial.score import PointScore


@dataclass(frozen=True, kw_only=True)
class TrialGroup:
    """What one trial of Tune works on: the same method and settings in one or more studies."""

    specs: tuple[TrialSpec, ...]
    indices: tuple[int, ...]
    """Their positions on the leaderboard; none for plain prompt tuning."""

    @property
    def name(self) -> str:
        """Readable name."""
        more = f"+{len(self.specs) - 1}" if len(self.specs) > 1 else ""
        return self.specs[0].name + more

    @property
    def length(self) -> tuple[int, int]:
        """Upstream steps and points: how long it takes beside groups of the same method."""
        rungs = {rung for spec in self.specs for rung in spec.upstream.rungs}
        return max(rungs), len(rungs)


@dataclass(frozen=True)
class Round:
    """Trials that go on where those before have ended."""

    board: Leaderboard
    """With the trials before, and these."""
    groups: Sequence[TrialGroup]
    time_left: TimeLeft


def open_groups(
    board: Leaderboard, studies: Callable[[StudyPlan], OpenStudy], database: Database
) -> list[TrialGroup]:
    """Return the trials that have to run, in the order they are started."""
    unfinished = [(n, trial) for n, trial in enumerate(board.trials) if not board.over(n)]
    needed = [plan for plan in board.studies if not board.baseline_there(plan)]
    return [*_baselines(needed, studies, database), *_shared(unfinished)]


def _baselines(
    plans: Sequence[StudyPlan], studies: Callable[[StudyPlan], OpenStudy], database: Database
) -> list[TrialGroup]:
    """Return one group a scored task; runs that several studies share are in one group."""
    groups: dict[tuple[str, ...], list[TrialSpec]] = {}
    store = TrialStore(database)
    for plan in plans:
        study = studies(plan)
        packs = baseline_packs(study)
        if finish_point(study_record(study).key, PromptTuningConfig(), "", packs, store):
            continue
        of_task = {task: tuple(keys_of(own)) for task, own in of_tasks(packs).items()}
        for spec in baseline_trials(plan):
            groups.setdefault(of_task[spec.tasks[0]], []).append(spec)
    stored_keys = database.present([key for keys in groups for key in keys])
    return [
        TrialGroup(specs=tuple(specs), indices=())
        for keys, specs in groups.items()
        if set(keys) - stored_keys
    ]


def _shared(unfinished: Sequence[tuple[int, TrialSpec]]) -> list[TrialGroup]:
    groups: dict[object, list[tuple[int, TrialSpec]]] = {}
    for index, trial in unfinished:
        if trial.upstream.tuned != "prompt":
            for task in trial.plan.scored:
                part = TrialSpec(plan=trial.plan, upstream=trial.upstream, tasks=(task,))
                groups.setdefault(_tuned_like(trial, task), []).append((index, part))
        else:
            groups.setdefault(trial.learned_from, []).append((index, trial))
    return [
        TrialGroup(specs=tuple(spec for _, spec in own), indices=tuple(index for index, _ in own))
        for own in groups.values()
    ]


def _tuned_like(trial: TrialSpec, task: str) -> object:
    """Return what trials share that do the same on a task, with nothing learned upstream."""
    plan, config, own = trial.plan, trial.plan.config, trial.upstream.config
    study = (config.precision, config.downstream) if own.tuned == "nothing" else ()
    return (
        own,
        study,
        task,
        config.backbone,
        config.gym,
        config.text,
        config.data_seeds,
        config.start_seeds,
        plan.target_shots,
    )


def flat_config(group: TrialGroup, number: int) -> dict[str, Any]:
    """Return the configuration that Tune and its trackers see: flat, of numbers and names.

    `number` is the group's place in the list that workers have.
    """
    spec = group.specs[0]
    config = spec.plan.config
    settings = settings_of(spec.upstream.config)
    numbers = {
        name: value
        for name, value in settings.items()
        if isinstance(value, (bool, int, float, str)) and name != "method"
    }
    own = dict(settings.get("extra") or ())
    baseline = spec.method == BASELINE
    return {
        "trial": number,
        "method": spec.method,
        "partition": config.partition,
        "backbone": config.backbone,
        "train_seed": config.train_seed,
        **({"task": spec.tasks[0]} if baseline and spec.tasks else {}),
        **numbers,
        **own,
    }


def rung_report(rungs: Sequence[int], scores: Mapping[int, PointScore]) -> dict[str, Any]:
    """Return ARG and interval at the last scored rung; NaN before the first.

    Args:
        rungs: of the trial, ascending, of one ratio where somebody halves by them.
        scores: rung → score, so far.

    Returns:
        ``arg``, ``arg_low`` and ``arg_high`` (in %, NaN where undefined); ``score``, which is
        finite at every rung, and ``best``, the highest so far; ``rung``, which grows by the ratio
        of the rungs from 1 on; ``rung_steps``, the rung itself (0 before the first).
    """
    if not scores:
        nothing = dict.fromkeys(("arg", "arg_low", "arg_high", "score", "best"), math.nan)
        return {**nothing, "rung": 0.0, "rung_steps": 0}
    steps = max(scores)
    arg, ratio = scores[steps].arg, rungs[1] / rungs[0] if len(rungs) > 1 else 1.0
    low, high = scores[steps].interval or (math.nan, math.nan)
    return {
        "arg": math.nan if arg is None else arg,
        "arg_low": low,
        "arg_high": high,
        "score": scores[steps].score,
        "best": max(score.score for score in scores.values()),
        "rung": ratio ** rungs.index(steps),
        "rung_steps": steps,
    }
