"""The embedded gym: generated tasks of a small English world, written as ordinary few-shot files.

`tasks.toml` has one row a task; the generators stand in `mpt.embedded.world`. The files are
written once into a cache directory and from there read like any other gym. Samples of another
size than the published one are a gym of their own, written when they are first asked for.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from mpt.config import DATA_SEEDS
from mpt.embedded.world.skills import SKILLS
from mpt.embedded.world.split import in_gym
from mpt.errors import UsageError
from mpt.gym.catalogue import ALL_SHOTS, TaskInfo
from mpt.gym.size import PUBLISHED_SHOTS
from mpt.seeds import numpy_generator

ROOT_SEED = 2023
"""Root of every draw of the embedded gym."""
TEST_ROWS = 200
"""Rows of each test file; the same for all data seeds."""
POOL_PER_CLASS = 96
"""Examples of each class from which the five train and dev files are sampled."""
POOL = 256
"""The same for tasks without classes."""
LARGE_POOL = 384
"""The same for larger samples (per class, or in all), as far as the world has them."""
SUBSETS = {"cls_to_cls": (5, 11)}
"""Partition → sizes of the nested parts of its sources: 12/45 and 24/45 of them, as published."""
_DRAWS = 100_000


@dataclass(frozen=True, kw_only=True)
class EmbeddedTask:
    """One row of `tasks.toml`."""

    name: str
    """Task name."""
    family: str
    """classification, question_answering, conditional_generation or other."""
    metric: str
    """Row of `mpt.metrics.task_metrics.METRICS`."""
    skill: str
    """Row of `mpt.embedded.world.skills.SKILLS`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the generator."""
    labels: dict[str, str] = field(default_factory=dict)
    """Class → word that stands in the files."""
    paraphrase: bool = False
    """Whether the task asks if two sentences mean the same."""

    @property
    def shots(self) -> int:
        """Examples per class (classification) or in all (others) of train and of dev."""
        return 16 if self.family == "classification" else 32

    def at_shots(self, shots: int) -> int:
        """Return k of the file names of another sample size, see `TaskInfo.at_shots`."""
        return TaskInfo(self.name, self.family, self.metric, self.shots).at_shots(shots).shots


def embedded_tasks() -> dict[str, EmbeddedTask]:
    """Read the task rows."""
    return {name: EmbeddedTask(name=name, **row) for name, row in _rows()["tasks"].items()}


def embedded_partitions() -> dict[str, tuple[list[str], list[str]]]:
    """Build the ten settings in miniature: name → (source tasks, target tasks).

    The sources of a setting are all tasks of the kind that its name says which are neither among
    its targets nor among the validation tasks; "both" takes the first half of either kind.
    """
    study = _rows()["study"]
    targets = study["targets"]
    tasks = {n: t for n, t in embedded_tasks().items() if n not in study["validation_tasks"]}
    classification = [n for n, t in tasks.items() if t.family == "classification"]
    other = [n for n in tasks if n not in classification]
    answering = [n for n, t in tasks.items() if t.family == "question_answering"]
    paraphrase = [n for n, t in tasks.items() if t.paraphrase]
    half = 10
    kinds = {
        "random_to_random": (list(tasks), targets["random"]),
        "cls_to_cls": (classification, targets["classification"]),
        "noncls_to_cls": (other, targets["classification"]),
        "cls_to_noncls": (classification, targets["other"]),
        "noncls_to_noncls": (other, targets["other"]),
        "qa_to_qa": (answering, targets["question_answering"]),
        "nonqa_to_qa": ([n for n in tasks if n not in answering], targets["question_answering"]),
        "nonpara_to_para": ([n for n in tasks if n not in paraphrase], paraphrase),
    }
    both = [n for n in classification if n not in targets["classification"]][:half]
    both_other = [n for n in other if n not in targets["other"]][:half]
    kinds["both_to_cls"] = (both + both_other, targets["classification"])
    kinds["both_to_noncls"] = (both + both_other, targets["other"])
    return {
        name: ([task for task in source if task not in target], list(target))
        for name, (source, target) in kinds.items()
    }


def source_subsets() -> dict[str, list[str]]:
    """Return the parts of a partition's sources, ``<partition>_<size>`` → tasks; they are nested.

    A part holds the first tasks of one drawn order; they stand in it in the partition's order.
    """
    subsets = {}
    for name, sizes in SUBSETS.items():
        source, _ = embedded_partitions()[name]
        order = numpy_generator(ROOT_SEED, "source subsets", name).permutation(len(source))
        for size in sizes:
            subsets[f"{name}_{size}"] = [source[at] for at in sorted(order[:size])]
    return subsets


def ensure_embedded_gym(cache: Path | None = None, shots: int = PUBLISHED_SHOTS) -> Path:
    """Write the embedded gym into the cache, once, and return its directory.

    The directory's name holds a digest of the sources that made it, so that an older version's
    files are never read by mistake. Several processes may call this at once.

    Args:
        cache: directory to write below; default `$MPT_CACHE`, else `$XDG_CACHE_HOME/mpt`, else
            `~/.cache/mpt`.
        shots: sample size as ``python -m mpt.gym build --shots`` names it; `ALL_SHOTS` for all.

    Raises:
        UsageError: the cache cannot be written.
    """
    cache = cache or cache_directory()
    size = "" if shots == PUBLISHED_SHOTS else f"-{shots or 'all'}"
    final = cache / f"embedded-gym-{source_digest()[:12]}{size}"
    if final.is_dir():
        return final
    try:
        cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".embedded-gym-", dir=cache))
        try:
            write_embedded_gym(draft, shots)
            draft.rename(final)
        except OSError:
            if not final.is_dir():  # else another process was first
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise UsageError(
            f"cache directory {cache}: cannot write the embedded gym ({error.strerror}); "
            "set MPT_CACHE to a directory that you can write"
        ) from None
    return final


def cache_directory() -> Path:
    """Return the directory for generated files."""
    if own := os.environ.get("MPT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mpt"


@functools.cache
def source_digest() -> str:
    """Return the SHA-256 of everything in the package that decides the files' bytes."""
    here = resources.files("mpt.embedded")
    sources = [here / "gym.py", here / "tasks.toml"]
    sources += [entry for entry in (here / "world").iterdir() if entry.name.endswith(".py")]
    sources += [resources.files("mpt") / "seeds.py"]
    digest = hashlib.sha256()
    for source in sorted(sources, key=lambda entry: entry.name):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def write_embedded_gym(out: Path, shots: int = PUBLISHED_SHOTS) -> None:
    """Write `gym.toml` and 15 files a task (train, dev, test × 5 data seeds) into `out`."""
    tasks = embedded_tasks()
    for task in tasks.values():
        folder = out / task.name
        folder.mkdir()
        size = task.at_shots(shots)
        larger = size != task.shots
        test, pools = _large_draw(task.name, _DRAWS) if larger else draw_examples(task)
        for seed in DATA_SEEDS:
            train, dev = (_larger_sample if larger else _sample)(task, pools, seed, size)
            for split, rows in (("train", train), ("dev", dev), ("test", test)):
                text = "".join(f"{source}\t{target}\n" for source, target in rows)
                path = folder / f"{task.name}_{size or 'all'}_{seed}_{split}.tsv"
                path.write_text(text, encoding="utf-8")
    (out / "gym.toml").write_text(_catalogue(tasks, shots), encoding="utf-8")


