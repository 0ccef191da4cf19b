"""A study with everything loaded: backbone, source items, scored tasks.

The driver resolves a `StudyConfig` into a `StudyPlan` (names only: which tasks are learned from
and which are scored); each worker opens the plan for itself.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.config import StudyConfig, UpstreamConfig
from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import load_catalogue, missing_tasks
from mpt.gym.fewshot import FewShotTask, load_task

if TYPE_CHECKING:
    from mpt.backbones import Backbone


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """A study's settings and the names of its tasks; small, and the same on every node."""

    config: StudyConfig
    source: tuple[str, ...]
    """Source tasks that are learned from, in the partition's order."""
    scored: tuple[str, ...]
    """Tasks the score runs over."""
    role: str = "validation"
    """What the scored tasks are: "validation" tasks of a search, or "target" tasks of a replay."""
    source_set: str = "all"
    """Name of the choice of source tasks: "all" of the partition's, or a part of them."""
    source_shots: int | None = None
    """Shots of the source tasks' files (`ALL_SHOTS` for all); None: each task's own."""
    target_shots: int | None = None
    """Shots of the scored tasks' files (`ALL_SHOTS` for all); None: each task's own."""
    partial: str | None
    """What is left out, for the label of every result; None if nothing is."""


def plan_study(
    config: StudyConfig, *, allow_missing: bool = False, smoke_sources: int | None = None
) -> StudyPlan:
    """Find the tasks of a study and check that their files are there.

    Only what a search reads is asked for: the partition's source tasks and the validation tasks.
    Target tasks are for the replay of the best point.

    Args:
        config: the study; `gym` and a local `backbone` path may be relative.
        allow_missing: go on without the tasks that are missing; every result is labelled.
        smoke_sources: take this many available source tasks only (a smoke run).

    Raises:
        UsageError: the partition is unknown (the known ones are listed), or the gym is absent.
        DataError: tasks are missing; all of them are listed.
    """
    gym = gym_folder(config.gym)
    catalogue = load_catalogue(gym)
    partition = catalogue.partition(config.partition)
    lenient = allow_missing or smoke_sources is not None
    source = _available(gym, partition.source, config)
    validation = _available(gym, catalogue.validation_tasks, config)
    lost = {**source.missing, **validation.missing}
    if lost and not lenient:
        raise DataError(_missing_text(gym, config, lost))
    notes = [f"smoke, {smoke_sources} source tasks"] if smoke_sources is not None else []
    notes += source.note("source") + validation.note("validation")
    if not source.there or not validation.there:
        kind = "source" if not source.there else "validation"
        raise DataError(f"{gym}: none of the {kind} tasks of {config.partition} is there")
    return StudyPlan(
        config=_absolute(config),
        source=source.there[:smoke_sources],
        scored=validation.there,
        partial=f"partial: {'; '.join(notes)}" if notes else None,
    )


def gym_folder(gym: str) -> Path:
    """Return the folder of a gym's few-shot files; "embedded" is generated where it is absent."""
    if gym == "embedded":
        from mpt.gym.embedded import ensure_embedded_gym

        return ensure_embedded_gym()
    return Path(gym).expanduser()


@dataclass(frozen=True)
class _Available:
    there: tuple[str, ...]
    missing: Mapping[str, str]

    def note(self, kind: str) -> list[str]:
        if not self.missing:
            return []
        total = len(self.there) + len(self.missing)
        return [f"{len(self.missing)} of {total} {kind} tasks missing"]


def _available(gym: Path, names: Sequence[str], config: StudyConfig) -> _Available:
    missing = missing_tasks(gym, names, config.data_seeds)
    return _Available(tuple(name for name in names if name not in missing), missing)


def _missing_text(gym: Path, config: StudyConfig, lost: Mapping[str, str]) -> str:
    listed = "; ".join(f"{name} ({reason})" for name, reason in lost.items())
    return (
        f"{gym}: partition {config.partition} and its validation tasks lack {len(lost)} tasks: "
        f"{listed}. Build them (python -m mpt.gym build), or go on without them: --allow-missing "
        "labels every result as partial"
    )


def _absolute(config: StudyConfig) -> StudyConfig:
    """Make local paths absolute: a worker runs in another directory."""
    gym = config.gym if config.gym == "embedded" else str(Path(config.gym).expanduser().resolve())
    backbone = config.backbone
    local = Path(backbone).expanduser()
    if backbone != "embedded" and local.exists():
        backbone = str(local.resolve())
    return dataclasses.replace(config, gym=gym, backbone=backbone)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that is ready to compute."""

    plan: StudyPlan
    backbone: Backbone
    items: tuple[FewShotTask, ...]
    """Upstream items: every source task at every data seed."""
    scored: Mapping[str, Mapping[int, FewShotTask]]
    """Scored task → data seed → its few-shot sample."""

    @property
    def config(self) -> StudyConfig:
        """The study's settings."""
        return self.plan.config

    def trajectory_key(self, upstream: UpstreamConfig) -> str:
        """Return the key of an upstream trajectory on this study's source items."""
        from mpt.upstream.engine import trajectory_key

        config = self.config
        return trajectory_key(
            self.backbone,
            self.items,
            upstream,
            config.prompt,
            config.upstream_text,
            config.train_seed,
        )


def open_study(plan: StudyPlan, device: str = "cpu") -> Study:
    """Load the backbone and read the few-shot files.

    Raises:
        UsageError: the backbone cannot be loaded.
        DataError: a few-shot file is malformed (file and line).
    """
    config = plan.config
    gym = gym_folder(config.gym)
    catalogue = load_catalogue(gym)
    source, scored = (
        catalogue.with_shots(plan.source_shots),
        catalogue.with_shots(plan.target_shots),
    )
    seeds = config.data_seeds
    items = [load_task(gym, source.task(name), seed) for name in plan.source for seed in seeds]
    samples = {
        name: {seed: load_task(gym, scored.task(name), seed) for seed in seeds}
        for name in plan.scored
    }
    if not items:
        raise UsageError("the study has no source tasks")
    backbone = _backbone(config.backbone, device, config.prompt.position)
    return Study(plan=plan, backbone=backbone, items=tuple(items), scored=samples)


@functools.lru_cache(maxsize=1)
def _backbone(name: str, device: str, position: str) -> Backbone:
    """Load a backbone once for all studies in a row that use it."""
    from mpt.backbones import load_backbone  # torch and transformers take seconds to import

    return load_backbone(name, device=device, position=position)
