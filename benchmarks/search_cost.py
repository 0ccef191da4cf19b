"""What a search costs, done plainly and done by this project, in one run on one machine.

    python benchmarks/search_cost.py [--points N] [--cores N] [--quick]

Both sides score the same points of MAML's grid on the embedded model and gym:

    plain   one run at a time: every steps value is trained by itself from step 0, the baselines
            are tuned anew for every point, each run by Hugging Face's own model, loss and
            Adafactor, and the model's own `generate` writes the text of every dev and test row
    ours    steps are rungs of one trajectory, the baselines are shared, runs are packed, and one
            teacher-forced pass replaces what generation it can; runs, points and checkpoints are
            written to disk as in a real search

An upstream step is the same on both sides (`meta_step.py` compares those), and so are data, data
order and starting prompts, so that the numbers must be too: dev and test score of every run, and
every ARG. They are compared run by run; float32 rounding may flip an arg-max now and then, which
in float64 it does not (`--dtype float64`).

Two ways to count, in neither of which a side pays for Ray:

    CPU seconds (default)   of this one process, by default of one thread, as a trial has on a
                            machine of two cores. The sides take turns point by point, waiting for
                            the disk counts for neither, and others' load lengthens them least
    --cores N               seconds of the clock on N cores as a user has them: the plain side runs
                            one run at a time with N threads of torch; ours runs N workers of one
                            thread that share trajectories and baselines, as a search's do. First
                            ours, then plain. Only a quiet machine gives a ratio that means
                            anything: the load average is printed before, between and after
                            (in float32 N threads round otherwise than one, upstream too, so fewer
                            runs agree than in CPU seconds)
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import heapq
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from measuring import machine
from search_ours import WAITING, Crew, Ours
from search_sides import PARTS, Plain, Side

from mpt.backbones import load_backbone
from mpt.backbones.load import PACKAGED_WEIGHTS
from mpt.study.presets import load_study
from mpt.study.spaces import load_space
from mpt.study.specs import UpstreamSpec
from mpt.study.study import Study, open_study, plan_study

SAME = 1e-9
"""Leaf scores are means of a few hundred rows at most: further apart, some row's text differs."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Whether two sides gave the same numbers."""

    runs: int
    equal: int
    """Leaves whose dev and test score are both within `SAME`."""
    largest: float
    """Largest difference of a run's score, a fraction."""
    args: dict[str, tuple[float | None, float | None]]
    """Point → ARG in % (plain, ours); None where there is none."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    flags = _flags(arguments)
    torch.set_num_threads(flags.threads)
    opener = functools.partial(open_embedded, flags.quick, getattr(torch, flags.dtype))
    study, grid = opener(), embedded_grid(flags.quick)
    chosen = first_points(grid, flags.points)
    print(
        f"{flags.points} of {count(grid)} points of MAML's embedded grid, "
        f"{flags.dtype}{', quick sizes' if flags.quick else ''}; the plain side generates "
        f"{flags.eval_batch} rows at once\n{_how(flags)}\n{machine('cpu')}\n"
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        plain: Plain
        ours: Ours
        if flags.cores is None:
            plain, ours = compare(study, chosen, Path(folder), eval_batch=flags.eval_batch)
        else:
            plain = Plain(study, PACKAGED_WEIGHTS / "t5", flags.eval_batch, time.perf_counter)
            ours = Crew(study, Path(folder), opener, flags.cores)
            by_the_clock(plain, ours, chosen)
    print(table(plain, ours))
    found = agreement(plain, ours)
    print(describe(found))
    projected = full_grid(plain, ours, chosen, grid)
    print(f"\n{projected[0]}")
    print(f"\n{time.perf_counter() - started:.0f} s by the clock; {machine('cpu')}")
    if flags.json:
        body = {
            "cores": flags.cores,
            "seconds": {"plain": plain.seconds, "ours": ours.seconds},
            "ratio": plain.total / ours.total,
            "ratio_of_the_grid": projected[1],
            "agreement": dataclasses.asdict(found),
        }
        flags.json.write_text(json.dumps(body, indent=1) + "\n")


def _how(flags: argparse.Namespace) -> str:
    """Return what the seconds are, in words."""
    if flags.cores is None:
        return "CPU seconds of one process"
    return (
        f"seconds of the clock on {flags.cores} cores: plain has {flags.threads} threads, ours "
        f"{flags.cores} workers of one thread"
    )


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--points", type=int, default=3, help="points of the grid; 3 are one trajectory")
    add("--quick", action="store_true", help="sizes of seconds; the ratio means little")
    add("--dtype", choices=["float32", "float64"], default="float32")
    add("--cores", type=int, help="count the clock on so many cores instead, see above")
    add("--threads", type=int, help="threads of torch (with --cores: of plain); default 1, or N")
    add("--eval-batch", type=int, default=8, help="rows that the plain side generates at once")
    add("--json", type=Path, help="write the numbers here too")
    flags = parser.parse_args(arguments)
    if not 1 <= flags.points <= 27:
        parser.error(f"--points is {flags.points}, but must be 1 to 27")
    cores = 1 if flags.cores is None else flags.cores
    flags.threads = cores if flags.threads is None else flags.threads
    if min(flags.eval_batch, flags.threads, cores) < 1:
        parser.error("--eval-batch, --threads and --cores must be whole numbers ≥ 1")
    return flags


def open_embedded(quick: bool, dtype: torch.dtype) -> Study:
    """Return the embedded study, at full or at quick sizes."""
    config = load_study("embedded", preset="embedded_v1")
    if quick:
        few = dataclasses.replace(config.downstream, steps=2, eval_every=1, max_dev=4, max_test=8)
        config = dataclasses.replace(config, data_seeds=(13, 21), downstream=few)
    study = open_study(plan_study(config, smoke_sources=3 if quick else None))
    if dtype != torch.float32:
        wide = load_backbone("embedded", dtype=dtype, position=config.prompt.position)
        study = dataclasses.replace(study, backbone=wide)
    return study


def embedded_grid(quick: bool) -> list[UpstreamSpec]:
    """Return MAML's grid for the embedded model, at full or at quick sizes."""
    grid = load_space("maml", "embedded_v1").grid()
    return [dataclasses.replace(one, rungs=(1, 2, 4)) for one in grid] if quick else grid


