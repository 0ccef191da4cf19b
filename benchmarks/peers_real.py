"""Downstream runs of a model as users of PEFT write them, and ours: seconds a run, scores.

    python benchmarks/peers_real.py [--gym DIR] [--backbone smollm2] [--tasks N] [--seeds N]
                                    [--lrs RATE ...] [--steps N] [--eval-every N]
                                    [--dev-rows N] [--test-rows N] [--rounds N]
                                    [--device cpu|cuda] [--dtype float32|bfloat16|float64]
                                    [--threads N] [--json FILE] [--quick]

Plain prompt tuning by the study's recipe of a backbone (search_spaces/studies.toml), the same
tasks, samples, starting prompts, order of data and rows on all sides:

    peft         PEFT prompt tuning, transformers' Adafactor, `generate` for all scores; of a
                 decoder-only model only inputs of one length are generated together: each has the
                 output it has alone
    peft-padded  the same, and inputs of all lengths together, padded on the left as tutorials do
    prepend      ours: runs are packed, scores come from one teacher-forced pass where they can,
                 and every run is stored; the prompt stands before the input, as PEFT has it
    append       the same with the prompt behind the input, whose states are then computed once

BACKBONE is a decoder-only model, a T5, or the name of a T5's shape with random weights, e.g.
t5-base-random. A T5 masks its padding, and its encoder keeps no states: there the sides are `peft`
and `prepend`. A random T5 follows the paper's recipe (100 prompt tokens, four rates; the 3000
steps want --steps). Its scores mean nothing, only what a run takes does. Its outputs would not
end: they are cut on all sides where the longest target ends, as a tuned model's are by itself.
Texts are as long as the packaged T5's tokenizer makes them, which was made for the embedded gym.

Each side is a fresh process, one at a time and in another order every round. Seconds are those of
the runs themselves, of the CPU and of the clock; loading the model is left out, and tokenising on
the peers' sides. So is what a process does once: a first step of the peers', and on a GPU our
measuring of what fits into a pass, which a search keeps. On a GPU the clock is read after the GPU
has done all it was given, and only the clock counts. With bfloat16 weights and activations of the
model are in it, on all sides; prompts and Adafactor stay in float32, as PEFT itself has a prompt.

DIR holds few-shot files as CrossFit has them; without it the tasks of the embedded gym serve.

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
from sides.real_plan import OURS, PEERS, SIDES, checkpoint_of, plan_of, sides_of
from sides.turns import rotated, run_side

from mpt.backbones.load import pretrained_source
from mpt.study.study import StudyPlan, open_study, release_weights

MEASURES = ("seconds", "clock")
"""Of the CPU, and by the clock."""
PARTS = ("training", "dev", "test")

Trial = Mapping[str, Any]
"""What a side has done, see `Scorer.trial`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    flags = flags_of(arguments)
    if flags.side is not None:
        torch.set_num_threads(flags.threads)
        do_side(flags.side, flags.folder, flags.eval_batch, flags.device)
        return
    document = compared(flags)
    if flags.json:
        flags.json.write_text(json.dumps(document, indent=1) + "\n")


def compared(flags: argparse.Namespace) -> dict[str, Any]:
    """Compare the sides that the flags ask for; see `compare`."""
    flags.sides = sides_of(flags.backbone, flags.sides)
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        plan = plan_of(flags, checkpoint_of(flags.backbone, Path(folder)))
        return compare(plan, Path(folder), flags)


