"""What the embedded backbones can do: `python -m tools.embedded_models.evidence` (some minutes).

Tables for the README of this folder: accuracy of all backbones on the gym's test rows when the
skill is asked for in words; and for each backbone prompt tuning from a MAML-learned start against
a vocabulary start (that is plain prompt tuning) and chance, on tasks that MAML has not seen, at
several step budgets.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from mpt.backbones import load_backbone
from mpt.backbones.base import Backbone
from mpt.config import (
    EMBEDDED_BACKBONES,
    DownstreamConfig,
    PromptConfig,
    TextConfig,
    UpstreamConfig,
)
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.prompt_tuning import TuningRun, tune
from mpt.embedded.gym import EmbeddedTask, embedded_tasks, ensure_embedded_gym
from mpt.gym.catalogue import Catalogue, load_catalogue
from mpt.gym.fewshot import Example, FewShotTask, load_task
from mpt.prompts import init_downstream
from mpt.seeds import numpy_generator
from mpt.upstream.engine import UpstreamRun
from tools.embedded_models.text import Instruction, instructions

TEXT = TextConfig(max_input=96, max_target=24)
PROMPT = PromptConfig(length=20)
SEED = 42
CHOICES = {"choice-odd_one": 4}
"""Choices of a multiple-choice task; three unless named here."""


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(
        description="Evidence on the embedded backbones, as Markdown tables."
    )
    parser.add_argument(
        "--backbone",
        nargs="+",
        default=EMBEDDED_BACKBONES,
        help="names of packaged backbones, or checkpoint folders",
    )
    parser.add_argument("--partition", default="random_to_random", help="whose targets are tuned")
    parser.add_argument("--only", choices=("instructed", "start"), help="one kind of table")
    parser.add_argument(
        "--name-after",
        action="store_true",
        help="put a task's name behind the instruction, as in training, not before it as in use",
    )
    parser.add_argument("--outer-lr", type=float, default=0.1, help="MAML outer learning rate")
    parser.add_argument("--inner-lr", type=float, default=1.0, help="MAML inner learning rate")
    parser.add_argument("--upstream-steps", type=int, default=100, help="MAML outer steps")
    parser.add_argument("--lr", type=float, default=0.1, help="prompt-tuning learning rate")
    parser.add_argument(
        "--budgets", default="10,25,50", help="prompt-tuning steps, comma-separated"
    )
    arguments = parser.parse_args()
    backbones = [load_backbone(name) for name in arguments.backbone]
    gym = ensure_embedded_gym()
    catalogue = load_catalogue(gym)
    budgets = [int(part) for part in arguments.budgets.split(",")]
    if arguments.only != "start":
        score = _score_after if arguments.name_after else _score
        for line in instructed_table(backbones, gym, catalogue, score):
            print(line, flush=True)
    config = UpstreamConfig(inner_lr=arguments.inner_lr, outer_lr=arguments.outer_lr, batch_size=4)
    for backbone in backbones if arguments.only != "instructed" else ():
        sources = catalogue.partition(arguments.partition).source
        learned = learn(backbone, gym, catalogue, sources, config, arguments.upstream_steps)
        names = held_out(catalogue, arguments.partition)
        print(f"\n{backbone.name}:")
        for line in start_table(backbone, gym, catalogue, names, learned, budgets, arguments.lr):
            print(line, flush=True)


def held_out(catalogue: Catalogue, partition: str) -> tuple[str, ...]:
    """Return the targets of a partition, and of random → random the validation tasks as well."""
    targets = catalogue.partition(partition).target
    others = catalogue.validation_tasks if partition == "random_to_random" else ()
    return (*others, *targets)


def chance(task: EmbeddedTask) -> float | None:
    """Return the accuracy of guessing among a task's answers, None where they are open."""
    if task.labels:
        return 1 / len(task.labels)
    if task.name.startswith("choice-"):
        return 1 / CHOICES.get(task.name, task.options.get("sentences", 3))
    return None


def instructed_table(
    backbones: Sequence[Backbone],
    gym: Path,
    catalogue: Catalogue,
    score: Callable[[Backbone, FewShotTask], float],
) -> Iterator[str]:
    """Yield a table of the accuracy with instructions on every task's test rows."""
    heads = " | ".join(backbone.name for backbone in backbones)
    yield f"| task | {heads} | chance |\n|{'---|' * (2 + len(backbones))}"
    for row in embedded_tasks().values():
        task = load_task(gym, catalogue.task(row.name), 13)
        asked = dataclasses.replace(task, metric="EM", test=_asked(row, task))
        cells = " | ".join(f"{score(backbone, asked):.2f}" for backbone in backbones)
        guess = chance(row)
        yield f"| {row.name} | {cells} | {'–' if guess is None else f'{guess:.2f}'} |"


