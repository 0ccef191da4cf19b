"""The embedded gym: generated tasks of a small English world, written as ordinary few-shot files.

`embedded_tasks.toml` has one row a task; the generators stand in `mpt.gym.world`. The files are
written once into a cache directory and from there read like any other gym.
"""

from __future__ import annotations

import hashlib
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
from mpt.errors import UsageError
from mpt.gym.world.skills import SKILLS
from mpt.gym.world.split import in_gym
from mpt.seeds import numpy_generator

ROOT_SEED = 2023
"""Root of every draw of the embedded gym."""
TEST_ROWS = 200
"""Rows of each test file; the same for all data seeds."""
POOL_PER_CLASS = 96
"""Examples of each class from which the five train and dev files are sampled."""
POOL = 256
"""The same for tasks without classes."""
_DRAWS = 100_000


@dataclass(frozen=True, kw_only=True)
class EmbeddedTask:
    """One row of `embedded_tasks.toml`."""

    name: str
    """Task name."""
    family: str
    """classification, question_answering, conditional_generation or other."""
    metric: str
    """Row of `mpt.metrics.task_metrics.METRICS`."""
    skill: str
    """Row of `mpt.gym.world.skills.SKILLS`."""
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


def ensure_embedded_gym(cache: Path | None = None) -> Path:
    """Write the embedded gym into the cache, once, and return its directory.

    The directory's name holds a digest of the sources that made it, so that an older version's
    files are never read by mistake. Several processes may call this at once.

    Args:
        cache: directory to write below; default `$MPT_CACHE`, else `$XDG_CACHE_HOME/mpt`, else
            `~/.cache/mpt`.

    Raises:
        UsageError: the cache cannot be written.
    """
    cache = cache or cache_directory()
    final = cache / f"embedded-gym-{source_digest()[:12]}"
    if final.is_dir():
        return final
    try:
        cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".embedded-gym-", dir=cache))
        try:
            write_embedded_gym(draft)
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


def source_digest() -> str:
    """Return the SHA-256 of everything in the package that decides the files' bytes."""
    gym = resources.files("mpt.gym")
    sources = [gym / "embedded.py", gym / "embedded_tasks.toml"]
    sources += [entry for entry in (gym / "world").iterdir() if entry.name.endswith(".py")]
    sources += [resources.files("mpt") / "seeds.py"]
    digest = hashlib.sha256()
    for source in sorted(sources, key=lambda entry: entry.name):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def write_embedded_gym(out: Path) -> None:
    """Write `gym.toml` and 15 files a task (train, dev, test × 5 data seeds) into `out`."""
    tasks = embedded_tasks()
    for task in tasks.values():
        folder = out / task.name
        folder.mkdir()
        test, pools = draw_examples(task)
        for seed in DATA_SEEDS:
            train, dev = _sample(task, pools, seed)
            for split, rows in (("train", train), ("dev", dev), ("test", test)):
                text = "".join(f"{source}\t{target}\n" for source, target in rows)
                path = folder / f"{task.name}_{task.shots}_{seed}_{split}.tsv"
                path.write_text(text, encoding="utf-8")
    (out / "gym.toml").write_text(_catalogue(tasks), encoding="utf-8")


Rows = list[tuple[str, str]]


def draw_examples(task: EmbeddedTask) -> tuple[Rows, dict[str, Rows]]:
    """Draw a task's test rows and the pools (by class, or one) that train and dev come from.

    All inputs of a task are different and belong to the gym's side of the split.
    """
    rng = numpy_generator(ROOT_SEED, "embedded", task.name)
    classes = list(task.labels.values()) if task.family == "classification" else [""]
    size = POOL_PER_CLASS if task.family == "classification" else POOL
    seen: set[str] = set()
    test: Rows = []
    pools: dict[str, Rows] = {name: [] for name in classes}
    quota = Counter({name: -(-TEST_ROWS // len(classes)) for name in classes})
    for _ in range(_DRAWS):
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
    raise AssertionError(f"{task.name}: the world is too small for {size} examples a class")


def _sample(task: EmbeddedTask, pools: Mapping[str, Rows], seed: int) -> tuple[Rows, Rows]:
    rng = numpy_generator(ROOT_SEED, "sample", task.name, seed)
    train: Rows = []
    dev: Rows = []
    for pool in pools.values():
        order = rng.permutation(len(pool))[: 2 * task.shots]
        train += [pool[i] for i in order[: task.shots]]
        dev += [pool[i] for i in order[task.shots :]]
    return train, dev


def _catalogue(tasks: Mapping[str, EmbeddedTask]) -> str:
    """Return `gym.toml`: what `mpt.gym.catalogue` reads of a gym that is not the published one."""
    lines = [f"validation_tasks = {json.dumps(_rows()['study']['validation_tasks'])}"]
    for task in tasks.values():
        lines += [
            f"[tasks.{task.name}]",
            f'family = "{task.family}"',
            f'metric = "{task.metric}"',
            f"shots = {task.shots}",
        ]
    for name, (source, target) in embedded_partitions().items():
        lines += [
            f"[partitions.{name}]",
            f"source = {json.dumps(source)}",
            f"target = {json.dumps(target)}",
        ]
    return "\n".join(lines) + "\n"


def _rows() -> dict[str, Any]:
    return tomllib.loads(
        resources.files("mpt.gym").joinpath("embedded_tasks.toml").read_text("utf8")
    )
