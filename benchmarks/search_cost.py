"""What a search costs, done plainly and done by this project, in one run on one machine.

    python benchmarks/search_cost.py [--points N] [--quick]

Both sides score the same points of MAML's grid on the embedded model and gym:

    plain   one run at a time: every steps value is trained by itself from step 0, the baselines
            are tuned anew for every point, each run by Hugging Face's own model, loss and
            Adafactor, and the model's own `generate` writes the text of every dev and test row
    ours    steps are rungs of one trajectory, the baselines are shared, runs are packed, and one
            teacher-forced pass replaces what generation it can; leaves, points and checkpoints are
            written to disk as in a real search

An upstream step is the same on both sides (`meta_step.py` compares those), and so are data, data
order and starting prompts, so that the numbers must be too: dev and test score of every leaf, and
every ARG. They are compared leaf by leaf; float32 rounding may flip an arg-max now and then, which
in float64 it does not (`--dtype float64`). The sides take turns point by point. Seconds are CPU
seconds of this one process, by default of one thread, as a trial has on a machine of two cores:
neither side pays for Ray, and waiting for the disk counts for neither.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from measuring import machine
from search_sides import PARTS, Ours, Plain, Side

from mpt.backbones import load_backbone
from mpt.backbones.load import EMBEDDED_WEIGHTS
from mpt.search.presets import load_study
from mpt.search.spaces import Trajectory, load_space
from mpt.search.study import Study, open_study, plan_study

SAME = 1e-9
"""Leaf scores are means of a few hundred rows at most: further apart, some row's text differs."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Whether two sides gave the same numbers."""

    leaves: int
    equal: int
    """Leaves whose dev and test score are both within `SAME`."""
    largest: float
    """Largest difference of a leaf's score, a fraction."""
    args: dict[str, tuple[float | None, float | None]]
    """Point → ARG in % (plain, ours); None where there is none."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    flags = _flags(arguments)
    torch.set_num_threads(flags.threads)
    study, grid = open_search(flags.quick, getattr(torch, flags.dtype))
    chosen = first_points(grid, flags.points)
    print(
        f"{flags.points} of {count(grid)} points of MAML's embedded grid, "
        f"{flags.dtype}{', quick sizes' if flags.quick else ''}; the plain side generates "
        f"{flags.eval_batch} rows at once\n{machine('cpu')}\n"
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = compare(study, chosen, Path(folder), eval_batch=flags.eval_batch)
    print(table(plain, ours))
    found = agreement(plain, ours)
    print(describe(found))
    projected = full_grid(plain, ours, chosen, grid)
    print(f"\n{projected[0]}")
    print(f"\n{time.perf_counter() - started:.0f} s by the clock; {machine('cpu')}")
    if flags.json:
        body = {
            "seconds": {"plain": plain.seconds, "ours": ours.seconds},
            "ratio": plain.total / ours.total,
            "ratio_of_the_grid": projected[1],
            "agreement": dataclasses.asdict(found),
        }
        flags.json.write_text(json.dumps(body, indent=1) + "\n")


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--points", type=int, default=3, help="points of the grid; 3 are one trajectory")
    add("--quick", action="store_true", help="sizes of seconds; the ratio means little")
    add("--dtype", choices=["float32", "float64"], default="float32")
    add("--threads", type=int, default=1, help="threads of torch")
    add("--eval-batch", type=int, default=8, help="rows that the plain side generates at once")
    add("--json", type=Path, help="write the numbers here too")
    flags = parser.parse_args(arguments)
    if not 1 <= flags.points <= 27:
        parser.error(f"--points is {flags.points}, but must be 1 to 27")
    if flags.eval_batch < 1 or flags.threads < 1:
        parser.error("--eval-batch and --threads must be whole numbers ≥ 1")
    return flags


def open_search(quick: bool, dtype: torch.dtype) -> tuple[Study, list[Trajectory]]:
    """Return the embedded study and its grid, at full or at quick sizes."""
    config, grid = load_study("embedded"), load_space("maml", "embedded").grid()
    if quick:
        few = dataclasses.replace(config.downstream, steps=2, eval_every=1, max_dev=4, max_test=8)
        config = dataclasses.replace(config, data_seeds=(13, 21), downstream=few)
        grid = [dataclasses.replace(one, rungs=(1, 2, 4)) for one in grid]
    study = open_study(plan_study(config, smoke_sources=3 if quick else None))
    if dtype != torch.float32:
        wide = load_backbone("embedded", dtype=dtype, position=config.prompt.position)
        study = dataclasses.replace(study, backbone=wide)
    return study, grid


def first_points(grid: Sequence[Trajectory], points: int) -> list[Trajectory]:
    """Return the first trajectories of a grid, the last one cut, with this many points in all."""
    chosen: list[Trajectory] = []
    for one in grid:
        rungs = one.rungs[: max(0, points - count(chosen))]
        if rungs:
            chosen.append(dataclasses.replace(one, rungs=rungs))
    return chosen


def count(trajectories: Sequence[Trajectory]) -> int:
    """Return the points of some trajectories."""
    return sum(len(one.rungs) for one in trajectories)


def compare(
    study: Study,
    trajectories: Sequence[Trajectory],
    folder: Path,
    checkpoint: Path = EMBEDDED_WEIGHTS,
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


def table(plain: Side, ours: Side) -> str:
    """Return the seconds of every part, and their ratios."""
    lines = [f"{'':20}  {'plain':>9}  {'ours':>9}  ratio"]
    rows = [(part, plain.seconds[part], ours.seconds[part]) for part in PARTS]
    for name, slow, fast in [*rows, ("total", plain.total, ours.total)]:
        lines.append(f"{name:20}  {slow:7.1f} s  {fast:7.1f} s  {slow / fast:5.2f}")
    return "\n".join(lines)


def agreement(plain: Side, ours: Side) -> Agreement:
    """Compare the numbers of two sides that scored the same points."""
    if plain.leaves.keys() != ours.leaves.keys() or plain.args.keys() != ours.args.keys():
        raise RuntimeError("the sides did not score the same points")
    apart = [
        max(abs(a - b) for a, b in zip(scores, ours.leaves[key], strict=True))
        for key, scores in plain.leaves.items()
    ]
    return Agreement(
        leaves=len(apart),
        equal=sum(difference <= SAME for difference in apart),
        largest=max(apart),
        args={name: (arg, ours.args[name]) for name, arg in plain.args.items()},
    )


def describe(found: Agreement) -> str:
    """Return the agreement in words."""
    lines = [
        f"\nsame numbers: {found.equal} of {found.leaves} leaves have the same dev and test score "
        f"(to {SAME:g}); largest difference {found.largest:.3g}",
        f"{'point':42}  {'ARG plain':>9}  {'ours':>9}",
    ]
    for name, (slow, fast) in found.args.items():
        lines.append(f"{name:42}  {_percent(slow)}  {_percent(fast)}")
    return "\n".join(lines)


def _percent(arg: float | None) -> str:
    return f"{'none':>9}" if arg is None else f"{arg:+8.2f}%"


def full_grid(
    plain: Side, ours: Side, done: Sequence[Trajectory], grid: Sequence[Trajectory]
) -> tuple[str, float]:
    """Return what the whole grid costs by the measured rates, in words and as a ratio."""
    (slow, first), (fast, second) = (_projected(side, done, grid) for side in (plain, ours))
    head = f"the whole grid by these rates: {slow / fast:.2f} times cheaper"
    return "\n".join([head, first, second]), slow / fast


def _projected(
    side: Side, done: Sequence[Trajectory], grid: Sequence[Trajectory]
) -> tuple[float, str]:
    """Return the seconds of a grid on one side, and how they come about."""
    downstream = side.seconds["training"] + side.seconds["evaluation"]
    step = side.seconds["upstream"] / sum(map(side.steps, done))
    point = downstream / count(done)
    baseline = side.seconds["baselines"] / side.baselines(count(done))
    steps, points, times = sum(map(side.steps, grid)), count(grid), side.baselines(count(grid))
    total = steps * step + points * point + times * baseline
    return total, (
        f"{side.name:5}  {steps} upstream steps × {step:.3f} s + {points} points × {point:.2f} s"
        f" + {times} × baselines of {baseline:.2f} s = {total:.0f} s"
    )


if __name__ == "__main__":
    main()
