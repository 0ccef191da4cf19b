"""Replay: best settings → partitions × backbones × methods, on the target tasks.

A cell is one method in one setting: a partition, or a part of its sources, or another sample
size. Plain prompt tuning is the baseline of every cell; its runs are shared by all cells that
score the same tasks (51 different ones in the ten partitions of the paper). Every cell is a trial
of a `SearchJob` for each upstream seed, so kills, resumption and records are those of a search;
cells that learn from the same sources with the same seed share one trajectory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpt.config import UpstreamConfig, adapts
from mpt.errors import UsageError
from mpt.replay.best import BestPoints
from mpt.replay.request import Request, Setting, default_backbone, searched_by, settings_of
from mpt.replay.source import SettingsSource
from mpt.search.job import SearchJob
from mpt.search.replication import replicates_of
from mpt.study.specs import BASELINES, FineTuningConfig, TrialSpec, UpstreamSpec, ZeroShotConfig
from mpt.words import counted


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A job, and where its settings are from."""

    job: SearchJob
    notes: tuple[str, ...]
    """One line a backbone and method."""


def plan_replay(request: Request, settings: Sequence[Setting] | None = None) -> Replay:
    """Turn a request into a job.

    Where the request or the preset names upstream seeds (or how many), every cell is run with all
    of them, fine-tuning and zero-shot once; else with the first one.

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
    points = None if searched is None else BestPoints(searched)
    cells, strict = _Cells(), bool(request.methods) or points is None
    for backbone in request.backbones or (default_backbone(request),):
        source = SettingsSource(request, backbone, points)
        where = settings or settings_of(request, source.settings)
        cells.add(backbone, source, where, strict=strict)
    if cells.lacking:
        raise UsageError(_lacking_text(list(cells.lacking), points))
    job = job_of(
        cells.trials,
        lambda cell: seeds_asked(request, cell),
        _title(request, points),
        **request.places,
    )
    return Replay(job=job, notes=tuple(cells.notes))


def job_of(
    cells: Iterable[TrialSpec],
    seeds_of: Callable[[TrialSpec], Sequence[int]],
    title: str,
    **places: Any,
) -> SearchJob:
    """Return the job of the cells of a replay."""
    replicates = [replicates_of(cell, seeds_of(cell)) for cell in cells]
    seeds = max(map(len, replicates), default=1)
    several = f", {counted(seeds, 'upstream seed')} a cell" if seeds > 1 else ""
    return SearchJob(trials=in_rounds(replicates), title=f"replay: {title}{several}", **places)


def seeds_asked(request: Request, cell: TrialSpec) -> tuple[int, ...]:
    """Return the upstream seeds of a cell: those that a request names, else its preset's.

    A preset's seeds for replays are `StudyConfig.target_seeds`; without any a replay has one.
    """
    options = request.options
    named = options.replicates is not None or options.upstream_seeds is not None
    return cell.plan.config.seeds if named else cell.plan.config.target_seeds


def in_rounds(replicates: Iterable[Sequence[TrialSpec]]) -> tuple[TrialSpec, ...]:
    """Return trials in the order they are started: all cells with one seed, then with the next."""
    rounds = itertools.zip_longest(*replicates)
    return tuple(trial for one in rounds for trial in one if trial is not None)


@dataclass
class _Cells:
    """The cells of a replay, one trial each, and what was found out on the way."""

    trials: list[TrialSpec] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    lacking: dict[str, None] = field(default_factory=dict)
    """Methods that were asked for and have no settings."""

    def add(
        self, backbone: str, source: SettingsSource, settings: Iterable[Setting], *, strict: bool
    ) -> None:
        """Take in the cells of one backbone.

        Args:
            backbone: as the user named it.
            source: its settings.
            settings: where.
            strict: no method may lack settings; else some may, if others have been searched.
        """
        left_out, any_searched = dict[str, None](), False
        for setting in settings:
            plan = source.plan(setting)
            for method, needed in source.methods():
                best = source.best(method, plan)
                if best is not None:
                    text = f"{method}, {backbone}: {_text(best.upstream)} ({best.origin})"
                    self.notes[text] = None
                    self.trials.append(TrialSpec(plan=plan, upstream=best.upstream))
                    any_searched = any_searched or method not in BASELINES
                elif needed:
                    where = f"{source.searched_as(method)} on {plan.config.backbone}"
                    (self.lacking if strict else left_out)[where] = None
        if left_out and not any_searched:  # nothing that was asked for
            self.lacking |= left_out
        elif left_out:
            self.notes[f"left out, since no search of it is there: {', '.join(left_out)}"] = None


def _title(request: Request, points: BestPoints | None) -> str:
    title = "best of a search" if points else "settings as listed above"
    sweep = f", sweep over {request.sweep}" if request.sweep else ""
    smoke = ", at smoke size" if request.smoke else ""
    return f"{title}{sweep}{smoke}"


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
    if isinstance(config, ZeroShotConfig):
        return "the model as it is, without a prompt"
    assert isinstance(config, UpstreamConfig)
    inner = f"inner lr {config.inner_lr:g}, " if adapts(config.method) else ""
    own = "".join(f"{name} {value:g}, " for name, value in config.extra)
    soup = "" if config.soup == 1 else f", soup of {config.soup}"
    return f"{inner}{own}outer lr {config.outer_lr:g}, {upstream.rungs[-1]} steps{soup}"