Rows = list[tuple[str, str]]


@functools.lru_cache(maxsize=64)
def _large_draw(name: str, draws: int) -> tuple[Rows, dict[str, Rows]]:
    """Return a task's examples, which samples of all larger sizes share; not to be changed.

    To draw them takes nearly all of the seconds in which a gym is written.
    """
    return draw_examples(embedded_tasks()[name], LARGE_POOL, draws)


def draw_examples(
    task: EmbeddedTask, larger: int | None = None, draws: int | None = None
) -> tuple[Rows, dict[str, Rows]]:
    """Draw a task's test rows and the pools (by class, or one) that train and dev come from.

    All inputs of a task are different and belong to the gym's side of the split. Larger pools
    begin with the smaller ones, and the test rows do not depend on their size.

    Args:
        task: whose rows.
        larger: size of larger pools; where the world has less, they stay smaller.
        draws: how many sentences are tried; None: a hundred thousand.
    """
    rng = numpy_generator(ROOT_SEED, "embedded", task.name)
    classes = list(task.labels.values()) if task.family == "classification" else [""]
    least = _pool_size(task)
    size = larger or least
    seen: set[str] = set()
    test: Rows = []
    pools: dict[str, Rows] = {name: [] for name in classes}
    quota = Counter({name: -(-TEST_ROWS // len(classes)) for name in classes})
    for _ in range(draws or _DRAWS):
        text, answer = SKILLS[task.skill](rng, **task.options)
        word = task.labels.get(answer, answer)
        bucket = word if task.family == "classification" else ""
        if text in seen or not in_gym(text):
            continue
        if quota[bucket] > 0:
            quota[bucket] -= 1
            test.append((text, word))
        elif len(pools[bucket]) < size:
            pools[bucket].append((text, word))
        else:
            continue
        seen.add(text)
        if not quota.total() and all(len(pool) == size for pool in pools.values()):
            return test, pools
    if not quota.total() and all(len(pool) >= least for pool in pools.values()):
        return test, pools
    raise AssertionError(f"{task.name}: the world is too small for {least} examples a class")


def _pool_size(task: EmbeddedTask) -> int:
    return POOL_PER_CLASS if task.family == "classification" else POOL


def _sample(
    task: EmbeddedTask, pools: Mapping[str, Rows], seed: int, shots: int
) -> tuple[Rows, Rows]:
    rng = numpy_generator(ROOT_SEED, "sample", task.name, seed)
    train: Rows = []
    dev: Rows = []
    for pool in pools.values():
        order = rng.permutation(len(pool))[: 2 * shots]
        train += [pool[i] for i in order[:shots]]
        dev += [pool[i] for i in order[shots:]]
    return train, dev


def _larger_sample(
    task: EmbeddedTask, pools: Mapping[str, Rows], seed: int, shots: int
) -> tuple[Rows, Rows]:
    """Sample more shots: the train rows of fewer shots are among those of more.

    A class with fewer than twice `shots` rows, and every class for `ALL_SHOTS`, gives a half to
    either file (recipe row 21). Classes take turns, so that the first rows hold all of them.
    """
    rng = numpy_generator(ROOT_SEED, "sample", task.name, seed)
    more = numpy_generator(ROOT_SEED, "larger sample", task.name, seed)
    first = _pool_size(task)
    train: list[Rows] = []
    dev: list[Rows] = []
    for pool in pools.values():
        order = [*rng.permutation(first), *(first + more.permutation(len(pool) - first))]
        each = len(pool) // 2 if shots == ALL_SHOTS else min(shots, len(pool) // 2)
        train.append([pool[i] for i in order[:each]])
        dev.append([pool[i] for i in order[each : 2 * each]])
    return _in_turns(train), _in_turns(dev)


def _in_turns(classes: list[Rows]) -> Rows:
    turns = itertools.zip_longest(*classes)
    return [row for turn in turns for row in turn if row is not None]


def _catalogue(tasks: Mapping[str, EmbeddedTask], shots: int) -> str:
    """Return `gym.toml`: what `mpt.gym.catalogue` reads of a gym that is not the published one."""
    lines = [f"validation_tasks = {json.dumps(_rows()['study']['validation_tasks'])}"]
    lines += ["[source_subsets]"]
    lines += [f"{name} = {json.dumps(part)}" for name, part in source_subsets().items()]
    for task in tasks.values():
        lines += [
            f"[tasks.{task.name}]",
            f'family = "{task.family}"',
            f'metric = "{task.metric}"',
            f"shots = {json.dumps(task.at_shots(shots) or 'all')}",
        ]
    for name, (source, target) in embedded_partitions().items():
        lines += [
            f"[partitions.{name}]",
            f"source = {json.dumps(source)}",
            f"target = {json.dumps(target)}",
        ]
    return "\n".join(lines) + "\n"


@functools.cache
def _rows() -> dict[str, Any]:
    return tomllib.loads(resources.files("mpt.embedded").joinpath("tasks.toml").read_text("utf8"))
