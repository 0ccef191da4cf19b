"""The peers of `peers.py`: a search as users write it with PEFT, `higher`, and a tuner.

A point is a trial: MAML by `higher` on the PEFT model, then prompt tuning of every run, one after
the other, each scored by `generate`. Plain prompt tuning is one more trial, done once. Ray Tune or
Optuna hand the trials to one worker a core; models are loaded once a worker.
"""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import higher
import torch
from measuring import clock_now
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.optimization import Adafactor
from transformers.utils import logging

from mpt.metrics import task_metrics
from sides.peer_work import Lessons, Point, Sample, Split, Work
from sides.peft_tuning import ADAFACTOR, PeftTuner

BASELINE = "prompt tuning"
PARTS = ("upstream", "training", "dev", "test")


class Scorer:
    """One worker: its model, and where its time went.

    Args:
        work: what there is to do.
        left_padded: see `PeftTuner`.
        device: where model and prompt lie, "cpu" or "cuda".
    """

    def __init__(self, work: Work, *, left_padded: bool = False, device: str = "cpu"):
        logging.disable_progress_bar()
        model, pad = _model(work)
        self._work = work
        self._tokenizer = AutoTokenizer.from_pretrained(work.checkpoint)
        self._now = functools.partial(clock_now, device)
        self._tuner = PeftTuner(model.to(device), work.length, pad, left_padded=left_padded)
        self.seconds, self.clock = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        clock, started = self._now(), time.process_time()
        yield
        self.clock[part] += self._now() - clock  # first: a GPU may have to be waited for
        self.seconds[part] += time.process_time() - started

    def warm_up(self) -> None:
        """Take a step and write an output, so that no run pays for what a process does once."""
        sample = self._work.samples[0]
        self._tuner.start(sample.start, self._work.lrs[0])
        self._tuner.step([sample.train[row] for row in sample.batches[0]])
        self._tuner.generate(sample.dev.sources[:1], 1, 1)

    def trial(self, point: Point | None) -> dict[str, Any]:
        """Score a point (None: plain prompt tuning); return its runs and what its parts took.

        "seconds" are those of the CPU, "clock" those of the clock.
        """
        self.seconds, self.clock = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0.0)
        prompt = None
        if point is not None:
            with self._timed("upstream"):
                prompt = self.learn(self._work.lessons[point.seed], point)
        runs = []
        for sample in self._work.samples:
            for lr in self._work.lrs:
                dev, test = self._run(sample, lr, sample.start if prompt is None else prompt)
                runs.append([sample.task, sample.seed, lr, dev, test])
        name = BASELINE if point is None else point.name
        return {"point": name, "runs": runs, "seconds": self.seconds, "clock": self.clock}

    def learn(self, lessons: Lessons, point: Point) -> Tensor:
        """Return the prompt [P, d] that MAML learns in the steps of a point."""
        prompt = self._tuner.prompt
        self._tuner.start(lessons.start, point.outer_lr)
        outer: Any = Adafactor([prompt], lr=point.outer_lr, **ADAFACTOR)
        inner = torch.optim.SGD([prompt], lr=point.inner_lr)
        mean = lessons.start.clone().to(prompt)
        for step in range(point.steps):
            outer.zero_grad()
            first = step * lessons.per_step
            with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                for episode in lessons.episodes[first : first + lessons.per_step]:
                    self._meta_gradient(episode, inner)
            outer.step()
            mean.lerp_(prompt.detach(), 4 / (step + 4))
        return mean if lessons.average == "polynomial" else prompt.detach().clone()

    def _meta_gradient(self, episode: Any, inner: torch.optim.Optimizer) -> None:
        """Add the gradient of the query loss after the inner steps to that of the prompt."""
        model = self._tuner.model
        with higher.innerloop_ctx(model, inner, copy_initial_weights=False) as (fast, steps):
            for batch in episode.support:
                steps.step(self._tuner.loss(batch, fast))
            self._tuner.loss(episode.query, fast).backward()

    def _run(self, sample: Sample, lr: float, start: Tensor) -> tuple[float, float]:
        """Tune one prompt; return the best dev score and its prompt's test score."""
        tuner, work = self._tuner, self._work
        tuner.start(start, lr)
        best, chosen = -math.inf, start
        for first in range(0, work.steps, work.eval_every):
            with self._timed("training"):  # a clock read after every step would make a GPU wait
                for rows in sample.batches[first : first + work.eval_every]:
                    tuner.step([sample.train[row] for row in rows])
            with self._timed("dev"):
                dev = self._score(sample, sample.dev)
            if dev > best:
                best, chosen = dev, tuner.prompt.detach().clone()
        with self._timed("test"):
            tuner.prompt.data.copy_(chosen)
            return best, self._score(sample, sample.test)

    def _score(self, sample: Sample, split: Split) -> float:
        work = self._work
        ids = self._tuner.generate(split.sources, work.max_generated, work.eval_batch)
        outputs = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        return task_metrics.score(sample.metric, [text.strip() for text in outputs], split.answers)


