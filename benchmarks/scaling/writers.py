"""The one writer of a search under many workers: its share of a core, and how long a call takes.

Finished runs reach a database that is a file through one actor beside the driver. Here it is the
real one, and so are the calls, but the workers compute nothing: each is a thread that does trials
of the embedded study one after the other, at the moments at which a worker of a stated speed
would. For a trial it asks for its point, its checkpoint, its rung and its runs; stores where the
learned prompt is; hands over the runs in lots of `LOT`, as a CPU packs them; stores the point, and
asks for its score.

The simulated rate is `Load.workers` / `Load.run_s` runs a second: each worker hands over `LOT`
runs every `LOT` · `Load.run_s` seconds (the last of a trial are fewer, and come the sooner), and
the workers begin at random moments of a lot. Nothing is learned upstream between the trials, so
real workers of this speed write less than these.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sides.process_tree import cpu_seconds

from mpt.keys import digest
from mpt.search.job import Execution
from mpt.store.database import open_results
from mpt.store.records import Artifact
from mpt.study.record import study_record
from mpt.study.specs import settings_of
from mpt.trial.origin import now as utc_now
from mpt.trial.runs import RunPack, keys_of
from scaling.results import RUNG, job_of, opener, packs_from, point_from, runs_from, write_baseline

LOT = 32
"""Runs that a worker hands over at once: as many go side by side on a CPU
(`mpt.downstream.limits.default_limits`), and those of one recipe end together."""
RATES = (0.1,)
"""The embedded study's downstream rate: 45 runs a point."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the simulated workers do."""

    workers: int
    run_s: float
    """Seconds that one worker takes for a run (its share of a pack's); 0: none, every call follows
    on the answer to the one before."""
    seconds: float
    """How long the load lasts."""


@dataclass(frozen=True)
class Call:
    """A call of the writer that was answered."""

    name: str
    seconds: float
    """Until the answer."""


