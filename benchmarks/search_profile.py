"""Where the CPU seconds of a search's trials go: upstream, training, dev, test, tokens, database.

    python benchmarks/search_profile.py [--trajectories N] [--rungs N] [--tasks N] [--rates N]

The trials of a part of the embedded search are done in this one process, baselines first, as a
worker does them; the functions that make up a part are timed wherever they are called, and what is
inside another part is counted once, in the inner one. What is left is Python between them. What a
search takes besides (starting Ray and its workers, the driver) is told by `peers.py`, which counts
the CPU seconds of all processes.

With --rates N every (task, data seed) is tuned at N learning rates, of which dev selects one; the
last line says what the tests of the others take.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from measuring import machine

from mpt.backbones import Backbone
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.pack import Pack
from mpt.store.artifacts import Artifacts
from mpt.store.database import open_results
from mpt.study.presets import load_study
from mpt.study.record import study_record
from mpt.study.spaces import load_space
from mpt.study.specs import TrialSpec, UpstreamSpec, baseline_trials
from mpt.study.study import OpenStudy, open_study, plan_study
from mpt.trial.opening import open_trial
from mpt.trial.store import TrialStore
from mpt.upstream.engine import UpstreamRun

REST = "Python between"
PARTS = ("upstream", "training", "dev", "test", "tokens", "database", "files", REST)
_DATABASE = ("present", "add_runs", "add_point", "points", "scores", "checkpoint", "rung", "signs")
_FILES = ("write", "read")


class Stopwatch:
    """CPU seconds by part; inside a part another one counts for itself alone.

    Args:
        clock: what to take seconds from.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time):
        self._clock = clock
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count what the block takes, but for the parts inside of it."""
        started, before = self._clock(), sum(self.seconds.values())
        try:
            yield
        finally:
            self.seconds[part] += self._clock() - started - (sum(self.seconds.values()) - before)

    def around(self, method: Any, part: Callable[[Any], str]) -> Any:
        """Return a method that is timed; `part` says by its object what it counts as."""

        def timed(owner: Any, *arguments: Any, **named: Any) -> Any:
            with self.timed(part(owner)):
                return method(owner, *arguments, **named)

        return timed

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Time the functions that make up the parts wherever they are called."""
        watched: list[tuple[type, str, Callable[[Any], str]]] = [
            (UpstreamRun, "advance", lambda _: "upstream"),
            (Pack, "step", lambda _: "training"),
            (Evaluator, "scores", lambda evaluator: str(evaluator.split)),
            (Backbone, "encode_rows", lambda _: "tokens"),
            *((TrialStore, name, lambda _: "database") for name in _DATABASE),
            *((Artifacts, name, lambda _: "files") for name in _FILES),
        ]
        with contextlib.ExitStack() as stack:
            for kind, name, part in watched:
                timed = self.around(getattr(kind, name), part)
                stack.enter_context(mock.patch.object(kind, name, timed))
            yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    flags = _flags(arguments)
    torch.set_num_threads(1)
    study, grid = embedded(flags)
    print(machine("cpu"))
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        seconds = profile(study, grid, Path(folder))
    total = sum(seconds.values())
    for part, own in seconds.items():
        print(f"{part:15} {own:7.2f} s  {own / total:6.1%}")
    rates = len(study.config.downstream.lrs)
    unselected = seconds["test"] * (rates - 1) / rates
    print(f"{'all':15} {total:7.2f} s\n")
    print(f"tests of what dev did not select: {unselected:.2f} s  {unselected / total:.1%}")
    print(machine("cpu"))
    if flags.json:
        flags.json.write_text(json.dumps({"seconds": seconds, "rates": rates}, indent=1) + "\n")


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--trajectories", type=int, default=1, help="settings of the grid, of 6")
    add("--rungs", type=int, default=3, help="steps of each, of 3")
    add("--tasks", type=int, default=9, help="scored tasks, of 9")
    add("--rates", type=int, default=1, help="downstream learning rates")
    add("--steps", type=int, help="downstream steps, if not the study's")
    add("--json", type=Path, help="write the numbers here too")
    flags = parser.parse_args(arguments)
    low = [name for name in ("trajectories", "rungs", "tasks", "rates") if vars(flags)[name] < 1]
    if low:
        parser.error(f"{', '.join(low)}: must be whole numbers ≥ 1")
    return flags


def embedded(flags: argparse.Namespace) -> tuple[OpenStudy, list[UpstreamSpec]]:
    """Return the embedded study and MAML's grid, cut down to what the flags ask for."""
    config = load_study("embedded")
    down = config.downstream
    lrs = tuple(down.lrs[0] * 2**-n for n in range(flags.rates))
    steps = down.steps if flags.steps is None else flags.steps
    down = dataclasses.replace(down, lrs=lrs, steps=steps, eval_every=min(down.eval_every, steps))
    config = dataclasses.replace(config, downstream=down)
    grid = load_space("maml", "embedded").grid()[: flags.trajectories]
    cut = [dataclasses.replace(one, rungs=one.rungs[: flags.rungs]) for one in grid]
    return open_study(plan_study(config, scored=config.validation[: flags.tasks])), cut


def profile(
    study: OpenStudy,
    trajectories: Sequence[UpstreamSpec],
    folder: Path,
    watch: Stopwatch | None = None,
) -> dict[str, float]:
    """Do the trials; return the seconds of every part, of the CPU or as `watch` counts them."""
    watch = watch or Stopwatch()
    own = [TrialSpec(plan=study.plan, upstream=one) for one in trajectories]
    with open_results(folder) as database, watch.watching(), watch.timed(REST):
        store, files = TrialStore(database), Artifacts(str(folder))
        store.add_study(study_record(study))
        for spec in (*baseline_trials(study.plan), *own):
            for _ in open_trial([study], [spec], store, files).units():
                continue
    return watch.seconds


if __name__ == "__main__":
    main()
