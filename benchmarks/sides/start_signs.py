"""Which sign tells a target best how a start will end: its loss, a short race, or a mix of both?

    python benchmarks/sides/start_signs.py [--results DIR] [--steps 3] [--race-steps 2]
            [--calibration 42,43,44] [--seeds 801,...,808] [--workers 2] [--json FILE]

Every start that a soup of the contest `starts` leaves at hand (the mean, its members, and words of
the vocabulary) is tuned to its end on every validation task and data seed. Before that each shows
its signs, from the target's own train and dev rows: the loss before any tuning, and the dev score
and the loss after the first steps. Rules that pick a start by them are then compared on the test
scores of what they pick. The mix takes the highest

    dev score − weight · loss after the race

whose weight is chosen for each task on the *other* tasks and the calibration seeds, so that
nothing it is judged on has chosen it. `best by test` is a bound that no rule can reach.

Prompts and signs are kept in DIR, one file a soup; what is there is not computed again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpt.config import DownstreamConfig
from mpt.downstream.prompt_tuning import TuningRun, tune
from mpt.gym.fewshot import FewShotTask
from mpt.metrics.replicates import Replicates, compare
from mpt.search.replication import with_seed
from mpt.store.artifacts import Artifacts
from mpt.store.database import open_results
from mpt.study.contest.definition import load_contest
from mpt.study.options import StudyOptions
from mpt.study.presets import load_study
from mpt.study.specs import TrialSpec
from mpt.study.study import OpenStudy, open_study, plan_study
from mpt.trial.learning import Learning, RungStore
from mpt.trial.runs import vocabulary_start
from mpt.trial.starts import VOCABULARY
from mpt.trial.starts.losses import start_loss
from mpt.trial.store import TrialStore

WEIGHTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, math.inf)
"""Points of dev score that a nat per target token is worth; 0: a tie alone is decided by it."""
CONTESTANTS = ("multitask", "path")

Signs = dict[str, dict[str, dict[str, dict[str, float]]]]
"""Task → data seed → start → "loss", "dev", "raced loss", "test"."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, and compare."""
    flags = _flags(argv)
    seeds = every_soup(_soup, flags)
    document = {}
    for name in CONTESTANTS:
        signs = {seed: json.loads(_file(name, seed, flags).read_text()) for seed in seeds}
        document[name] = judged(signs, flags.calibration, flags.seeds)
        print(
            f"\n{name}, {flags.steps} steps, race of {flags.race_steps}\n{table(document[name])}"
        )
    if flags.json:
        flags.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def every_soup(
    measure: Callable[[tuple[str, int, argparse.Namespace]], str], flags: argparse.Namespace
) -> list[int]:
    """Measure the soups of all contestants, processes side by side; return the upstream seeds.

    `measure` takes (contestant, seed, flags) and returns a line to be printed.
    """
    seeds = [*flags.calibration, *flags.seeds]
    work = [(name, seed, flags) for name in CONTESTANTS for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(flags.workers) as pool:
        for line in pool.imap_unordered(measure, work):
            print(line, flush=True)
    return seeds


def _flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Which sign tells how a start will end?")
    add = parser.add_argument
    add("--results", type=Path, default=Path("results/start_signs"))
    add("--steps", type=int, default=3, help="of tuning")
    add("--race-steps", type=int, default=2)
    add("--calibration", type=numbers, default=[42, 43, 44], help="seeds that choose weights")
    add("--seeds", type=numbers, default=[*range(801, 809)], help="seeds that rules are judged on")
    add("--tasks", type=int, help="scored tasks, from the study's first on (default: all)")
    add("--workers", type=int, default=2)
    add("--json", type=Path, help="write all figures there")
    return parser.parse_args(argv)


def numbers(text: str) -> list[int]:
    """Return the whole numbers of a flag."""
    return [int(part) for part in text.split(",")]


def _file(name: str, seed: int, flags: argparse.Namespace) -> Path:
    return Path(flags.results, f"{name}-{seed}-{flags.steps}-{flags.race_steps}.json")


def _soup(work: tuple[str, int, argparse.Namespace]) -> str:
    """Learn a soup and measure its starts, unless its file is there."""
    name, seed, flags = work
    keep(_file(name, seed, flags), lambda: soup_signs(name, seed, flags))
    return f"{name}, upstream seed {seed}: done"


def keep(file: Path, measured: Callable[[], Any]) -> None:
    """Write what is measured on one thread into a file, unless it is there."""
    if not file.exists():
        torch.set_num_threads(1)
        part = file.with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(measured()))
        part.rename(file)


def soup_signs(name: str, seed: int, flags: argparse.Namespace) -> Signs:
    """Return the signs and test scores of all starts of a soup.

    Args:
        name: of a contestant of the contest `starts`.
        seed: upstream seed.
        flags: of the command line.
    """
    options = StudyOptions(
        tuning_steps=flags.steps,
        eval_every=min(flags.steps, 10),
        tuning_start="raced",
        race_steps=flags.race_steps,
    )
    study, learned = soup(name, seed, flags.results, options, flags.tasks)
    return {
        task: {str(s): signs_of(study, sample, learned) for s, sample in samples.items()}
        for task, samples in study.scored.items()
    }