def _asked(row: EmbeddedTask, task: FewShotTask) -> tuple[Example, ...]:
    asks, labels = _instruction(row)
    words = ", " + " or ".join(labels) if labels else ""
    return tuple(
        Example(f"{asks.ask[0]}{words}: {example.input}", example.outputs) for example in task.test
    )


def _instruction(task: EmbeddedTask) -> tuple[Instruction, list[str]]:
    """Return the instruction that asks for a task's skill in its own label words."""
    for row in instructions():
        if (row.skill or row.name) != task.skill:
            continue
        if not row.labels and all(
            variant.get(key, value) == value
            for variant in row.variants[:1]
            for key, value in task.options.items()
            if key == "kind"
        ):
            return row, []
        words = [task.labels.get(name, "") for name in row.classes]
        if set(task.labels) == set(row.classes) and words in row.labels:
            return row, words
    raise AssertionError(f"no instruction asks for {task.name} in its label words")


def _score(backbone: Backbone, task: FewShotTask) -> float:
    """Return the test score of no prompt at all (the instruction stands in the text)."""
    config = DownstreamConfig(max_test=None, max_generated=24)
    empty = torch.zeros(1, 0, backbone.d_model)
    return Evaluator(backbone, [task], "test", config, TEXT, 4096).scores(empty, [0])[0]


def _score_after(backbone: Backbone, task: FewShotTask) -> float:
    """Return the share of exact first answers where the name stands behind the instruction."""
    rows = []
    for example in task.test:
        ask, text = example.input.split(": ", 1)
        rows.append(
            (
                backbone.encode_input(f" {ask}: [{task.name}] {text}", TEXT.max_input),
                backbone.encode_target(f" {example.outputs[0]}", TEXT.max_target),
            )
        )
    batch = backbone.collate(rows, [0] * len(rows))
    empty = torch.zeros(1, 0, backbone.d_model)
    return float(backbone.greedy_matches(empty, batch).float().mean())


def learn(
    backbone: Backbone,
    gym: Path,
    catalogue: Catalogue,
    source: Sequence[str],
    config: UpstreamConfig,
    steps: int,
) -> torch.Tensor:
    """Return the prompt that MAML learns on the tasks `source`."""
    seeds = (13, 21, 42, 87, 100)
    items = [load_task(gym, catalogue.task(name), seed) for name in source for seed in seeds]
    run = UpstreamRun(backbone, items, config, PROMPT, TEXT, SEED)
    run.advance(steps)
    return run.prompt.clone()


def start_table(
    backbone: Backbone,
    gym: Path,
    catalogue: Catalogue,
    names: Sequence[str],
    learned: torch.Tensor,
    budgets: Sequence[int],
    lr: float,
) -> Iterator[str]:
    """Yield a table of test scores on held-out tasks, by starting prompt and step budget."""
    heads = " | ".join(f"vocabulary, {n} steps | MAML, {n} steps" for n in budgets)
    yield f"\n| held-out task | metric | chance | {heads} |\n|{'---|' * (3 + 2 * len(budgets))}"
    rows = embedded_tasks()
    seeds = (13, 21, 42)
    sums = [0.0] * (2 * len(budgets))
    for name in names:
        tasks = [load_task(gym, catalogue.task(name), seed) for seed in seeds]
        cells = []
        for steps in budgets:
            config = DownstreamConfig(steps=steps, eval_every=25, max_generated=24)
            runs = [TuningRun(task, lr, _vocabulary(backbone, task)) for task in tasks]
            runs += [TuningRun(task, lr, learned) for task in tasks]
            tests = [result.test for result in tune(backbone, runs, config, TEXT, SEED)]
            cells += [sum(tests[:3]) / 3, sum(tests[3:]) / 3]
        sums = [total + cell for total, cell in zip(sums, cells, strict=True)]
        guess = chance(rows[name])
        yield (
            f"| {name} | {rows[name].metric} | {'–' if guess is None else f'{guess:.2f}'} | "
            + " | ".join(f"{cell:.3f}" for cell in cells)
            + " |"
        )
    yield (
        "| **mean** | | | " + " | ".join(f"**{total / len(names):.3f}**" for total in sums) + " |"
    )


def _vocabulary(backbone: Backbone, task: FewShotTask) -> torch.Tensor:
    rng = numpy_generator(SEED, "init", "downstream", task.name, task.seed)
    return init_downstream(backbone, task.name, PROMPT.length, rng)


if __name__ == "__main__":
    main()
