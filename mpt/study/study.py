"""A study with everything loaded: backbone, source items, scored tasks.

The driver resolves a `StudyConfig` into a `StudyPlan` (names only: which tasks are learned from
and which are scored); each worker opens the plan for itself.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.config import EMBEDDED_BACKBONES, StudyConfig
from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import Catalogue, Partition, load_catalogue, missing_tasks
from mpt.gym.fewshot import FewShotTask, load_task
from mpt.metrics.task_metrics import GOLD_F1
from mpt.study.replaced import replaced_tasks
from mpt.words import counted

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
    smoke: bool = False
    """Whether this is a smoke run, whose numbers mean nothing."""


def plan_study(
    config: StudyConfig,
    *,
    role: str = "validation",
    scored: Sequence[str] | None = None,
    source: Sequence[str] | None = None,
    source_set: str = "all",
    source_shots: int | None = None,
    target_shots: int | None = None,
    allow_missing: bool = False,
    smoke_sources: int | None = None,
    smoke_scored: int | None = None,
) -> StudyPlan:
    """Find the tasks of a study and check that their files are there.

    Only what will be read is asked for: the source tasks, and the validation tasks of a search or
    the target tasks of a replay.

    Args:
        config: the study; `gym` and a local `backbone` path may be relative.
        role: what is scored, "validation" or "target" tasks.
        scored: these tasks instead of the catalogue's for the role.
        source: these source tasks instead of the catalogue's; `source_set` is their name then.
        source_set: "all", or which part of the sources, see `source_tasks`.
        source_shots: another sample size of the source tasks, see `gym_folder`.
        target_shots: the same for the scored tasks.
        allow_missing: go on without the tasks that are missing; every result is labelled.
        smoke_sources: take this many available source tasks only (a smoke run).
        smoke_scored: the same for the scored tasks; None: all that are there.

    Raises:
        UsageError: partition or source set is unknown (the known ones are listed), the gym is
            absent, a task is both learned from and scored, or a replacement is refused (see
            `replaced_tasks`).
        DataError: tasks are missing; all of them are listed.
    """
    catalogue = load_catalogue(gym_folder(config.gym))
    partition = catalogue.partition(config.partition)
    named = _named(config.validation, catalogue)
    chosen: str | None = None
    if scored is None and role == "target":
        scored = [name for name in config.target if name in partition.target] or partition.target
        if len(scored) < len(partition.target):
            chosen = f"{len(scored)} of {len(partition.target)} target tasks chosen"
    elif scored is None:
        scored = named or catalogue.validation_tasks
    if source is None:
        source = source_tasks(catalogue, partition, source_set)
        source = tuple(name for name in source if name not in named)
    elif both := [name for name in source if name in scored]:
        raise UsageError(f"{both[0]} is learned from and scored; leave it out of one of them")
    source, scored = replaced_tasks(catalogue, config.replaced, source, scored)
    learned = _available("source", source, config, source_shots)
    tasks = _available(role, scored, config, target_shots)
    if (learned.missing or tasks.missing) and not allow_missing and smoke_sources is None:
        raise DataError(_missing_text(config, role, (learned, tasks)))
    for part in (learned, tasks):
        if not part.present:
            raise DataError(
                f"{part.gym}: none of the {part.kind} tasks of {config.partition} is there"
            )
    smoke = []
    if smoke_sources is not None:  # there may be fewer
        count = len(learned.present[:smoke_sources])
        smoke.append(f"smoke, {counted(count, 'source task')}")
    if smoke_scored is not None:
        smoke.append(counted(len(tasks.present[:smoke_scored]), f"{role} task"))
    notes = [", ".join(smoke)] if smoke else []
    notes += [] if chosen is None else [chosen]
    notes += learned.note() + tasks.note()
    return StudyPlan(
        config=absolute(config),
        source=learned.present[:smoke_sources],
        scored=tasks.present[:smoke_scored],
        role=role,
        source_set=source_set,
        source_shots=source_shots,
        target_shots=target_shots,
        partial=f"partial: {'; '.join(notes)}" if notes else None,
        smoke=smoke_sources is not None or smoke_scored is not None,
    )


def _named(names: Sequence[str], catalogue: Catalogue) -> Sequence[str]:
    """Return a preset's validation tasks; none in a gym that the preset is not made for."""
    unknown = [name for name in names if name not in catalogue.tasks]
    if unknown and len(unknown) < len(names):
        raise UsageError(f"validation task {unknown[0]!r} is unknown; name tasks of this gym only")
    return () if unknown else names


