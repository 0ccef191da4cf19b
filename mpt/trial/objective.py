"""The score of a prompt: its leaves on the scored tasks, and the ARG that follows from them.

A leaf is one downstream run. The leaves of one prompt on one task (data seeds × learning rates)
are a *pack*; `mpt.trial.leaf_work` computes them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mpt.metrics.relative_gain import (
    Candidate,
    Gain,
    average_relative_gain,
    select_by_dev,
)
from mpt.records import SCHEMA, LeafStore, Record, leaf_key
from mpt.seeds import numpy_generator
from mpt.storage import digest

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.gym.fewshot import FewShotTask
    from mpt.study.study import Study

BAD_SCORE = -100.0
"""Score of a point without an ARG: the ARG of a prompt that gets nothing right (in %). Searchers
and schedulers need a finite number; the record says that it stands for a failure."""

LeafTable = dict[str, dict[str, list[tuple[float, str]]]]
"""task → data seed (a text, as JSON has it) → (learning rate, leaf key) in the recipe's order."""


@dataclass(frozen=True)
class PackRun:
    """One run of a pack."""

    task: FewShotTask
    lr: float
    prompt: Tensor
    identity: Record
    key: str


@dataclass(frozen=True)
class Pack:
    """The runs of one prompt (or of the baseline) on one task."""

    task: str
    runs: tuple[PackRun, ...]

    @property
    def name(self) -> str:
        """SHA-256 of the keys of its leaves."""
        return digest([run.key for run in self.runs])

    def missing(self, store: LeafStore) -> tuple[PackRun, ...]:
        """Return the runs whose leaves are not there."""
        return tuple(run for run in self.runs if store.get(run.key) is None)


def leaf_identity(study: Study, task: FewShotTask, prompt: str, lr: float) -> Record:
    """Return everything that can change a leaf's number.

    Args:
        study: backbone, recipe and train seed.
        task: the few-shot sample.
        prompt: digest of the starting prompt.
        lr: downstream learning rate.
    """
    config = study.config
    downstream = dataclasses.asdict(config.downstream)
    if config.downstream.catch_up is None:
        del downstream["lrs"]  # the leaf's own rate stands beside it, and it raced with no other
    return {
        "schema": SCHEMA,
        "backbone": study.backbone.digest,
        "recipe": {
            "downstream": downstream,
            "text": dataclasses.asdict(config.text),
            "prompt": dataclasses.asdict(config.prompt),
        },
        "data": task.digest,
        "task": task.name,
        "data_seed": task.seed,
        "shots": task.shots,
        "metric": task.metric,
        "init": prompt,
        "lr": float(lr),
        "train_seed": config.train_seed,
    }


def packs_of(study: Study, prompt_for: Callable[[FewShotTask], Tensor]) -> list[Pack]:
    """Return one pack a scored task; `prompt_for` gives the starting prompt of a sample."""
    from mpt.prompts import prompt_digest

    packs = []
    for name, samples in study.scored.items():
        runs = []
        for task in samples.values():
            prompt = prompt_for(task)
            mark = prompt_digest(prompt)
            for lr in study.config.downstream.lrs:
                identity = leaf_identity(study, task, mark, lr)
                runs.append(PackRun(task, lr, prompt, identity, leaf_key(identity)))
        packs.append(Pack(name, tuple(runs)))
    return packs


def baseline_packs(study: Study) -> list[Pack]:
    """Return the packs of plain prompt tuning, which every point is compared with.

    The starting prompt is drawn anew for every (task, data seed), so that the mean over data seeds
    is one over starting prompts too; it is the same for all learning rates.
    """
    from mpt.prompts import init_downstream

    config = study.config

    def start(task: FewShotTask) -> Tensor:
        rng = numpy_generator(config.train_seed, "init", "downstream", task.name, task.seed)
        return init_downstream(study.backbone, task.name, config.prompt.length, rng)

    return packs_of(study, start)


def missing_runs(packs: Sequence[Pack], store: LeafStore) -> list[PackRun]:
    """Return the runs of all packs whose leaves are not there, in order."""
    return [run for pack in packs for run in pack.missing(store)]


