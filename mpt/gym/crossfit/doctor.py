"""What is in a gym directory: tasks, partitions, and text that source and target tasks share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpt.errors import DataError
from mpt.gym.catalogue import Catalogue, Partition, TaskInfo, load_catalogue
from mpt.gym.crossfit.tasks import load_rows
from mpt.gym.crossfit.verify import compare, published_sums
from mpt.gym.fewshot import Example, available_seeds, parse
from mpt.gym.overlap import Matches, Overlap, Texts
from mpt.gym.records import changed_files, failures, read_record

MAX_TEST = 1000
"""Test inputs a task that are searched for near-duplicates, from the first on (the study reads no
more of them, recipe row 23)."""


@dataclass(frozen=True)
class TaskState:
    """One task of a gym."""

    task: str
    status: str
    """ "built", "differs" (readable, but not the published or not the recorded bytes) or
    "unavailable"."""
    reason: str
    seeds: tuple[int, ...] = ()
    """Complete data seeds."""
    broken: bool = False
    """Whether its files are there but cannot be read."""


@dataclass(frozen=True)
class PartitionState:
    """One partition of a gym."""

    name: str
    missing_source: tuple[str, ...]
    missing_target: tuple[str, ...]
    inputs: int
    """Inputs of the readable target tasks."""
    near_learn: int
    """Of these: near-duplicates of train or dev inputs of a readable source task."""
    near_anywhere: int
    """Of these: near-duplicates of any input of a readable source task."""

    @property
    def complete(self) -> bool:
        """Whether every source and target task is readable."""
        return not self.missing_source and not self.missing_target


@dataclass(frozen=True)
class Pair:
    """Near-duplicates between one source and one target task, over all partitions."""

    source: str
    target: str
    share_learn: float
    """Share of the target's inputs that are near-duplicates of the source's train or dev."""
    share_anywhere: float


@dataclass(frozen=True)
class Diagnosis:
    """What `examine` finds."""

    tasks: tuple[TaskState, ...]
    partitions: tuple[PartitionState, ...]
    pairs: tuple[Pair, ...]
    """Every pair with a near-duplicate, the largest share first."""


def examine(gym: Path, on_task: Callable[[str], None] = lambda name: None) -> Diagnosis:
    """Examine every task and partition of a gym's catalogue."""
    catalogue = load_catalogue(gym)
    notes = failures(gym)
    states, texts = [], {}
    for info in catalogue.tasks.values():
        state, own_texts = _task(gym, info, notes.get(info.name, ""))
        states.append(state)
        if own_texts is not None:
            texts[info.name] = own_texts
        on_task(info.name)
    partitions, pairs = _shared(catalogue, texts)
    return Diagnosis(tuple(states), partitions, pairs)


def _task(gym: Path, info: TaskInfo, failure: str) -> tuple[TaskState, Texts | None]:
    def unavailable(reason: str) -> tuple[TaskState, None]:
        return TaskState(info.name, "unavailable", reason), None

    folder = gym / info.name
    if not folder.is_dir():
        return unavailable(failure or "not built")
    seeds = available_seeds(gym, info)
    if not seeds:
        return unavailable(f"no data seed has train, dev and test at {info.shots or 'all'} shots")
    try:
        texts = read_texts(gym, info, seeds)
    except (DataError, OSError) as error:
        return TaskState(info.name, "unavailable", str(error), broken=True), None
    record = read_record(folder)
    changed = changed_files(folder, record) if record is not None else []
    if changed:
        reason = f"changed since it was built: {changed[0]} ({len(changed)} files)"
        return TaskState(info.name, "differs", reason, seeds), texts
    return _against_published(gym, info, seeds), texts


def _against_published(gym: Path, info: TaskInfo, seeds: tuple[int, ...]) -> TaskState:
    published = load_catalogue(None).tasks.get(info.name)
    if published != info or info.name not in published_sums():
        shots = info.shots or "all"
        reason = f"{len(seeds)} data seeds, {shots} shots (no published sums for them)"
        return TaskState(info.name, "built", reason, seeds)
    files = compare(gym, info.name)
    if not files.different:
        count = len(files.same)
        return TaskState(info.name, "built", f"{count} of 15 files, all as published", seeds)
    return TaskState(info.name, "differs", f"as published: {files.counts()}{_why(info)}", seeds)


def _why(info: TaskInfo) -> str:
    row = load_rows()[info.name]
    reasons = [row.hub_note] if row.hub_note else []
    if row.hash_ordered:
        reasons.append("the published order of references changes from run to run")
    return "; known: " + "; ".join(reasons) if reasons else ""


def read_texts(gym: Path, info: TaskInfo, seeds: Sequence[int]) -> Texts:
    """Parse every file of the task once; files with equal bytes count once."""
    seen: dict[bytes, tuple[Example, ...]] = {}

    def examples(seed: int, part: str) -> tuple[Example, ...]:
        path = gym / info.name / info.file_name(seed, part)
        content = path.read_bytes()
        key = hashlib.sha256(content).digest()
        if key not in seen:
            seen[key] = parse(content, path)
        return seen[key]

    learn = (
        example for seed in seeds for part in ("train", "dev") for example in examples(seed, part)
    )
    tests = {example.input for seed in seeds for example in examples(seed, "test")[:MAX_TEST]}
    return Texts(sorted({example.input for example in learn}), sorted(tests))


def _shared(
    catalogue: Catalogue, texts: Mapping[str, Texts]
) -> tuple[tuple[PartitionState, ...], tuple[Pair, ...]]:
    overlap = Overlap(texts)
    at = {name: number for number, name in enumerate(overlap.tasks)}
    targets = {name for part in catalogue.partitions.values() for name in part.target}
    matches = {name: overlap.matches(name) for name in sorted(targets & set(at))}

    def state(part: Partition) -> PartitionState:
        sources = [at[name] for name in part.source if name in at]
        target_matches = [matches[name] for name in part.target if name in at]
        return PartitionState(
            part.name,
            tuple(name for name in part.source if name not in at),
            tuple(name for name in part.target if name not in at),
            sum(len(match.learn) for match in target_matches),
            sum(int(match.learn[:, sources].any(axis=1).sum()) for match in target_matches),
            sum(int(match.anywhere[:, sources].any(axis=1).sum()) for match in target_matches),
        )

    wanted = {
        (source, target)
        for part in catalogue.partitions.values()
        for source in part.source
        for target in part.target
        if source in at and target in at
    }
    pairs = (_pair(source, target, at[source], matches[target]) for source, target in wanted)
    found_pairs = sorted(
        (pair for pair in pairs if pair.share_anywhere > 0),
        key=lambda pair: (-pair.share_anywhere, pair.source, pair.target),
    )
    return tuple(map(state, catalogue.partitions.values())), tuple(found_pairs)


def _pair(source: str, target: str, column: int, matches: Matches) -> Pair:
    return Pair(
        source,
        target,
        float(np.mean(matches.learn[:, column])),
        float(np.mean(matches.anywhere[:, column])),
    )