def source_tasks(catalogue: Catalogue, partition: Partition, source_set: str) -> tuple[str, ...]:
    """Return the source tasks of a partition, or a part of them.

    Args:
        catalogue: names the parts, ``<partition>_<source set>``.
        partition: whose sources.
        source_set: "all", or the name of a part, e.g. "12".

    Raises:
        UsageError: the partition has no such part; those it has are listed.
    """
    if source_set == "all":
        return partition.source
    known = source_sets(catalogue, partition.name)
    if source_set not in known:
        raise UsageError(
            f"source set {source_set!r} of {partition.name} is unknown; known are "
            f"{', '.join([*known, 'all'])}"
        )
    return known[source_set]


def source_sets(catalogue: Catalogue, partition: str) -> dict[str, tuple[str, ...]]:
    """Return the named parts of a partition's sources: name → tasks."""
    head = f"{partition}_"
    return {
        name.removeprefix(head): tasks
        for name, tasks in catalogue.source_subsets.items()
        if name.startswith(head)
    }


def shots_text(shots: int | None) -> str:
    """Return a sample size for people: "own" for each task's own, "all" for `ALL_SHOTS`."""
    return "own" if shots is None else str(shots or "all")


def gym_folder(gym: str, shots: int | None = None) -> Path:
    """Return the folder of a gym's few-shot files at a sample size.

    The embedded gym is generated where it is absent. Files of another size than the gym's own are
    looked for in ``<gym>-<shots>`` (``<gym>-all``), where ``python -m mpt.gym build --shots`` may
    put them, and without such a folder beside the gym's own files, as CrossFit has them.
    """
    if gym == "embedded":
        from mpt.embedded.gym import ensure_embedded_gym

        return ensure_embedded_gym() if shots is None else ensure_embedded_gym(shots=shots)
    own = Path(gym).expanduser()
    if shots is None:
        return own
    other = own.with_name(f"{own.name}-{shots or 'all'}")
    return other if other.is_dir() else own


@dataclass(frozen=True)
class _Available:
    kind: str
    gym: Path
    present: tuple[str, ...]
    missing: Mapping[str, str]

    def note(self) -> list[str]:
        if not self.missing:
            return []
        total = len(self.present) + len(self.missing)
        return [f"{len(self.missing)} of {total} {self.kind} tasks missing"]


def _available(
    kind: str, names: Sequence[str], config: StudyConfig, shots: int | None
) -> _Available:
    gym = gym_folder(config.gym, shots)
    missing = missing_tasks(gym, names, config.data_seeds, shots)
    return _Available(kind, gym, tuple(name for name in names if name not in missing), missing)


def _missing_text(config: StudyConfig, role: str, parts: Sequence[_Available]) -> str:
    lost = {name: reason for part in parts for name, reason in part.missing.items()}
    where = dict.fromkeys(str(part.gym) for part in parts if part.missing)
    listed = "; ".join(f"{name} ({reason})" for name, reason in lost.items())
    return (
        f"{' and '.join(where)}: partition {config.partition} and its {role} tasks lack "
        f"{counted(len(lost), 'task')}: {listed}. Build them (python -m mpt.gym build; other "
        "sample sizes with --shots K --out GYM-K), or go on without them: --allow-missing labels "
        "every result as partial"
    )


def absolute(config: StudyConfig) -> StudyConfig:
    """Return a study whose local paths are absolute: a worker runs in another directory."""
    gym = config.gym if config.gym == "embedded" else str(Path(config.gym).expanduser().resolve())
    return dataclasses.replace(config, gym=gym, backbone=absolute_backbone(config.backbone))


def absolute_backbone(name: str) -> str:
    """Return a backbone as plans and records have it: local paths are absolute."""
    local = Path(name).expanduser()
    is_path = name not in EMBEDDED_BACKBONES and local.exists()
    return str(local.resolve()) if is_path else name


@dataclass(frozen=True, kw_only=True)
class OpenStudy:
    """A study that is ready to compute."""

    plan: StudyPlan
    backbone: Backbone
    items: tuple[FewShotTask, ...]
    """Upstream items: every source task at every data seed."""
    scored: Mapping[str, Mapping[int, FewShotTask]]
    """Scored task → data seed → its few-shot sample."""
    computes: bool = True
    """Whether the weights are loaded; else only what keys need of them is known, and the driver of
    a search holds no copy of the model."""

    @property
    def config(self) -> StudyConfig:
        """The study's settings."""
        return self.plan.config

    def upstream_backbone(self, method: str) -> Backbone:
        """Return what a method learns upstream through, see `StudyConfig.upstream_precision`."""
        number_format = self.config.upstream_format(method)
        return self.further_backbone(dataclasses.replace(self.config, precision=number_format))

    def further_backbone(self, config: StudyConfig) -> Backbone:
        """Return the backbone of a study like this one in another number format, or another."""
        own = self.config
        if (config.backbone, config.precision) == (own.backbone, own.precision):
            return self.backbone
        known = None if self.computes else _known(config, self)
        return known or backbone_of(config, str(self.backbone.device))


