"""The sides of `search_cost.py`: what a side is, and the one that scores its points plainly."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from plain_tuning import PlainRun, batch_rows, texts
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM
from transformers.utils import logging

from mpt.backbones import Row
from mpt.config import UpstreamConfig
from mpt.gym.fewshot import Example, FewShotTask
from mpt.metrics import task_metrics
from mpt.metrics.relative_gain import Candidate, average_relative_gain, select_by_dev
from mpt.seeds import numpy_generator
from mpt.study.specs import UpstreamSpec
from mpt.study.study import Study
from mpt.trial.runs import PlannedRun, RunPack, baseline_packs, learned_packs
from mpt.upstream.engine import UpstreamRun

PARTS = ("upstream", "training", "evaluation", "baselines")
"""Upstream learning; downstream training and evaluation of the points' own runs; all of the
baselines' runs, waiting for another worker's included."""

RunName = tuple[str, str, int, float]
"""Point (or "baseline of" it), task, data seed, learning rate."""


class Side(Protocol):
    """One way to do a search, with what it took and gave so far."""

    name: str
    workers: int
    """Processes that share the points; with one, every second of `seconds` is a second's work."""
    seconds: dict[str, float]
    """Part → what it took, a worker on average; the parts add up to `total`."""
    runs: dict[RunName, tuple[float, float]]
    """(dev, test) of every run."""
    args: dict[str, float | None]
    """Point → ARG in % over the tasks that have one."""

    def points(self, trajectory: UpstreamSpec) -> Iterator[None]:
        """Score the points of a trajectory; yield after each."""

    def steps(self, trajectory: UpstreamSpec) -> int:
        """Return the upstream steps that the points of a trajectory take."""

    def baselines(self, points: int) -> int:
        """Return how often the baselines are tuned for this many points."""

    @property
    def total(self) -> float:
        """Seconds in all."""


class Timed:
    """What a side took, part by part, and gave.

    Args:
        clock: what to take seconds from.
    """

    workers = 1

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.runs: dict[RunName, tuple[float, float]] = {}
        self.args: dict[str, float | None] = {}

    @property
    def total(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count what the block takes; what is counted inside of it is not counted twice."""
        started, before = self._clock(), self.total
        try:
            yield
        finally:
            self.seconds[part] += self._clock() - started - (self.total - before)


def point_name(trajectory: UpstreamSpec, steps: int) -> str:
    """Return a point's readable name."""
    return f"{trajectory.name}-steps{steps}"


class Plain(Timed):
    """Every point by itself, every run by itself.

    Args:
        study: what is scored.
        checkpoint: of its backbone; the model is loaded anew, as Hugging Face has it.
        eval_batch: rows generated at once.
        clock: what to take seconds from.
    """

    name = "plain"

    def __init__(
        self,
        study: Study,
        checkpoint: Path,
        eval_batch: int,
        clock: Callable[[], float] = time.process_time,
    ):
        super().__init__(clock)
        self._study, self._eval_batch = study, eval_batch
        dtype = study.backbone.dtype
        logging.disable_progress_bar()
        model: Any = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=dtype)
        self._model = model.eval().requires_grad_(False)

    def steps(self, trajectory: UpstreamSpec) -> int:
        """Return the steps of every point, each from the start."""
        return sum(trajectory.rungs)

    def baselines(self, points: int) -> int:
        """Return a tuning for every point."""
        return points

    def points(self, trajectory: UpstreamSpec) -> Iterator[None]:
        """Score the points, each from nothing; yield after each."""
        for steps in trajectory.rungs:
            name = point_name(trajectory, steps)
            with self.timed("upstream"):
                prompt = _upstream(self._study, trajectory, steps)
            own = learned_packs(self._study, prompt)
            method = self._tune(name, own, "training", "evaluation")
            before = baseline_packs(self._study)
            baseline = self._tune(f"baseline of {name}", before, "baselines", "baselines")
            self.args[name] = _arg(self._study, method, baseline)
            yield

    def _tune(
        self, name: str, packs: Sequence[RunPack], training: str, evaluation: str
    ) -> dict[str, dict[int, float]]:
        """Return task → data seed → test score of the learning rate that is best on dev."""
        scores: dict[str, dict[int, float]] = {}
        for pack in packs:
            tried: dict[int, list[Candidate]] = {}
            for run in pack.runs:
                dev, test = self._run(run, training, evaluation)
                self.runs[name, pack.task, run.task.seed, run.lr] = dev, test
                tried.setdefault(run.task.seed, []).append(
                    Candidate(lr=run.lr, dev=dev, test=test)
                )
            best = {seed: select_by_dev(candidates) for seed, candidates in tried.items()}
            scores[pack.task] = {seed: one.test for seed, one in best.items() if one is not None}
        return scores

    def _run(self, run: PlannedRun, training: str, evaluation: str) -> tuple[float, float]:
        """Tune one prompt; return the best dev score and its prompt's test score."""
        config, task, root = self._study.config, run.task, self._study.config.train_seed
        down, pad = config.downstream, int(self._model.config.pad_token_id)
        with self.timed(training):
            tuned = PlainRun(self._model, run.prompt, run.lr, pad)
            train, best, chosen = self._rows(task, task.train), -math.inf, tuned.prompt.detach()
        for step in range(1, down.steps + 1):
            with self.timed(training):
                tuned.step(batch_rows(train, down.batch_size, step, root, task.name, task.seed))
            if step % down.eval_every == 0 or step == down.steps:
                with self.timed(evaluation):
                    dev = self._score(tuned, task, task.dev[: down.max_dev])
                if dev > best:
                    best, chosen = dev, tuned.prompt.detach().clone()
        with self.timed(evaluation):
            tuned.prompt.data.copy_(chosen)
            return best, self._score(tuned, task, task.test[: down.max_test])

    def _score(self, run: PlainRun, task: FewShotTask, examples: Sequence[Example]) -> float:
        found = texts(
            run,
            self._rows(task, examples),
            self._eval_batch,
            self._study.config.downstream.max_generated,
            self._study.backbone.decode,
        )
        return task_metrics.score(task.metric, found, [example.outputs for example in examples])

    def _rows(self, task: FewShotTask, examples: Sequence[Example]) -> list[Row]:
        return self._study.backbone.encode_rows(task.name, examples, self._study.config.text)


def _upstream(study: Study, trajectory: UpstreamSpec, steps: int) -> Tensor:
    """Return the prompt after this many upstream steps from the start."""
    config = study.config
    assert isinstance(trajectory.config, UpstreamConfig)
    settings = (config.prompt, config.text, config.train_seed)
    run = UpstreamRun(study.backbone, study.items, trajectory.config, *settings)
    run.advance(steps)
    return run.prompt.detach().clone().to(torch.device("cpu"))


def _arg(
    study: Study, method: dict[str, dict[int, float]], baseline: dict[str, dict[int, float]]
) -> float | None:
    seeds = sorted(study.config.data_seeds)
    rng = numpy_generator(study.config.train_seed, "bootstrap")
    gain = average_relative_gain(method, baseline, sorted(method), seeds, rng=rng)
    return gain.arg_of_defined
