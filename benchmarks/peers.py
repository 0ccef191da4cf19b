"""A search as its users would write it, and ours: the clock, CPU seconds and scores, side by side.

    python benchmarks/peers.py [--trajectories N] [--rungs N] [--seeds N] [--tasks N]
                               [--workers N] [--rounds N] [--json FILE] [--quick]

Three sides score the same points of MAML's grid on the embedded model and gym, each in a fresh
process, from start to exit:

    ray      PEFT prompt tuning, MAML by `higher`, transformers' Adafactor, `generate` for all
             scores; a point is a trial of Ray Tune
    optuna   the same trials, handed to a pool of processes by Optuna
    ours     `mpt search`: steps are rungs of one trajectory, runs are packed, scores come from one
             teacher-forced pass where they can, and every run is stored

Points, upstream seeds, episodes, few-shot samples, data order, starting prompts and rows scored
are the same. Plain prompt tuning is done once on every side. The peers are given their tokens, and
tune without a database of runs; ours opens the study, tokenises and stores. Sides take turns, in
another order every round, since the load by others changes.

Scores of plain prompt tuning are compared run by run: start and order are equal, so that only
rounding is left, which may flip an arg-max now and then (in float64, which the tests use, it does
not). Learned prompts have gone through many outer steps, each of which enlarges rounding: there
the mean scores of a point are compared, and how many runs are equal all the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import machine
from sides import our_search, peer_search
from sides.agreement import Runs, agreement, runs_of
from sides.peer_search import BASELINE
from sides.peer_work import Work, trajectories_of, work_of
from sides.process_tree import Taken
from sides.turns import rotated, run_side

from mpt.backbones.load import PACKAGED_WEIGHTS
from mpt.metrics.relative_gain import Candidate, average_relative_gain, select_by_dev
from mpt.seeds import numpy_generator
from mpt.study.presets import load_study
from mpt.study.spaces import load_space
from mpt.study.specs import UpstreamSpec
from mpt.study.study import StudyPlan, open_study, plan_study

SIDES = ("ray", "optuna", "ours")


@dataclass(frozen=True)
class Task:
    """What is to be done, as it lies on the disk for the sides."""

    plan: StudyPlan
    trajectories: tuple[UpstreamSpec, ...]
    """Without upstream seeds: those are the plan's."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    flags = _flags(arguments)
    if flags.side is not None:
        do_side(flags.side, flags.folder, flags.workers)
        return
    task = embedded_task(flags)
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        document = compare(task, PACKAGED_WEIGHTS / "t5", Path(folder), flags)
    if flags.json:
        flags.json.write_text(json.dumps(document, indent=1) + "\n")


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--trajectories", type=int, default=2, help="settings of the grid, of 6")
    add("--rungs", type=int, default=3, help="steps of each, of 3")
    add("--seeds", type=int, default=1, help="upstream seeds")
    add("--tasks", type=int, default=9, help="scored tasks, of 9")
    add("--workers", type=int, default=os.cpu_count(), help="cores of every side")
    add("--rounds", type=int, default=1)
    add("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    add("--eval-batch", type=int, default=48, help="rows that the peers generate at once")
    add("--quick", action="store_true", help="sizes of seconds; the ratios mean little")
    add("--json", type=Path, help="write the numbers here too")
    add("--side", choices=SIDES, help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    counts = ("trajectories", "rungs", "seeds", "tasks", "workers", "rounds", "eval_batch")
    low = [name for name in counts if getattr(flags, name) < 1]
    if low:
        parser.error(f"{', '.join(low)}: must be whole numbers ≥ 1")
    return flags


def embedded_task(flags: argparse.Namespace) -> Task:
    """Return the embedded search, cut down to what the flags ask for."""
    config = load_study("embedded")
    config = dataclasses.replace(config, replicates=flags.seeds, fresh_replicates=0)
    grid = load_space("maml", "embedded").grid()[: flags.trajectories]
    grid = [dataclasses.replace(one, rungs=one.rungs[: flags.rungs]) for one in grid]
    if flags.quick:
        few = dataclasses.replace(config.downstream, max_dev=4, max_test=8)
        config = dataclasses.replace(config, data_seeds=(13, 21), downstream=few)
        grid = [dataclasses.replace(one, rungs=(1, 2, 4)[: flags.rungs]) for one in grid]
    scored = config.validation[: flags.tasks]
    return Task(plan_study(config, scored=scored), tuple(grid))


def compare(
    task: Task, checkpoint: Path, folder: Path, flags: argparse.Namespace
) -> dict[str, Any]:
    """Run the sides in turns; print and return what they took and gave."""
    study = open_study(task.plan)
    seeded = trajectories_of(task.trajectories, study.config.seeds)
    work = work_of(study, checkpoint, seeded, flags.eval_batch)
    print(
        f"{len(work.points)} points of {len(task.trajectories)} trajectories and "
        f"{len(study.config.seeds)} upstream seeds; {len(work.samples)} samples × "
        f"{len(work.lrs)} rates × {work.steps} steps downstream; {flags.workers} workers\n"
        f"{machine('cpu')}\n"
    )
    taken: dict[str, list[Taken]] = {side: [] for side in flags.sides}
    runs: dict[str, Runs] = {}
    parts: dict[str, dict[str, float]] = {}
    for number in range(flags.rounds):
        for side in rotated(flags.sides, number):
            side_folder = folder / f"{side}{number}"
            side_folder.mkdir()
            torch.save(work, side_folder / "work.pt")
            torch.save(task, side_folder / "task.pt")
            one = run_side(__file__, side, side_folder, "--workers", str(flags.workers))
            taken[side].append(one)
            trials = _trials(side, side_folder, study.config.train_seed)
            runs[side], parts[side] = runs_of(trials), _parts(trials)
            print(f"{side:7} {_words(one)}; {machine('cpu')}", flush=True)
    print(f"\n{ratios(taken)}\n\n{parts_table(parts)}\n")
    args = {side: gains(own, study.config.data_seeds) for side, own in runs.items()}
    others = {side: agreement(runs[side], runs["ours"]) for side in runs if "ours" in runs}
    print(agreement_table(others, args))
    return {
        "points": [point.name for point in work.points],
        "workers": flags.workers,
        "machine": machine("cpu"),
        "taken": {side: [dataclasses.asdict(one) for one in own] for side, own in taken.items()},
        "parts": parts,
        "agreement": others,
        "arg": args,
    }


def do_side(side: str, folder: Path, workers: int) -> None:
    """Do a side's search, in this process and those it starts."""
    torch.set_num_threads(1)
    work_file = str(folder / "work.pt")
    if side == "ours":
        task: Task = torch.load(folder / "task.pt", weights_only=False)
        sys.exit(our_search.search(task.plan, task.trajectories, folder / "results", workers))
    work: Work = torch.load(work_file, weights_only=False)
    do = peer_search.by_ray_tune if side == "ray" else peer_search.by_optuna
    do(work_file, len(work.points), workers)


def _trials(side: str, side_folder: Path, train_seed: int) -> list[dict[str, Any]]:
    if side == "ours":
        return our_search.trials(side_folder / "results", train_seed)
    return our_search.saved_trials(side_folder)


def _parts(trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the CPU seconds of every part, summed over trials; ours does not say."""
    seconds_of: dict[str, float] = {}
    for trial in trials:
        for part, seconds in trial["seconds"].items():
            seconds_of[part] = seconds_of.get(part, 0.0) + seconds
    return seconds_of


def _words(one: Taken) -> str:
    roles = ", ".join(f"{role} {seconds:.1f}" for role, seconds in sorted(one.cpu.items()))
    return f"{one.clock:6.1f} s by the clock, {one.cpu_s:6.1f} CPU s ({roles})"


def ratios(taken: Mapping[str, Sequence[Taken]]) -> str:
    """Return each peer's clock and CPU seconds over ours, round by round and their median."""
    if "ours" not in taken:
        return "ours was left out: no ratio"
    lines = []
    measures: dict[str, Callable[[Taken], float]] = {
        "clock": lambda one: one.clock,
        "CPU": lambda one: one.cpu_s,
    }
    for side, own in taken.items():
        if side == "ours":
            continue
        for what, of in measures.items():
            each = [of(a) / of(b) for a, b in zip(own, taken["ours"], strict=True)]
            values = " ".join(f"{one:.2f}" for one in each)
            lines.append(f"{side} / ours, {what:5}  {statistics.median(each):5.2f}  ({values})")
    return "\n".join(lines)


def parts_table(parts: Mapping[str, Mapping[str, float]]) -> str:
    """Return the CPU seconds of the peers' parts in their last round."""
    return "\n".join(
        f"{side:7} " + ", ".join(f"{part} {seconds:.1f}" for part, seconds in own.items())
        for side, own in parts.items()
        if own
    )


def gains(runs: Runs, seeds: Sequence[int]) -> dict[str, float | None]:
    """Return the ARG of every point in %, over the tasks that have one."""
    points = dict.fromkeys(key[0] for key in runs)
    scores = {point: _selected(runs, point) for point in points}
    baseline = scores[BASELINE]
    rng = functools.partial(numpy_generator, 0, "bootstrap")
    return {
        point: average_relative_gain(own, baseline, sorted(own), seeds, rng=rng()).arg_of_defined
        for point, own in scores.items()
        if point != BASELINE
    }


def _selected(runs: Runs, point: str) -> dict[str, dict[int, float]]:
    """Return task → data seed → test score of the rate that is best on dev.

    Of equal ones it is the lowest, on every side: in whatever order a side did its runs.
    """
    tried: dict[tuple[str, int], list[Candidate]] = {}
    for (owner, task, seed, lr), (dev, test) in sorted(runs.items()):
        if owner == point:
            tried.setdefault((task, seed), []).append(Candidate(lr=lr, dev=dev, test=test))
    selected: dict[str, dict[int, float]] = {}
    for (task, seed), candidates in tried.items():
        best = select_by_dev(candidates)
        if best is not None:
            selected.setdefault(task, {})[seed] = best.test
    return selected


def agreement_table(
    others: Mapping[str, Mapping[str, Mapping[str, Any]]],
    args: Mapping[str, Mapping[str, float | None]],
) -> str:
    """Return how far the sides agree, and every point's ARG on each of them."""
    lines = []
    for side, kinds in others.items():
        for kind, own in kinds.items():
            if side != "ours":
                a, b = own["mean_test"]
                lines.append(
                    f"{side:7} {kind:8} {own['equal']} of {own['runs']} runs as ours, largest "
                    f"difference {own['largest']:.3g}; mean test {a:.4f} and {b:.4f}, of a point "
                    f"at most {own['largest_of_points']:.4f} apart"
                )
    lines.append(f"\n{'ARG %':44}" + "".join(f"{side:>9}" for side in args))
    for point in next(iter(args.values()), {}):
        values = (own.get(point) for own in args.values())
        words = ("none" if value is None else f"{value:+.2f}" for value in values)
        lines.append(f"{point:44}" + "".join(f"{word:>9}" for word in words))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