def flags_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--gym", default="embedded", help="few-shot files (default: the embedded gym)")
    add("--backbone", default="smollm2", help="a decoder-only model, a T5 or a random one's name")
    add("--tasks", type=int, default=4, help="scored tasks, from the study's first on")
    add("--seeds", type=int, default=1, help="data seeds, from the study's first on")
    add("--lrs", type=float, nargs="+", help="learning rates of a run, if not the study's")
    add("--steps", type=int, help="of a run, if not the study's")
    add("--eval-every", type=int, help="steps between evaluations, if not the study's")
    add("--dev-rows", type=int, help="of an evaluation, if not the study's")
    add("--test-rows", type=int, help="of an evaluation, if not the study's")
    add("--rounds", type=int, default=2)
    add("--device", choices=("cpu", "cuda"), default="cpu", help="of every side")
    add("--dtype", choices=("float32", "bfloat16", "float64"), default="float32", help="of models")
    add("--threads", type=int, default=os.cpu_count(), help="of every side (default: all cores)")
    add("--eval-batch", type=int, default=48, help="rows that the peers generate at once")
    add("--sides", nargs="+", choices=SIDES, help="default: all that the backbone has")
    add("--one-process", action="store_true", help="do all sides in this process")
    add("--quick", action="store_true", help="sizes of a minute; the ratios mean little")
    add("--json", type=Path, help="write the numbers here too")
    add("--side", choices=SIDES, help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    counts = (
        *("tasks", "seeds", "steps", "eval_every", "dev_rows", "test_rows"),
        *("rounds", "threads", "eval_batch"),
    )
    low = [name for name in counts if vars(flags)[name] is not None and vars(flags)[name] < 1]
    if low:
        parser.error(f"{', '.join(low)}: must be whole numbers ≥ 1")
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch finds no CUDA device here; take --device cpu")
    return flags


def do_side(side: str, folder: Path, eval_batch: int, device: str) -> None:
    """Do a side's runs in this process, and write what they gave beside the plan."""
    plan: StudyPlan = torch.load(folder / "plan.pt", weights_only=False)
    trial = side_trial(side, plan, folder, eval_batch, device)
    (folder / "trial.json").write_text(json.dumps(trial))


def side_trial(
    side: str, plan: StudyPlan, folder: Path, eval_batch: int, device: str = "cpu"
) -> Trial:
    """Return what a side has done.

    Args:
        side: of `SIDES`.
        plan: the study, its prompt before the input.
        folder: where our results go.
        eval_batch: rows that the peers generate at once.
        device: "cpu" or "cuda".
    """
    if side in OURS:
        prompt = dataclasses.replace(plan.config.prompt, position=side)
        config = dataclasses.replace(plan.config, prompt=prompt)
        study = open_study(dataclasses.replace(plan, config=config), device)
        release_weights()
        return plain_tuning(study, folder)
    source = Path(pretrained_source(plan.config.backbone))
    work = work_of(open_study(plan, device), source, (), eval_batch)
    release_weights()
    scorer = Scorer(work, left_padded=side == "peft-padded", device=device)
    scorer.warm_up()
    return scorer.trial(None)


def compare(plan: StudyPlan, folder: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """Run the sides in turns; print and return what they took and gave."""
    print(f"{_sentence(plan, flags)}\n{machine(flags.device)}\n")
    trials: dict[str, list[Trial]] = {side: [] for side in flags.sides}
    for number in range(flags.rounds):
        for side in rotated(flags.sides, number):
            side_folder = folder / f"{side}{number}"
            side_folder.mkdir()
            trials[side].append(_done(side, plan, side_folder, flags))
            line = seconds_line(trials[side][-1], flags.device)
            print(f"{side:12} {line}; {machine(flags.device)}", flush=True)
    runs = {side: runs_of(own[-1:]) for side, own in trials.items()}
    print(f"\n{ratio_table(trials)}\n\n{score_table(runs)}")
    return {
        "tasks": plan.scored,
        "data_seeds": plan.config.data_seeds,
        "downstream": dataclasses.asdict(plan.config.downstream),
        "machine": machine(flags.device),
        "trials": trials,
        "seconds_of_a_run": {
            side: {measure: [run_seconds(one, measure) for one in own] for measure in MEASURES}
            for side, own in trials.items()
        },
        "ratios": ratios(trials),
        "agreement": agreements(runs),
    }


def _sentence(plan: StudyPlan, flags: argparse.Namespace) -> str:
    """Return what is done, in a sentence."""
    config, down = plan.config, plan.config.downstream
    return (
        f"{flags.backbone} in {config.precision}: {', '.join(plan.scored)}; data seeds "
        f"{', '.join(map(str, config.data_seeds))}; prompt of {config.prompt.length}; rates "
        f"{', '.join(map(str, down.lrs))}; {down.steps} steps of {down.batch_size} rows, "
        f"evaluated every {down.eval_every} on {down.max_dev or 'all'} dev rows, "
        f"{down.max_test or 'all'} test rows; {flags.threads} threads"
    )


def _done(side: str, plan: StudyPlan, folder: Path, flags: argparse.Namespace) -> Trial:
    """Return what a side has done, in a process of its own if not told otherwise."""
    if flags.one_process:
        return side_trial(side, plan, folder, flags.eval_batch, flags.device)
    torch.save(plan, folder / "plan.pt")
    options = ["--threads", str(flags.threads), "--eval-batch", str(flags.eval_batch)]
    run_side(__file__, side, folder, *options, "--device", flags.device)
    (trial,) = saved_trials(folder)
    return trial


def seconds_line(trial: Trial, device: str = "cpu") -> str:
    """Return what a run took on a side: CPU and clock, and the parts of what counts there."""
    cpu, clock = (run_seconds(trial, measure) for measure in MEASURES)
    measure, whole = ("seconds", cpu) if device == "cpu" else ("clock", clock)
    parts = {part: trial[measure][part] / len(trial["runs"]) for part in PARTS}
    words = ", ".join(f"{part} {own:.2f}" for part, own in parts.items())
    inner = f" ({words}, rest {whole - sum(parts.values()):.2f})"
    of_cpu, of_clock = (inner, "") if device == "cpu" else ("", inner)
    return f"a run: {cpu:6.2f} CPU s{of_cpu}, {clock:6.2f} s by the clock{of_clock}"


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