def soup(
    name: str, seed: int, results: Path, options: StudyOptions, tasks: int | None
) -> tuple[OpenStudy, Mapping[str, torch.Tensor]]:
    """Return the embedded study with its first `tasks` scored tasks, and a soup's starts [P, d].

    The soup is that of a contestant of the contest `starts` at an upstream seed; it is learned
    into `results` where it is not there yet.
    """
    folder = Path(results, f"{name}-{seed}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(load_study("embedded"), starts=1)
    plan = plan_study(options.apply(config))
    plan = dataclasses.replace(plan, scored=plan.scored[:tasks])
    (contestant,) = load_contest("starts").with_only((name,))
    trial = with_seed(TrialSpec(plan=plan, upstream=contestant.points[0]), seed)
    study, rung = open_study(plan), trial.upstream.rungs[-1]
    with open_results(folder) as database:
        kept = RungStore(study, TrialStore(database), Artifacts(str(folder)), print)
        assert trial.learned is not None
        learning = Learning(kept, trial.learned)
        while learning.learn(rung, 3600.0) is None:
            pass
        learned = learning.starts(rung)
    assert learned is not None
    return study, learned


def signs_of(
    study: OpenStudy, task: FewShotTask, learned: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, float]]:
    """Return start → its signs and its test score, on one few-shot sample."""
    config = study.config
    seed = config.train_seed
    starts = {**learned, VOCABULARY: vocabulary_start(study, task, seed)}
    runs = [TuningRun(task, config.downstream.lrs[0], prompt) for prompt in starts.values()]

    def tuned(down: DownstreamConfig) -> Any:
        return tune(study.backbone, runs, down, config.text, seed)

    raced = tuned(config.downstream.race_on(len(task.train)))
    results = tuned(config.downstream)
    return {
        name: {
            "loss": start_loss(study, task, prompt)[0],
            "dev": race.dev,
            "raced loss": start_loss(study, task, race.prompt)[0],
            "test": whole.test,
        }
        for (name, prompt), race, whole in zip(starts.items(), raced, results, strict=True)
    }


Rule = Callable[[Mapping[str, float]], tuple[float, ...]]
"""Signs of a start → what is maximal for the one that is taken; the first of equal ones is."""


def mixed(weight: float) -> Rule:
    """Return the rule that weighs dev score and loss after the race; 0 decides ties by loss."""
    if math.isinf(weight):
        return lambda one: (-one["raced loss"],)
    return lambda one: (one["dev"] - weight * one["raced loss"], -one["raced loss"])


RULES: Mapping[str, Rule] = {
    "raced": mixed(0.0),
    "loss before": lambda one: (-one["loss"],),
    "loss after the race": mixed(math.inf),
    "best by test": lambda one: (one["test"],),
}


def taken(signs: Signs, rule: Callable[[str], Rule]) -> np.ndarray:
    """Return the test scores [T, D] of what a rule takes; it may differ from task to task."""
    return np.array(
        [
            [max(starts.values(), key=rule(task))["test"] for starts in by_seed.values()]
            for task, by_seed in signs.items()
        ]
    )


def of_start(signs: Signs, start: str) -> np.ndarray:
    """Return the test scores [T, D] of one start everywhere."""
    return np.array([[one[start]["test"] for one in own.values()] for own in signs.values()])


def weight_for(task: str, signs: Mapping[int, Signs]) -> float:
    """Return the weight with the highest mean relative gain on all tasks but one."""
    others = {s: {t: v for t, v in one.items() if t != task} for s, one in signs.items()}

    def gain(weight: float) -> float:
        return float(
            np.mean(
                [
                    (
                        taken(one, lambda _: mixed(weight)).mean(1)
                        / of_start(one, VOCABULARY).mean(1)
                    )
                    for one in others.values()
                ]
            )
        )

    return max(WEIGHTS, key=gain)


def judged(
    signs: Mapping[int, Signs], calibration: Sequence[int], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return the ARG of every rule on `seeds`, and its paired difference to the best of them."""
    known = {seed: signs[seed] for seed in calibration}
    weights = {task: weight_for(task, known) for task in signs[seeds[0]]}
    rows = {
        name: {s: taken(signs[s], lambda _, own=rule: own) for s in seeds}  # type: ignore[misc]
        for name, rule in RULES.items()
    }
    rows["mix"] = {s: taken(signs[s], lambda task: mixed(weights[task])) for s in seeds}
    rows["the soup itself"] = {s: of_start(signs[s], "learned") for s in seeds}
    baseline = of_start(signs[seeds[0]], VOCABULARY)
    bound = rows.pop("best by test")
    comparison = compare(
        [Replicates(name=name, scores=own) for name, own in rows.items()],
        baseline,
        rng=np.random.default_rng(0),
    )
    above = [100 * (own.mean(1) / baseline.mean(1) - 1).mean() for own in bound.values()]
    return {
        "weights": {task: str(weight) for task, weight in weights.items()},
        "bound": float(np.mean(above)),
        "leader": comparison.leader,
        "rules": {
            name: {
                "arg": one.arg,
                "by_seed": list(one.by_seed.values()),
                "to_leader": None if one.to_leader is None else dataclasses.asdict(one.to_leader),
            }
            for name, one in comparison.summaries.items()
        },
    }


def _difference(other: Mapping[str, Any]) -> str:
    low, high = other["interval"] or (math.nan, math.nan)
    return f"{other['mean']:+.2f} [{low:+.2f}, {high:+.2f}], p {other['p']:.3f} (Holm)"


def table(figures: Mapping[str, Any]) -> str:
    """Return the rules, best first."""
    lines = [f"{'rule':22} {'ARG %':>7}  to {figures['leader']}, 95 %"]
    rules = sorted(figures["rules"].items(), key=lambda item: -item[1]["arg"])
    for name, one in rules:
        other = one["to_leader"]
        words = "" if other is None else _difference(other)
        lines.append(f"{name:22} {one['arg']:+7.2f}  {words}")
    lines.append(f"{'best by test (bound)':22} {figures['bound']:+7.2f}")
    lines.append("weights of the mix: " + ", ".join(sorted(set(figures["weights"].values()))))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
