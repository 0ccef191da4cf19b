"""What the database holds, as values: runs, studies, points, stops, artifacts.

They are made once and never changed. `key` names each; two records with one key are the same
thing, and the first that is written stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any, NamedTuple

from mpt.config import stepped_seeds
from mpt.keys import digest, key_of
from mpt.metrics import SCORE_CODE
from mpt.upstream.jumps import Jump, from_record

BASELINE = "prompt_tuning"
"""Method of plain prompt tuning, which every study has one point of."""
ZERO_SHOT = "zero_shot"
"""Method of the model as it is, without a prompt: nothing is learned or tuned."""
UNTUNED = 0.0
"""Learning rate in the record of a run that tunes nothing."""

DRIVER = "driver"
"""Kind of the documents in which the driver of a job notes what it does (`mpt.search.watch`)."""

START_COUNT = "starts"
"""What the number of downstream starts is called in a study's settings, where it is not 1."""

JUMP = "jump"
"""What a jump of the loss is called in a point's provenance."""


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Everything that can change a downstream run's number."""

    backbone: str
    """Digest of the frozen weights."""
    task: str
    data: str
    """Digest of the few-shot sample."""
    data_seed: int
    shots: int | None
    """Examples a class (or in all) of the sample; None: unknown."""
    metric: str
    init: str | None
    """Digest of the starting prompt; None where there is no prompt."""
    lr: float
    """Downstream learning rate; `UNTUNED` where nothing is tuned."""
    recipe: Mapping[str, Any]
    """Settings that differ from their defaults: {"downstream": …, "text": …, "prompt": …}."""
    train_seed: int
    tuned: str = "prompt"
    """"prompt", "weights" or "nothing"."""
    precision: str = "float32"
    """Number format of weights and activations."""
    code: int = SCORE_CODE
    """Version of the code that trains and scores."""

    @cached_property
    def key(self) -> str:
        """The run's key."""
        identity = {
            "backbone": self.backbone,
            "task": self.task,
            "data": self.data,
            "data_seed": self.data_seed,
            "shots": self.shots,
            "metric": self.metric,
            "init": self.init,
            "lr": float(self.lr),
            "recipe": dict(self.recipe),
            "train_seed": self.train_seed,
            "code": self.code,
        }
        if self.tuned != "prompt":
            identity["tuned"] = self.tuned
        if self.precision != "float32":
            identity["precision"] = self.precision
        return key_of("run", identity)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What something cost."""

    steps: float = 0
    """Optimiser steps."""
    examples: float = 0
    """Examples trained on, repeats counted."""
    tokens: float = 0
    """Real tokens trained on, prompts included."""
    seconds: float = 0.0
    """Seconds of one worker (its share of a pack's)."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One downstream run."""

    identity: RunIdentity
    dev: float | None
    """Dev score of the selected state, a fraction; None if the run diverged."""
    test: float | None
    """Test score of the selected state, a fraction; None if the run diverged."""
    best_step: int
    """Step after which the selected state stood; 0 if the run diverged."""
    curve: tuple[tuple[int, float | None, float | None], ...]
    """(step, dev score, mean training loss since the evaluation before) of every evaluation."""
    status: str
    """"ok" or "diverged"."""
    stopped: str | None = None
    """Rule and step by which the run ended before its last step; None if it did not."""
    cost: Cost = field(default_factory=Cost)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Commit, versions, machine, how it was packed."""
    created: str = ""
    """UTC time, ISO 8601."""

    @property
    def key(self) -> str:
        """The run's key."""
        return self.identity.key

    @property
    def checksum(self) -> str:
        """Digest of key and result: a number that somebody edits no longer fits it."""
        curve = [list(entry) for entry in self.curve]
        scores = [None if score is None else float(score) for score in (self.dev, self.test)]
        result = [*scores, self.best_step, curve, self.status, self.stopped]
        return digest([self.key, result])[:32]


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What is compared with what: nothing is compared across studies."""

    backbone: str
    """Name of the frozen model."""
    backbone_digest: str
    gym: str
    """"embedded" or the directory's path; only its last part is in the key."""
    partition: str
    role: str
    """"validation" (a search) or "target" (a replay)."""
    source_set: str = "all"
    source_shots: int | str | None = None
    """A number, "all", or None for each task's own."""
    target_shots: int | str | None = None
    source: tuple[tuple[str, int, str], ...] = ()
    """(task, data seed, digest) of every upstream item."""
    scored: tuple[tuple[str, int, str], ...] = ()
    """(task, data seed, digest) of every scored sample."""
    data_seeds: tuple[int, ...] = ()
    train_seed: int = 42
    precision: str = "float32"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """{"prompt", "text", "upstream_text", "downstream"}: what differs from the defaults; and
    "classification" in a search that scores it in another way than published, "replaced" where
    tasks stand in the place of others: {task of the catalogue: task in its place}, and "starts"
    where a cell has more than one downstream start."""
    lrs: tuple[float, ...] = ()
    """Downstream learning rates in the recipe's order, which decides ties."""
    partial: str | None = None
    """What was left out, in words; None if nothing was."""
    smoke: bool = False
    """Whether its numbers mean nothing."""
    code: int = SCORE_CODE
    """Version of the code that trains and scores."""

    @cached_property
    def key(self) -> str:
        """The study's key."""
        return key_of(
            "study", {**self._protocol, **self._setting, "settings": dict(self.settings)}
        )

    @cached_property
    def id(self) -> str:
        """The first eight digits of the key: what people type after --study."""
        return self.key[:8]

    @property
    def starts(self) -> int:
        """Downstream starts of a cell, whose scores are averaged."""
        return int(self.settings.get(START_COUNT, 1))

    @property
    def start_seeds(self) -> tuple[int, ...]:
        """Train seeds of the downstream starts, the study's own first."""
        return stepped_seeds(self.train_seed, self.starts)

    @cached_property
    def protocol(self) -> str:
        """Key of what all studies of one report share: everything but place and backbone."""
        return key_of("protocol", self._protocol)

    @property
    def _protocol(self) -> dict[str, Any]:
        return {
            "gym": PurePath(self.gym).name,
            "data_seeds": list(self.data_seeds),
            "train_seed": self.train_seed,
            "precision": self.precision,
            "settings": {k: v for k, v in self.settings.items() if k != "classification"},
            "lrs": list(self.lrs),
            "smoke": self.smoke,
            "code": self.code,
        }

    @property
    def _setting(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone_digest,
            "partition": self.partition,
            "role": self.role,
            "source_set": self.source_set,
            "source_shots": self.source_shots,
            "target_shots": self.target_shots,
            "source": [list(item) for item in self.source],
            "scored": [list(item) for item in self.scored],
            "partial": self.partial,
        }


@dataclass(frozen=True, kw_only=True)
class Point:
    """One configuration after some upstream steps, and the runs it is made of."""

    study: str
    """Key of the study."""
    method: str
    settings: Mapping[str, Any]
    """Settings of the method, whole."""
    steps: int
    """Upstream steps; 0 for methods without upstream learning."""
    upstream: str
    """Key of the upstream trajectory, or of what stands in its place."""
    prompt: str | None
    """Digest of the learned prompt; None where there is not one of all runs."""
    runs: tuple[str, ...]
    """Keys of its runs; none if it diverged."""
    status: str = "ok"
    """"ok" or "diverged"."""
    note: str = ""
    cost: Cost = field(default_factory=Cost)
    """Of upstream learning, from step 0 on."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    """UTC time, ISO 8601."""

    @cached_property
    def key(self) -> str:
        """The point's key."""
        return point_key(self.study, self.upstream, self.steps)

    @property
    def jump(self) -> Jump | None:
        """Largest jump of the loss on the way to it; None if there was none."""
        return from_record(self.provenance.get(JUMP))

    @property
    def checksum(self) -> str:
        """Digest of key and body."""
        body = [self.method, dict(self.settings), self.prompt, sorted(self.runs), self.status]
        return digest([self.key, body])[:32]


def lr_order(point: Point, study: StudyRecord) -> tuple[float, ...]:
    """Return the learning rates of a point's runs in the order that decides ties on dev."""
    if point.method == ZERO_SHOT:
        return (UNTUNED,)
    own = point.settings.get("downstream")
    lrs = own.get("lrs") if isinstance(own, dict) else None
    return tuple(map(float, lrs)) if lrs else study.lrs


def start_order(point: Point, study: StudyRecord) -> tuple[int, ...]:
    """Return the train seeds of a point's downstream starts; zero-shot draws nothing: one."""
    return (study.train_seed,) if point.method == ZERO_SHOT else study.start_seeds


def point_key(study: str, upstream: str, steps: int) -> str:
    """Return the key of a point before it is there."""
    return key_of("point", {"study": study, "upstream": upstream, "steps": steps})


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A trial that was stopped at a rung, or on the way to it."""

    point: str
    """Key of the point at this rung."""
    trial: str
    """Readable name of the trial."""
    steps: int
    """The rung."""
    by: str
    """Who stopped it: a scheduler's name, or "racing"."""
    reason: str
    """With the numbers that decided."""
    created: str = ""
    """UTC time, ISO 8601."""

    @property
    def text(self) -> str:
        """For people."""
        return f"stopped by {self.by} at rung {self.steps}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file that results refer to."""

    kind: str
    """"rung" (the prompt at a rung), "checkpoint" (state of a trial) or "prompt" (tuned)."""
    owner: str
    """Key of the upstream trajectory, trial or run it belongs to."""
    steps: int
    uri: str
    """A path, or a URI that pyarrow or fsspec opens."""
    digest: str = ""
    """SHA-256 of the file's bytes; empty for a folder."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    """UTC time, ISO 8601."""


class ScoreRow(NamedTuple):
    """One run in its place in a point: what scores are computed from."""

    point: str
    """Key of the point."""
    task: str
    data_seed: int
    lr: float
    """Downstream learning rate."""
    dev: float | None
    """Dev score, a fraction; None if the run diverged."""
    test: float | None
    """Test score, a fraction; None if the run diverged."""
    status: str
    """"ok" or "diverged"."""
    run: str
    """Key of the run."""
    steps: float
    """Optimiser steps of the run."""
    tokens: float
    """Real tokens the run was trained on."""
    seconds: float
    """Seconds of one worker."""
    train_seed: int
    """That of the downstream start."""
