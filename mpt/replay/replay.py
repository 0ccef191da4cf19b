"""Replay: best settings → partitions × backbones × methods, on the target tasks.

A cell is one method in one setting: a partition, or a part of its sources, or another sample
size. Plain prompt tuning is the baseline of every cell; its runs are shared by all cells that
score the same tasks (51 different ones in the ten partitions of the paper). Every cell is a trial
of a `SearchJob`, so kills, resumption and records are those of a search; cells that learn from the
same sources share one trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpt.config import UpstreamConfig, adapts
from mpt.errors import UsageError
from mpt.replay.best import BestPoints
from mpt.replay.request import Request, Setting, default_backbone, searched_by, settings_of
from mpt.replay.source import SettingsSource
from mpt.search.job import SearchJob
from mpt.study.specs import FINE_TUNING, FineTuningConfig, TrialSpec, UpstreamSpec


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A job, and where its settings are from."""

    job: SearchJob
    notes: tuple[str, ...]
    """One line a backbone and method."""


def plan_replay(request: Request, settings: Sequence[Setting] | None = None) -> Replay:
    """Turn a request into a job.

    Args:
        request: what is to be replayed.
        settings: where, instead of what the request's partitions and sweep say.

    Raises:
        UsageError: something named is unknown, no settings are known of some methods that were
            asked for (all are listed) or of any, several studies have best points, or a number
            format cannot be honoured.
        DataError: few-shot files are missing; all are listed.
    """
    searched = searched_by(request)
    best_points = None if searched is None else BestPoints(searched)
    trials: list[TrialSpec] = []
    notes: dict[str, None] = {}
    lacking: dict[str, None] = {}
    for backbone in request.backbones or (default_backbone(request),):
        source = SettingsSource(request, backbone, best_points)
        left, any_searched = dict[str, None](), False
        for setting in settings or settings_of(request, source.settings):
            plan = source.plan(setting)
            for method, needed in source.methods():
                best, own = source.best(method, plan), source.searched_as(method)
                if best is not None:
                    notes[f"{method}, {backbone}: {_text(best.upstream)} ({best.origin})"] = None
                    trials.append(TrialSpec(plan=plan, upstream=best.upstream))
                    any_searched = any_searched or method != FINE_TUNING
                elif needed:
                    where = f"{own} on {plan.config.backbone}"
                    named = request.methods or best_points is None
                    (lacking if named else left)[where] = None
        if left and not any_searched:  # nothing that was asked for
            lacking |= left
        elif left:
            notes[f"left out, since no search of it is there: {', '.join(left)}"] = None
    if lacking:
        raise UsageError(_lacking_text(list(lacking), best_points))
    title = "best of a search" if best_points else "settings as listed above"
    sweep = f", sweep over {request.sweep}" if request.sweep else ""
    smoke = ", at smoke size" if request.smoke else ""
    job = SearchJob(
        trials=tuple(trials),
        results=request.results,
        store=request.store,
        storage=request.storage,
        title=f"replay: {title}{sweep}{smoke}",
    )
    return Replay(job=job, notes=tuple(notes))


def _lacking_text(lacking: Sequence[str], points: BestPoints | None) -> str:
    names = ", ".join(lacking)
    if points is None:
        return (
            f"no settings are known of {names}; search them and give --from, or leave them out "
            "(--methods)"
        )
    passed, why = points.left_out, ""
    if passed:
        why = f" (smoke runs and searches that left tasks out do not count: {passed})"
    return (
        f"--from {points.name} holds no finished search of {names}{why}; search them first, leave "
        "them out (--methods), or take the points of another backbone (--searched-on)"
    )


def _text(upstream: UpstreamSpec) -> str:
    config = upstream.config
    if isinstance(config, FineTuningConfig):
        down = config.downstream
        return f"lr {', '.join(f'{lr:g}' for lr in down.lrs)}, {down.steps} steps"
    assert isinstance(config, UpstreamConfig)
    inner = f"inner lr {config.inner_lr:g}, " if adapts(config.method) else ""
    own = "".join(f"{name} {value:g}, " for name, value in config.extra)
    soup = "" if config.soup == 1 else f", soup of {config.soup}"
    return f"{inner}{own}outer lr {config.outer_lr:g}, {upstream.rungs[-1]} steps{soup}"
