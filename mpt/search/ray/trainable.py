"""The Ray Tune trial: the units of a trial, one a step, with Tune's own checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray import tune
from ray.train._internal.session import _TrainingResult

from mpt.errors import DataError, MptError, UsageError
from mpt.search.cost.plan import Rates
from mpt.search.cost.probe import probe_trials
from mpt.search.dispatch import TrialGroup, rung_report
from mpt.search.ray.gauges import Gauges
from mpt.search.ray.watchdog import end_with_raylet
from mpt.search.ray.writer import RemoteStore
from mpt.search.replication import configured_replicate
from mpt.store.artifacts import Artifacts
from mpt.store.database import Database
from mpt.store.errors import storage_errors
from mpt.store.remote import reaching, shown_uri
from mpt.store.state import read_folder_state, write_folder_state
from mpt.study.specs import TrialSpec
from mpt.study.study import OpenStudy, StudyPlan, open_study
from mpt.trial.files import newest_state
from mpt.trial.opening import open_trial
from mpt.trial.store import TrialStore
from mpt.trial.trial import Progress, Trial, TrialOptions
from mpt.upstream.registry import register

if TYPE_CHECKING:
    from mpt.search.job import Suggestions


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What every worker of a search is told once."""

    groups: tuple[TrialGroup, ...]
    """What the listed trials work on; a configuration's `trial` is a place here."""
    suggestions: Suggestions | None
    """Space and study of the trials that are suggested while the search runs."""
    url: str
    """Of the database."""
    writer: Any
    """Handle of the one writer (`mpt.search.ray.writer`); None: workers reach the database."""
    files: str
    """Where checkpoints and prompts go."""
    options: TrialOptions
    """How trials work."""
    device: str | None = None
    """See `Execution`."""
    keys: Mapping[int, str] = field(default_factory=dict)
    """Number of a listed trial → key of its upstream trajectory, as the driver found it."""
    methods: Mapping[str, Any] = field(default_factory=dict)
    """Registered upstream methods: name → `Method`."""
    trials: tuple[TrialSpec, ...] = ()
    """Those of the first upstream seed; a configuration with `of` is a replicate of one."""

    def store(self) -> TrialStore:
        """Return the database as a trial sees it, here."""
        if self.writer is None:
            return TrialStore(Database(self.url))
        proxy: Any = RemoteStore(self.writer)
        return proxy

    def group(self, config: Mapping[str, Any]) -> TrialGroup:
        """Return what a trial works on, by its configuration."""
        number = int(config["trial"])
        if number < len(self.groups):
            return self.groups[number]
        if self.trials and "of" in config:
            return TrialGroup(specs=(configured_replicate(self.trials, config),), indices=())
        assert self.suggestions is not None
        point = {domain.name: config[domain.name] for domain in self.suggestions.space.domains}
        return TrialGroup(specs=(self.suggestions.trial(point),), indices=())