def leaf_table(packs: Sequence[Pack]) -> LeafTable:
    """Return the keys of the packs' leaves."""
    table: LeafTable = {}
    for pack in packs:
        for run in pack.runs:
            seeds = table.setdefault(pack.task, {})
            seeds.setdefault(str(run.task.seed), []).append((float(run.lr), run.key))
    return table


@dataclass(frozen=True, kw_only=True)
class PointScore:
    """What the leaves on disk say about one point."""

    gain: Gain | None
    """ARG with interval; None if the trajectory diverged before this rung."""
    score: float
    """Finite score to rank by: ARG in %, over the tasks that have a positive baseline;
    `BAD_SCORE` if the point has no ARG."""
    mean_test: float | None
    """Mean test score of the point over the tasks where it has one (a fraction)."""
    leaves: int
    """The point's own leaves that are on disk."""
    of: int
    """The point's own leaves in all."""
    note: str
    """What a reader must know: divergence, tasks left out; empty if nothing."""


class Leaves(Protocol):
    """Where leaves are looked up: a `LeafStore`, or a part of one."""

    def get(self, key: str) -> Record | None:
        """Return the leaf under a key, or None if it is not there."""


def leaf_counts(store: Leaves, table: LeafTable) -> tuple[int, int]:
    """Return (leaves on disk, leaves) of a table."""
    keys = [key for seeds in table.values() for lrs in seeds.values() for _, key in lrs]
    return sum(store.get(key) is not None for key in keys), len(keys)


def selected_scores(store: Leaves, table: LeafTable) -> dict[str, dict[int, float]]:
    """Return task → data seed → test score of the learning rate with the best dev score.

    A (task, seed) one of whose leaves is missing has no score: the choice would not be the
    recipe's. Neither has one all of whose runs diverged.
    """
    scores: dict[str, dict[int, float]] = {}
    for task, seeds in table.items():
        scores[task] = {}
        for seed, lrs in seeds.items():
            leaves = [store.get(key) for _, key in lrs]
            if any(leaf is None for leaf in leaves):
                continue
            candidates = [
                Candidate(lr=lr, dev=_number(leaf, "dev"), test=_number(leaf, "test"))
                for (lr, _), leaf in zip(lrs, leaves, strict=True)
                if leaf is not None
            ]
            best = select_by_dev(candidates)
            if best is not None:
                scores[task][int(seed)] = best.test
    return scores


def _number(leaf: Record, name: str) -> float:
    value = leaf["result"][name]
    return math.nan if value is None else float(value)


def score_point(point: Mapping[str, Any], store: Leaves) -> PointScore:
    """Compute a point's score from the leaves it names.

    The interval's generator depends on the study's train seed alone, so that all points are
    compared on the same resamples.
    """
    if point["status"] == "diverged":
        return PointScore(
            gain=None, score=BAD_SCORE, mean_test=None, leaves=0, of=0, note=point["note"]
        )
    method, baseline = (selected_scores(store, point[part]) for part in ("leaves", "baseline"))
    gain = average_relative_gain(
        method,
        baseline,
        sorted(point["leaves"]),
        sorted({int(seed) for seeds in point["leaves"].values() for seed in seeds}),
        rng=numpy_generator(point["identity"]["train_seed"], "bootstrap"),
    )
    leaves, of = leaf_counts(store, point["leaves"])
    tests = [task.score for task in gain.tasks if task.score is not None]
    return PointScore(
        gain=gain,
        score=_rank_score(gain),
        mean_test=sum(tests) / len(tests) if tests else None,
        leaves=leaves,
        of=of,
        note="" if gain.arg is not None else f"* ARG over {gain.defined} of {gain.of} tasks",
    )


def _rank_score(gain: Gain) -> float:
    """Return the ARG over the tasks with a positive baseline, which are the same for all points.

    A point without a score on one of these tasks has no ARG that could be compared.
    """
    for task in gain.tasks:
        comparable = task.baseline is not None and task.baseline > 0
        if task.gain is None and (comparable or task.score is None):
            return BAD_SCORE
    arg = gain.arg_of_defined
    return BAD_SCORE if arg is None else max(BAD_SCORE, arg)
