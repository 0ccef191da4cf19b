"""Prompts that plain prompt tuning has learned on single tasks, whose subspaces A.7 compares.

They are those of the first data seed and of the learning rate with the best dev score. A search or
replay keeps them with ``--keep-prompts``; what a ranking lacks is tuned here, task by task, where
trials would run.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpt.config import StudyConfig
from mpt.errors import DataError, MptError
from mpt.metrics.relative_gain import Candidate, select_by_dev
from mpt.prompts import prompt_bytes, prompt_from_bytes
from mpt.replay.similarity.measure import Subspace, subspace
from mpt.store.artifacts import Artifacts
from mpt.store.database import FILE, open_results
from mpt.store.lock import driver_lock
from mpt.study.study import OpenStudy, StudyPlan, backbone_of
from mpt.trial.files import keep_file
from mpt.trial.run_queue import run_record
from mpt.trial.runs import RunPack, baseline_packs
from mpt.trial.store import TrialStore
from mpt.words import counted

if TYPE_CHECKING:
    from mpt.backbones import Backbone
    from mpt.gym.fewshot import FewShotTask
    from mpt.replay.request import Request
    from mpt.search.job import Execution
    from mpt.store.database import Database
    from mpt.store.records import Run

Tuned = list[tuple["Run", bytes | None]]
"""Runs of one task, each with its prompt as a file; None: it diverged."""
Tuner = Callable[[StudyConfig, Sequence[RunPack]], None]
"""See `prompt_tuner`."""


def prompt_packs(
    config: StudyConfig, backbone: Backbone, samples: Mapping[str, FewShotTask]
) -> dict[str, RunPack]:
    """Return task → the runs of plain prompt tuning on one sample of it, one a learning rate.

    Their keys hold everything that their prompts depend on, and are those of every baseline. Of
    several downstream starts the first one's are compared.
    """
    import torch

    # one thread, as in the workers: the last bit of a mean, and with it a key, may depend on it
    torch.set_num_threads(1)
    config = dataclasses.replace(config, starts=1)
    plan = StudyPlan(config=config, source=(), scored=tuple(samples), partial=None)
    scored = {name: {sample.seed: sample} for name, sample in samples.items()}
    study = OpenStudy(plan=plan, backbone=backbone, items=(), scored=scored)
    return {pack.task: pack for pack in baseline_packs(study)}


def kept_subspaces(
    request: Request, packs: Mapping[str, RunPack], threshold: float
) -> dict[str, Subspace]:
    """Return the subspaces of the prompts that were kept.

    Returns:
        Task → subspace, of the tasks all of whose runs are stored, and whose best run's prompt was
        kept.
    """
    if request.store is None and not (request.results / FILE).exists():
        return {}
    artifacts = Artifacts(request.storage or str(request.results))
    subspaces: dict[str, Subspace] = {}
    with open_results(request.results, request.store, read_only=True) as database:
        for task, pack in packs.items():
            best = _best_run(pack, database)
            kept = None if best is None else database.artifact("prompt", best)
            if kept is not None:
                data = artifacts.read(kept.uri, kept.digest)
                subspaces[task] = subspace(prompt_from_bytes(data, kept.uri)[0], threshold)
    return subspaces


def _best_run(pack: RunPack, database: Database) -> str | None:
    """Return the key of the run that the recipe takes; None if one is missing, or all diverged."""
    runs = database.runs([run.key for run in pack.runs])
    if len(runs) < len(pack.runs):
        return None
    by_lr = {run.lr: runs[run.key] for run in pack.runs}
    best = select_by_dev([_candidate(lr, run) for lr, run in by_lr.items()])
    return None if best is None else by_lr[best.lr].key


def _candidate(lr: float, run: Run) -> Candidate:
    dev, test = (math.nan if value is None else value for value in (run.dev, run.test))
    return Candidate(lr=lr, dev=dev, test=test)


def prompt_tuner(request: Request, execution: Execution, say: Callable[[str], None]) -> Tuner:
    """Return what tunes and keeps prompts of tasks; each task is stored when it is done.

    Returns:
        A function of the study whose prompt tuning it is, and of the tasks' packs. It raises what
        stands below.

    Raises:
        UsageError: another search writes to these results, or Ray cannot run a task.
        DataError: every learning rate diverged on a task.
    """
    return functools.partial(_tune_prompts, request, execution, say)


def _tune_prompts(
    request: Request,
    execution: Execution,
    say: Callable[[str], None],
    config: StudyConfig,
    packs: Sequence[RunPack],
) -> None:
    from mpt.search.ray.interrupts import Interrupts
    from mpt.search.ray.session import ray_session

    files = request.storage or str(request.results)
    with driver_lock(request.results), open_results(request.results, request.store) as database:
        store, artifacts, interrupts = TrialStore(database), Artifacts(files), Interrupts()
        say(
            f"prompts of {counted(len(packs), 'task')} are tuned first; sources are ranked by them"
        )
        with (
            interrupts.watching(),
            ray_session(execution, len(packs), files=files, say=say) as slots,
        ):
            interrupts.listen(execution.signals)
            for done, tuned in enumerate(_tuned(config, packs, execution, slots), start=1):
                task = _keep(tuned, store, artifacts)
                say(f"  prompt {done} of {len(packs)}: {task}")


def _tuned(
    config: StudyConfig, packs: Sequence[RunPack], execution: Execution, slots: int
) -> Iterator[Tuned]:
    """Yield the runs of every task as they come, `slots` tasks at a time."""
    import ray

    work = ray.remote(
        num_cpus=1, num_gpus=execution.gpus_per_trial, max_retries=execution.max_failures
    )(tune_here)
    waiting, running = list(packs), list[Any]()
    while waiting or running:
        while waiting and len(running) < max(slots, 1):
            running.append(work.remote(config, waiting.pop(0), execution.device))
        (ready,), running = ray.wait(running)
        try:
            yield ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MptError):
                raise error.cause from None
            raise


def tune_here(config: StudyConfig, pack: RunPack, device: str | None) -> Tuned:
    """Tune the prompts of one task on this worker: its learning rates side by side."""
    import torch

    from mpt.downstream.prompt_tuning import TuningRun, tune
    from mpt.search.ray.trainable import device_of

    torch.set_num_threads(1)
    backbone = backbone_of(config, device_of(device))
    results = tune(
        backbone,
        [TuningRun(run.task, run.lr, run.prompt.to(backbone.device)) for run in pack.runs],
        config.downstream,
        config.text,
        config.train_seed,
    )
    tuned: Tuned = []
    for run, result in zip(pack.runs, results, strict=True):
        whole = result.status == "ok"
        data = prompt_bytes(result.prompt, {"run": run.key}) if whole else None
        tuned.append((run_record(run, result, {}), data))
    return tuned


def _keep(tuned: Tuned, store: TrialStore, artifacts: Artifacts) -> str:
    """Store the runs of a task with their prompts; return its name."""
    task = tuned[0][0].identity.task
    if all(data is None for _, data in tuned):
        raise DataError(
            f"prompt tuning on {task} diverged at every learning rate; give others with "
            "--tuning-lrs, or rank sources by --rank-by inputs"
        )
    for run, data in tuned:
        if data is not None:
            name = f"prompts/{run.key[:2]}/{run.key}.safetensors"
            keep_file(store, artifacts, "prompt", run.key, run.best_step, name, data)
    store.add_runs([run for run, _ in tuned])
    return task