def first_points(grid: Sequence[UpstreamSpec], points: int) -> list[UpstreamSpec]:
    """Return the first trajectories of a grid, the last one cut, with this many points in all."""
    chosen: list[UpstreamSpec] = []
    for one in grid:
        rungs = one.rungs[: max(0, points - count(chosen))]
        if rungs:
            chosen.append(dataclasses.replace(one, rungs=rungs))
    return chosen


def count(trajectories: Sequence[UpstreamSpec]) -> int:
    """Return the points of some trajectories."""
    return sum(len(one.rungs) for one in trajectories)


def compare(
    study: Study,
    trajectories: Sequence[UpstreamSpec],
    folder: Path,
    checkpoint: Path = PACKAGED_WEIGHTS / "t5",
    eval_batch: int = 8,
) -> tuple[Plain, Ours]:
    """Run both sides, point by point in turns.

    Args:
        study: what is scored.
        trajectories: whose rungs are the points.
        folder: for the records of our side.
        checkpoint: the study's backbone, which the plain side loads for itself.
        eval_batch: rows that the plain side generates at once.
    """
    plain, ours = Plain(study, checkpoint, eval_batch), Ours(study, folder)
    for trajectory in trajectories:
        for _ in zip(plain.points(trajectory), ours.points(trajectory), strict=True):
            pass
    return plain, ours


def by_the_clock(plain: Plain, ours: Crew, trajectories: Sequence[UpstreamSpec]) -> None:
    """Run both sides, one after the other: each has the whole machine. Print the load between."""
    ours.score(trajectories)
    print(f"ours has ended; {machine('cpu')}")
    for trajectory in trajectories:
        for _ in plain.points(trajectory):
            continue
    print(f"plain has ended; {machine('cpu')}\n")