def _model(work: Work) -> tuple[Any, int]:
    """Return the model of a checkpoint, and what its padding is filled with."""
    seq2seq = AutoConfig.from_pretrained(work.checkpoint).is_encoder_decoder
    auto: Any = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    model = auto.from_pretrained(work.checkpoint, dtype=getattr(torch, work.dtype))
    pad = model.config.pad_token_id
    if pad is None:  # as `generate` does then, which says so every time
        pad = model.generation_config.pad_token_id = model.config.eos_token_id
    return model, int(pad)


@functools.cache
def _scorer(work_file: str) -> Scorer:
    """Return this worker's scorer; a worker loads its model once."""
    torch.set_num_threads(1)
    return Scorer(torch.load(work_file, weights_only=False))


def score_and_save(work_file: str, number: int) -> float:
    """Do a trial (-1: plain prompt tuning), write it beside the work; return its mean test."""
    scorer = _scorer(work_file)
    trial = scorer.trial(scorer._work.points[number] if number >= 0 else None)
    Path(work_file).with_name(f"trial{number}.json").write_text(json.dumps(trial))
    tests = [run[4] for run in trial["runs"]]
    return sum(tests) / len(tests)


def by_ray_tune(work_file: str, points: int, workers: int) -> None:
    """Do all trials with Ray Tune."""
    from mpt.search.ray.session import prepare_environment

    prepare_environment("local")  # quiet, on this machine alone, as our side has it
    import ray
    from ray import tune

    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=128 * 2**20,
    )

    def trial(config: dict[str, Any]) -> None:
        tune.report({"test": score_and_save(work_file, config["point"])})

    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"point": tune.grid_search(list(range(-1, points)))},
        run_config=tune.RunConfig(storage_path=str(Path(work_file).parent / "tune"), verbose=0),
    )
    grid = tuner.fit()
    ray.shutdown()
    if grid.errors:
        raise RuntimeError(f"{len(grid.errors)} trials failed: {grid.errors[0]}")


def by_optuna(work_file: str, points: int, workers: int) -> None:
    """Do all trials with Optuna, which asks and is told here; a pool of processes works."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{Path(work_file).with_name('optuna.db')}"
    study = optuna.create_study(direction="maximize", storage=storage)
    for number in range(-1, points):
        study.enqueue_trial({"point": number})
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    with ProcessPoolExecutor(workers, context) as pool:
        going: dict[Future[float], Any] = {}
        trials_left = points + 1
        while trials_left or going:
            while trials_left and len(going) < workers:
                trial = study.ask()
                number = trial.suggest_int("point", -1, points - 1)
                going[pool.submit(score_and_save, work_file, number)] = trial
                trials_left -= 1
            done, _ = wait(going, return_when=FIRST_COMPLETED)
            for future in done:
                study.tell(going.pop(future), future.result())