class SimulatedWorker:
    """One worker, and the calls that it made.

    Args:
        number: of the worker; its trials differ from those of all others.
        study: key of the study.
        baseline: packs of plain prompt tuning, after which those of a trial are made.
        settings: of the method.
        now: the clock, in seconds.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        number: int,
        study: str,
        baseline: Sequence[RunPack],
        settings: dict[str, Any],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._number, self._study = number, study
        self._baseline, self._settings = baseline, settings
        self._now, self._sleep = now, sleep
        self._rng = np.random.default_rng(number)
        self.calls: list[Call] = []
        self.runs = 0
        """Runs that it handed over."""

    def work(self, store: Any, load: Load, begin: float) -> None:
        """Do trials for as long as a load lasts.

        Args:
            store: the database as a trial sees it.
            load: speed and length.
            begin: when the load begins, by the clock.
        """
        end = begin + load.seconds
        due = begin - self._rng.random() * LOT * load.run_s
        for runs in self._lots(store):
            due += runs * load.run_s
            if max(due, self._now()) >= end:
                break
            self._sleep(max(0.0, due - self._now()))

    def _lots(self, store: Any) -> Iterator[int]:
        """Do trials without end; before a lot is handed over, yield how many runs it has."""
        trial = 0
        while True:
            yield from self._trial(store, f"{self._number} {trial}")
            trial += 1

    def _trial(self, store: Any, name: str) -> Iterator[int]:
        prompt, upstream = digest(f"prompt {name}"), digest(f"upstream {name}")
        packs = list(packs_from(self._baseline, prompt))
        runs, keys = list(runs_from(packs, self._rng)), keys_of(packs)
        point = point_from(
            packs, prompt, study=self._study, settings=self._settings, upstream=upstream
        )
        self._call(store, "points", [point.key])
        self._call(store, "checkpoint", upstream)
        self._call(store, "rung", upstream, RUNG)
        self._call(store, "add_artifact", _learned(prompt, upstream))
        self._call(store, "present", keys)
        for first in range(0, len(runs), LOT):
            lot = runs[first : first + LOT]
            yield len(lot)
            self._call(store, "add_runs", lot)
            self.runs += len(lot)
        self._call(store, "add_point", point)
        self._call(store, "scores", [point.key])

    def _call(self, store: Any, name: str, *arguments: Any) -> None:
        began = self._now()
        getattr(store, name)(*arguments)
        self.calls.append(Call(name, self._now() - began))


def _learned(prompt: str, upstream: str) -> Artifact:
    """Return where a learned prompt is, as a search stores it; there is no such file."""
    return Artifact(
        kind="rung",
        owner=upstream,
        steps=RUNG,
        uri=f"rungs/{upstream}/{RUNG}.safetensors",
        digest=prompt,
        meta={"digest": prompt, "steps": RUNG, "examples": 800, "tokens": 9000, "seconds": 30.0},
        created=utc_now(),
    )


def measure_writer(folder: Path, load: Load) -> dict[str, Any]:
    """Start Ray and the writer, lay the load on it, and return what that took.

    Args:
        folder: an empty directory.
        load: what the workers do.

    Returns:
        Runs a second that were to be written and that were; share of a core that the writer's
        process took, its CPU milliseconds a run, and runs a second at which these fill a core
        (the other calls and the process's own upkeep are in them, and rule where few runs come);
        milliseconds until a call was answered, by its name.
    """
    from mpt.search.ray.session import ray_session

    job = job_of(folder, 1, RATES)
    study = opener()(job.plans[0])
    with open_results(job.results) as database:
        baseline = write_baseline(study, database, np.random.default_rng(0))
    settings, key = settings_of(job.trials[0].upstream.config), study_record(study).key
    workers = [SimulatedWorker(number, key, baseline, settings) for number in range(load.workers)]
    with ray_session(Execution(workers=1), 1, say=print):
        import ray

        from mpt.search.ray.writer import RemoteStore, start_writer

        actor = start_writer(job.url)
        # a closure, since the writer's process knows no benchmarks
        process = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
        began, before = time.monotonic(), cpu_seconds(process)
        _lay(workers, RemoteStore(actor), load)
        cpu, seconds = cpu_seconds(process) - before, time.monotonic() - began
        ray.get(actor.close.remote())
    return summary(workers, load, seconds, cpu)


def _lay(workers: Sequence[SimulatedWorker], store: Any, load: Load) -> None:
    """Let all workers work until the load is over."""
    begin = time.monotonic()
    with ThreadPoolExecutor(len(workers)) as pool:
        for future in [pool.submit(worker.work, store, load, begin) for worker in workers]:
            future.result()
    time.sleep(max(0.0, begin + load.seconds - time.monotonic()))


def summary(
    workers: Sequence[SimulatedWorker], load: Load, seconds: float, cpu: float
) -> dict[str, Any]:
    """Return what a load took; see `measure_writer`.

    Args:
        workers: what they called.
        load: what was wanted.
        seconds: how long it lasted by the clock.
        cpu: CPU seconds of the writer's process in that time.
    """
    runs = sum(worker.runs for worker in workers)
    by_name: dict[str, list[float]] = {}
    for call in (call for worker in workers for call in worker.calls):
        by_name.setdefault(call.name, []).append(1e3 * call.seconds)
    return {
        "workers": load.workers,
        "seconds a run of one worker": load.run_s,
        "runs a second, wanted": round(load.workers / load.run_s, 1) if load.run_s else None,
        "runs a second": round(runs / seconds, 1),
        "runs": runs,
        "writer's share of a core": round(cpu / seconds, 4),
        "writer's CPU milliseconds a run": round(1e3 * cpu / runs, 3) if runs else None,
        "runs a second that fill a core": round(runs / cpu) if cpu else None,
        "milliseconds to the answer": {
            name: {
                "calls": len(own),
                "median": round(float(np.median(own)), 2),
                "99 %": round(float(np.percentile(own, 99)), 2),
            }
            for name, own in by_name.items()
        },
    }