class SearchTrial(tune.Trainable):
    """One trial; its configuration is flat, and `trial` in it is a place in the context's list."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Return one CPU and the trial's share of a GPU."""
        return tune.PlacementGroupFactory([{"CPU": 1, "GPU": config["gpus"]}])

    def setup(self, config: dict[str, Any], context: TrialContext | None = None) -> None:
        """Open the studies and find out what is left to do."""
        assert context is not None
        end_with_raylet()
        self._context = context
        for name, method in context.methods.items():
            register(name, method)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turn this actor to another trial; what it loaded stays loaded."""
        self._begin(new_config)
        return True

    @functools.cached_property
    def _store(self) -> TrialStore:
        return self._context.store()

    def _begin(self, config: dict[str, Any]) -> None:
        context = self._context
        self._group = context.group(config)
        self._number = int(config["trial"])
        self._failure: str | None = None
        self._progress = Progress()
        self._work: Trial | None = None
        self._gauges = Gauges(self._group.name)
        # One thread: sums are then formed in one order on every machine with these versions.
        torch.set_num_threads(1)
        try:
            device = device_of(context.device)
            studies = [_open(spec.plan, device) for spec in self._group.specs]
            files = Artifacts(context.files)
            self._work = open_trial(
                studies, self._group.specs, self._store, files, context.options
            )
            expected = context.keys.get(self._number, config.get("upstream_key"))
            if expected is not None and expected != self._work.key:
                raise DataError(
                    f"node {platform.node()} has another backbone, data or code than the driver; "
                    "install the same version and files on every node"
                )
            self._progress = self._work.progress
            self._go_on(files)
        except MptError as error:
            self._failure = str(error)

    def _go_on(self, files: Artifacts) -> None:
        """Go on from the newest checkpoint that the database knows of this trial."""
        assert self._work is not None
        try:
            state = newest_state(self._store, files, self._work.owner)
        except DataError as error:
            self._progress.problems.append(f"{error}; the trial starts anew")
            return
        if state is not None:
            self._work.load_state(state)

    def step(self) -> dict[str, Any]:
        """Do one unit and report where the trial stands.

        An error that a person must cure is reported as `failure` and ends the trial: starting it
        again would not help. Anything else (a lost worker, no memory) is left to Tune, which
        starts the trial again.
        """
        if self._work is not None and self._failure is None:
            try:
                self._progress = self._work.unit()
            except MptError as error:
                self._failure = str(error)
        done, queue = self._progress, self._progress.queue
        report = rung_report(self._group.specs[0].upstream.rungs, done.scores)
        gauges: dict[str, float] = {"arg": report["arg"]}
        if queue is not None:
            gauges |= {"runs_done": queue.finished, "runs_running": queue.running}
            gauges |= {"runs_waiting": queue.waiting, "steps_per_second": queue.steps_s}
            gauges |= {"tokens_per_second": queue.tokens_s}
        self._gauges.report(**gauges)
        return {
            **report,
            "steps": done.steps,
            "runs": done.runs,
            "choice_steps": done.choice_steps,
            "choice_rows": done.choice_rows,
            "waiting": done.waiting,
            "owner": "" if self._work is None else self._work.owner,
            "landed": list(done.landed),
            "queue": None if queue is None else dataclasses.asdict(queue),
            "choosing": None if done.choosing is None else dataclasses.asdict(done.choosing),
            "stopped": None if done.stopped is None else dataclasses.asdict(done.stopped),
            "problems": list(done.problems),
            "failure": self._failure,
            "done": done.done or self._failure is not None,
        }

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Save as Tune does; where the storage fails, the trial ends with the cure.

        To Tune this is a save without a checkpoint: starting the trial again would not help.
        """
        files = Artifacts(self._context.files)
        errors = storage_errors(files.local) if files.local else reaching(shown_uri(files.uri))
        try:
            with errors:
                return super().save(checkpoint_dir)
        except MptError as error:
            self._failure = str(error)
            return _TrainingResult(checkpoint=None, metrics=self._last_result or {})

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial's state."""
        state = {} if self._work is None else self._work.state()
        write_folder_state(Path(checkpoint_dir), state)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a state; one that is broken is passed over with a note."""
        if self._work is not None:
            with contextlib.suppress(DataError):
                self._work.load_state(read_folder_state(Path(checkpoint)))

    def __repr__(self) -> str:
        group = getattr(self, "_group", None)
        return type(self).__name__ if group is None else group.name


def probe_here(trials: Sequence[TrialSpec], device: str | None) -> Rates:
    """Measure the rates of some trials on this worker's device, and its GPU memory."""
    torch.set_num_threads(1)
    where = device_of(device)
    if where == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rates = probe_trials(trials, lambda plan: _open(plan, where))
    if where != "cuda":
        return rates
    torch.cuda.synchronize()
    held, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    return dataclasses.replace(rates, gpu_need=held, gpu_bytes=total)


@functools.lru_cache(maxsize=4)
def _open(plan: StudyPlan, device: str) -> OpenStudy:
    """Open a study once a process."""
    return open_study(plan, device)


def device_of(wanted: str | None) -> str:
    """Return where this worker computes: where it is wanted, or else on what Ray gave it.

    `torch.cuda.is_available()` alone would be wrong: Ray 2.60 leaves the GPUs of a node visible to
    workers that asked for none.

    Raises:
        UsageError: Ray gave a GPU that torch does not see.
    """
    if wanted is not None:
        return wanted
    if not ray.get_gpu_ids():
        return "cpu"
    if not torch.cuda.is_available():
        raise UsageError(
            f"node {platform.node()} gave the trial a GPU, but its torch {torch.__version__} sees "
            "none; install torch with CUDA there, or search without --gpus-per-trial"
        )
    return "cuda"
