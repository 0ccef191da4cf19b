"""Downstream runs of a real model as users of PEFT write them, and ours: seconds a run, scores.

    python benchmarks/peers_real.py [--gym DIR] [--backbone smollm2] [--tasks N] [--seeds N]
                                    [--lrs RATE ...] [--steps N] [--eval-every N] [--rounds N]
                                    [--threads N] [--json FILE] [--quick]

Plain prompt tuning of a decoder-only model by its study's recipe (search_spaces/studies.toml), the
same tasks, samples, starting prompts, order of data and rows on all sides:

    peft         PEFT prompt tuning, transformers' Adafactor, `generate` for all scores; only
                 inputs of one length are generated together: each has the output it has alone
    peft-padded  the same, and inputs of all lengths together, padded on the left as tutorials do
    prepend      ours: runs are packed, scores come from one teacher-forced pass where they can,
                 and every run is stored; the prompt stands before the input, as PEFT has it
    append       the same with the prompt behind the input, whose states are then computed once

Each side is a fresh process, one at a time and in another order every round. Seconds are those of
the runs themselves, of the CPU and of the clock; loading the model is left out, and tokenising on
the peers' sides. DIR holds few-shot files as CrossFit has them; without it the tasks of the
embedded gym serve.

Scores of `peft` and `prepend` are compared run by run: start and order are equal, so that only
rounding is left, which a chaotic run enlarges. The others are compared by their means: padding on
the left moves a row's places, and another position of the prompt is another run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import machine
from sides.agreement import Runs, agreement, runs_of
from sides.our_runs import plain_tuning
from sides.our_search import saved_trials
from sides.peer_search import Scorer
from sides.peer_work import work_of
from sides.turns import rotated, run_side

from mpt.backbones.load import pretrained_source
from mpt.study.presets import load_study
from mpt.study.study import StudyPlan, open_study, plan_study, release_weights

PEERS = ("peft", "peft-padded")
OURS = ("prepend", "append")
SIDES = (*PEERS, *OURS)
MEASURES = ("seconds", "clock")
"""Of the CPU, and by the clock."""
PARTS = ("training", "dev", "test")

Trial = Mapping[str, Any]
"""What a side has done, see `Scorer.trial`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    flags = _flags(arguments)
    if flags.side is not None:
        torch.set_num_threads(flags.threads)
        do_side(flags.side, flags.folder, flags.eval_batch)
        return
    plan = plan_of(flags)
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        document = compare(plan, Path(folder), flags)
    if flags.json:
        flags.json.write_text(json.dumps(document, indent=1) + "\n")


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--gym", default="embedded", help="few-shot files (default: the embedded gym)")
    add("--backbone", default="smollm2", help="a decoder-only model")
    add("--tasks", type=int, default=4, help="scored tasks, from the study's first on")
    add("--seeds", type=int, default=1, help="data seeds, from the study's first on")
    add("--lrs", type=float, nargs="+", help="learning rates of a run, if not the study's")
    add("--steps", type=int, help="of a run, if not the study's")
    add("--eval-every", type=int, help="steps between evaluations, if not the study's")
    add("--rounds", type=int, default=2)
    add("--threads", type=int, default=os.cpu_count(), help="of every side (default: all cores)")
    add("--eval-batch", type=int, default=48, help="rows that the peers generate at once")
    add("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    add("--quick", action="store_true", help="sizes of a minute; the ratios mean little")
    add("--json", type=Path, help="write the numbers here too")
    add("--side", choices=SIDES, help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    counts = ("tasks", "seeds", "steps", "eval_every", "rounds", "threads", "eval_batch")
    low = [name for name in counts if vars(flags)[name] is not None and vars(flags)[name] < 1]
    if low:
        parser.error(f"{', '.join(low)}: must be whole numbers ≥ 1")
    return flags


def plan_of(flags: argparse.Namespace) -> StudyPlan:
    """Return the study that all sides do, its prompt before the input.

    Raises:
        SystemExit: the gym has fewer of the study's tasks than are wanted.
    """
    config = load_study(flags.backbone)
    lrs = None if flags.lrs is None else tuple(flags.lrs)
    told = {"steps": flags.steps, "eval_every": flags.eval_every, "lrs": lrs}
    changed: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    seeds = config.data_seeds[: flags.seeds]
    if flags.quick:
        seeds = seeds[:1]
        changed |= {"steps": 2, "eval_every": 1, "max_dev": 4, "max_test": 8}
    config = dataclasses.replace(
        config,
        gym=flags.gym,
        data_seeds=seeds,
        prompt=dataclasses.replace(config.prompt, position="prepend"),
        downstream=dataclasses.replace(config.downstream, **changed),
        replicates=1,
        fresh_replicates=0,
    )
    # nothing is learned upstream: one source task will do
    plan = plan_study(config, smoke_sources=1)
    if len(plan.scored) < flags.tasks:
        raise SystemExit(
            f"--tasks is {flags.tasks}, but {flags.gym} has {len(plan.scored)} of the study's "
            f"tasks: {', '.join(plan.scored)}"
        )
    return dataclasses.replace(plan, scored=plan.scored[: flags.tasks])


def do_side(side: str, folder: Path, eval_batch: int) -> None:
    """Do a side's runs in this process, and write what they gave beside the plan."""
    plan: StudyPlan = torch.load(folder / "plan.pt", weights_only=False)
    trial = side_trial(side, plan, folder, eval_batch)
    (folder / "trial.json").write_text(json.dumps(trial))


def side_trial(side: str, plan: StudyPlan, folder: Path, eval_batch: int) -> Trial:
    """Return what a side has done.

    Args:
        side: of `SIDES`.
        plan: the study, its prompt before the input.
        folder: where our results go.
        eval_batch: rows that the peers generate at once.
    """
    if side in OURS:
        prompt = dataclasses.replace(plan.config.prompt, position=side)
        config = dataclasses.replace(plan.config, prompt=prompt)
        return plain_tuning(open_study(dataclasses.replace(plan, config=config)), folder)
    work = work_of(open_study(plan), Path(pretrained_source(plan.config.backbone)), (), eval_batch)
    release_weights()
    return Scorer(work, left_padded=side == "peft-padded").trial(None)


def compare(plan: StudyPlan, folder: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """Run the sides in turns; print and return what they took and gave."""
    down = plan.config.downstream
    print(
        f"{flags.backbone}: {', '.join(plan.scored)}; data seeds "
        f"{', '.join(map(str, plan.config.data_seeds))}; rates "
        f"{', '.join(map(str, down.lrs))}; {down.steps} steps of {down.batch_size} "
        f"rows, evaluated every {down.eval_every} on {down.max_dev} dev rows, {down.max_test} "
        f"test rows; {flags.threads} threads\n{machine('cpu')}\n"
    )
    trials: dict[str, list[Trial]] = {side: [] for side in flags.sides}
    for number in range(flags.rounds):
        for side in rotated(flags.sides, number):
            side_folder = folder / f"{side}{number}"
            side_folder.mkdir()
            torch.save(plan, side_folder / "plan.pt")
            options = ("--threads", str(flags.threads), "--eval-batch", str(flags.eval_batch))
            run_side(__file__, side, side_folder, *options)
            trials[side] += saved_trials(side_folder)
            print(f"{side:12} {seconds_line(trials[side][-1])}; {machine('cpu')}", flush=True)
    runs = {side: runs_of(own[-1:]) for side, own in trials.items()}
    print(f"\n{ratio_table(trials)}\n\n{score_table(runs)}")
    return {
        "tasks": plan.scored,
        "data_seeds": plan.config.data_seeds,
        "downstream": dataclasses.asdict(down),
        "machine": machine("cpu"),
        "trials": trials,
        "ratios": ratios(trials),
        "agreement": agreements(runs),
    }


def seconds_line(trial: Trial) -> str:
    """Return what a run took on a side: CPU and clock, and the CPU seconds of its parts."""
    cpu, clock = (run_seconds(trial, measure) for measure in MEASURES)
    parts = {part: trial["seconds"][part] / len(trial["runs"]) for part in PARTS}
    words = ", ".join(f"{part} {own:.2f}" for part, own in parts.items())
    rest = cpu - sum(parts.values())
    return f"a run: {cpu:6.2f} CPU s ({words}, rest {rest:.2f}), {clock:6.2f} s by the clock"


def run_seconds(trial: Trial, measure: str) -> float:
    """Return the seconds of one run: mean over the runs of a side."""
    return float(sum(trial[measure].values())) / len(trial["runs"])


def ratios(trials: Mapping[str, Sequence[Trial]]) -> dict[str, dict[str, list[float]]]:
    """Return "peer / ours" → measure → a peer's seconds over ours, round by round."""
    return {
        f"{peer} / {ours}": {
            measure: [
                run_seconds(a, measure) / run_seconds(b, measure)
                for a, b in zip(trials[peer], trials[ours], strict=True)
            ]
            for measure in MEASURES
        }
        for peer in PEERS
        for ours in OURS
        if peer in trials and ours in trials
    }


def ratio_table(trials: Mapping[str, Sequence[Trial]]) -> str:
    """Return the ratios: median and rounds."""
    lines = []
    for pair, by_measure in ratios(trials).items():
        for measure, each in by_measure.items():
            name = "CPU" if measure == "seconds" else measure
            values = " ".join(f"{one:.2f}" for one in each)
            lines.append(f"{pair:22} {name:5}  {statistics.median(each):5.2f}  ({values})")
    return "\n".join(lines)


def agreements(runs: Mapping[str, Runs]) -> dict[str, dict[str, Any]]:
    """Return side → how far its runs are those of `prepend` (or of the first side there is).

    Only those of `peft` should be: the others differ in the position of the prompt or in what is
    padded.

    Raises:
        RuntimeError: a side did not do the same runs, whatever they gave.
    """
    reference = runs.get("prepend", next(iter(runs.values())))
    return {side: agreement(own, reference)["baseline"] for side, own in runs.items()}


def score_table(runs: Mapping[str, Runs]) -> str:
    """Return mean scores by side, and how many runs are those of `prepend`; see `agreements`."""
    lines = []
    for side, agreed in agreements(runs).items():
        dev, test = (statistics.mean(own) for own in zip(*runs[side].values(), strict=True))
        lines.append(
            f"{side:12} mean dev {dev:.4f}, mean test {test:.4f}; {agreed['equal']} of "
            f"{agreed['runs']} runs equal, largest difference {agreed['largest']:.3g}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