def table(plain: Side, ours: Side) -> str:
    """Return the seconds of every part, and their ratios."""
    lines = [f"{'':20}  {'plain':>9}  {'ours':>9}  ratio"]
    rows = [(part, plain.seconds[part], ours.seconds[part]) for part in PARTS]
    for name, slow, fast in rows:
        lines.append(f"{name:20}  {slow:7.1f} s  {fast:7.1f} s  {slow / fast:5.2f}")
    if WAITING in ours.seconds:
        lines.append(f"{WAITING:20}  {'':9}  {ours.seconds[WAITING]:7.1f} s")
    slow, fast = plain.total, ours.total
    lines.append(f"{'total':20}  {slow:7.1f} s  {fast:7.1f} s  {slow / fast:5.2f}")
    return "\n".join(lines)


def agreement(plain: Side, ours: Side) -> Agreement:
    """Compare the numbers of two sides that scored the same points."""
    if plain.runs.keys() != ours.runs.keys() or plain.args.keys() != ours.args.keys():
        raise RuntimeError("the sides did not score the same points")
    apart = [
        max(abs(a - b) for a, b in zip(scores, ours.runs[key], strict=True))
        for key, scores in plain.runs.items()
    ]
    return Agreement(
        runs=len(apart),
        equal=sum(difference <= SAME for difference in apart),
        largest=max(apart),
        args={name: (arg, ours.args[name]) for name, arg in plain.args.items()},
    )


def describe(found: Agreement) -> str:
    """Return the agreement in words."""
    lines = [
        f"\nsame numbers: {found.equal} of {found.runs} runs have the same dev and test score "
        f"(to {SAME:g}); largest difference {found.largest:.3g}",
        f"{'point':42}  {'ARG plain':>9}  {'ours':>9}",
    ]
    for name, (slow, fast) in found.args.items():
        lines.append(f"{name:42}  {_percent(slow)}  {_percent(fast)}")
    return "\n".join(lines)


def _percent(arg: float | None) -> str:
    return f"{'none':>9}" if arg is None else f"{arg:+8.2f}%"


def full_grid(
    plain: Side, ours: Side, done: Sequence[UpstreamSpec], grid: Sequence[UpstreamSpec]
) -> tuple[str, float]:
    """Return what the whole grid costs by the measured rates, in words and as a ratio."""
    (slow, first), (fast, second) = (_projected(side, done, grid) for side in (plain, ours))
    head = f"the whole grid by these rates: {slow / fast:.2f} times cheaper"
    return "\n".join([head, first, second]), slow / fast


def _projected(
    side: Side, done: Sequence[UpstreamSpec], grid: Sequence[UpstreamSpec]
) -> tuple[float, str]:
    """Return the seconds of a grid on one side, and how they come about.

    With several workers the rates are seconds of one of them. They share the baselines, and then
    each takes the next trajectory when it is free: some may wait for the last one.
    """
    work = {part: side.workers * side.seconds[part] for part in PARTS}
    step = work["upstream"] / sum(map(side.steps, done))
    point = (work["training"] + work["evaluation"]) / count(done)
    baseline = work["baselines"] / side.baselines(count(done))
    steps, points, times = sum(map(side.steps, grid)), count(grid), side.baselines(count(grid))
    each = [side.steps(one) * step + count([one]) * point for one in grid]
    total = times * baseline / side.workers + makespan(each, side.workers)
    return total, (
        f"{side.name:5}  {steps} upstream steps × {step:.3f} s + {points} points × {point:.2f} s"
        f" + {times} × baselines of {baseline:.2f} s"
        f"{f', by {side.workers} workers' if side.workers > 1 else ''} = {total:.0f} s"
    )


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of some jobs ends if each goes, in order, to whoever is free first."""
    free = [0.0] * workers
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


if __name__ == "__main__":
    main()