def open_study(plan: StudyPlan, device: str = "cpu", *, computes: bool = True) -> OpenStudy:
    """Load the backbone and read the few-shot files.

    Raises:
        UsageError: the backbone cannot be loaded.
        DataError: a few-shot file is malformed (file and line).
    """
    config = plan.config
    source = _samples(config, plan.source, plan.source_shots)
    items = [sample for samples in source.values() for sample in samples.values()]
    samples = {
        name: {seed: _as_searched(plan, task) for seed, task in of_task.items()}
        for name, of_task in _samples(config, plan.scored, plan.target_shots).items()
    }
    if not items:
        raise UsageError("the study has no source tasks")
    backbone = backbone_of(config, device) if computes else _named_only(config)
    return OpenStudy(
        plan=plan, backbone=backbone, items=tuple(items), scored=samples, computes=computes
    )


def _samples(
    config: StudyConfig, names: Sequence[str], shots: int | None
) -> dict[str, dict[int, FewShotTask]]:
    """Read tasks at a sample size: task → data seed → sample."""
    gym = gym_folder(config.gym, shots)
    catalogue = load_catalogue(gym).with_shots(shots)
    return {
        name: {seed: load_task(gym, catalogue.task(name), seed) for seed in config.data_seeds}
        for name in names
    }


def _as_searched(plan: StudyPlan, task: FewShotTask) -> FewShotTask:
    """Return a scored task with the metric that it has in a search."""
    how = plan.config.classification
    if plan.role == "target" or how == "published" or task.metric != "Classification-F1":
        return task
    return dataclasses.replace(task, metric=GOLD_F1 if how == "gold" else "ACC")


def backbone_of(config: StudyConfig, device: str) -> Backbone:
    """Load a study's backbone, once for all studies in a row that use it.

    Raises:
        UsageError: there is no such backbone, or its number format is refused.
    """
    return _backbone(config.backbone, device, config.prompt.position, config.precision)


@functools.lru_cache(maxsize=3)  # upstream learning and fine-tuning may have others
def _backbone(name: str, device: str, position: str, precision: str) -> Backbone:
    import torch  # torch and transformers take seconds to import

    from mpt.backbones import load_backbone

    return load_backbone(name, device=device, dtype=getattr(torch, precision), position=position)


def release_weights() -> None:
    """Forget the weights that `backbone_of` keeps for the next study; open studies have theirs."""
    if _backbone.cache_info().currsize:
        _backbone.cache_clear()
        gc.collect()  # a model may hold itself; that takes up to a second among all imports


def _named_only(config: StudyConfig) -> Backbone:
    """Return a backbone of which a study that does not compute needs no more than its names.

    It has the weights of words alone, where the files tell the digest that the loaded weights
    have; that they do is looked at once, and what is loaded for it goes with `release_weights`.
    """
    where = (config.backbone, config.prompt.position, config.precision)
    told = _weightless(*where, words=True)
    if told is None or told.digest != _digest(*where):
        return backbone_of(config, "cpu")
    return told


@functools.lru_cache(maxsize=8)
def _digest(name: str, position: str, precision: str) -> str:
    """Return the digest of the loaded weights."""
    return _backbone(name, "cpu", position, precision).digest


def _known(config: StudyConfig, study: OpenStudy) -> Backbone | None:
    """Return a backbone without weights, as a study that does not compute has it.

    None where the files do not tell its digest; that they tell the digest of the loaded weights is
    looked at first.
    """
    loaded, own = study.backbone, study.config
    if config.backbone == own.backbone:
        where = (own.backbone, own.prompt.position, own.precision)
        told = _weightless(*where, words=True) or _weightless(*where)
        if told is None or told.digest != loaded.digest:
            return None
    return _weightless(config.backbone, config.prompt.position, config.precision)


@functools.lru_cache(maxsize=4)
def _weightless(
    name: str, position: str, precision: str, *, words: bool = False
) -> Backbone | None:
    import torch

    from mpt.study.weightless import weightless

    return weightless(name, getattr(torch, precision), position, words=words)
