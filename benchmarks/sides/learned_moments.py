"""Do second moments that are learned upstream, beside the start, help the tuning of a target?

    python benchmarks/sides/learned_moments.py [--results DIR] [--steps 3]
            [--calibration 42,43,44] [--seeds 801,...,808] [--pretended 0,1,3,10,100]
            [--workers 2] [--json FILE]

Adafactor begins a tuning with no second moments: its first step divides a gradient by its own
size, entry by entry (as far as rows and columns tell). A start could bring the moments along, if
gradients at it are large in the same places for all tasks. Here the moments of a start φ are the
mean over the source items of the squared gradient of one batch at φ, by row and by column, each
item's divided by its mean, so that all items weigh the same. A target's run takes their *shape*,
at the size of its own first gradient, as if t₀ steps had been taken::

    row₀ = mean(g₁²) · row_φ,   col₀ = mean(g₁²) · col_φ,   β_t = 1 − (t₀ + t)^−.8

t₀ = 0 is tuning as it is. Starts are the soups of the contest `starts` (mean of the members), and
words of the vocabulary, whose moments are taken at one draw of words. Calibration seeds choose t₀,
the others judge it. What is in DIR, one file a soup, is not computed again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from mpt.downstream import pack
from mpt.downstream.prompt_tuning import TuningRun, tune
from mpt.gym.fewshot import FewShotTask
from mpt.metrics.replicates import Replicates, compare
from mpt.optim import Adafactor
from mpt.seeds import numpy_generator
from mpt.study.options import StudyOptions
from mpt.study.study import OpenStudy
from mpt.trial.runs import vocabulary_start
from sides.start_signs import CONTESTANTS, every_soup, keep, numbers, soup

PRETENDED = [0, 1, 3, 10, 100]
"""t₀: steps that the moments count as."""

Scores = dict[str, dict[str, dict[str, float]]]
"""Start → task → data seed and t₀, "13/10" → test score."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Where gradients are large at a start, relative to their mean."""

    row: Tensor
    """[P], of mean 1."""
    col: Tensor
    """[d], of mean 1."""


def moments_of(study: OpenStudy, prompt: Tensor, *, batch: int = 8) -> Moments:
    """Return the moments of a start [P, d], from one batch of train rows of every source item."""
    backbone, text = study.backbone, study.config.text
    row, col = prompt.new_zeros(prompt.shape[0]), prompt.new_zeros(prompt.shape[1])
    for item in study.items:
        rng = numpy_generator(study.config.train_seed, "moments", item.name, item.seed)
        size = min(batch, len(item.train))
        chosen = [item.train[n] for n in rng.choice(len(item.train), size=size, replace=False)]
        rows = backbone.collate(backbone.encode_rows(item.name, chosen, text), [0] * size)
        leaf = prompt.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(backbone.run_losses(leaf[None], rows)[0], leaf)
        squared = gradient.square()
        row += squared.mean(1) / squared.mean()
        col += squared.mean(0) / squared.mean()
    return Moments(row / len(study.items), col / len(study.items))


def warm(moments: Moments, pretended: int) -> type[Adafactor]:
    """Return an Adafactor whose runs begin with these moments, as if so many steps were taken."""

    class Warm(Adafactor):
        def update(self, grads: Tensor) -> Tensor:
            first = self._steps == 0
            if pretended and bool(first.any()):
                size = grads[first].square().mean((1, 2))[:, None]
                self._row[first] = size * moments.row
                self._col[first] = size * moments.col
                self._steps[first] = pretended
            return super().update(grads)

    return Warm


def scores_of(
    study: OpenStudy,
    task: FewShotTask,
    start: Tensor,
    moments: Moments,
    counts: Sequence[int] = PRETENDED,
) -> dict[int, float]:
    """Return t₀ → the test score of a run from `start` [P, d], for each of these `counts`."""
    config = study.config
    run = TuningRun(task, config.downstream.lrs[0], start)
    scores = {}
    for pretended in counts:
        with mock.patch.object(pack, "Adafactor", warm(moments, pretended)):
            (result,) = tune(
                study.backbone, [run], config.downstream, config.text, config.train_seed
            )
        scores[pretended] = float(result.test) if result.test is not None else float("nan")
    return scores


def measured(name: str, seed: int, flags: argparse.Namespace) -> Scores:
    """Return the scores of a soup's mean, and for the first soup of words of the vocabulary."""
    options = StudyOptions(tuning_steps=flags.steps, eval_every=min(flags.steps, 10))
    study, learned = soup(name, seed, flags.results, options, flags.tasks)
    samples = [task for of_task in study.scored.values() for task in of_task.values()]
    words = {
        (task.name, task.seed): vocabulary_start(study, task, study.config.train_seed)
        for task in samples
    }
    starts = {"learned": dict.fromkeys(words, learned["learned"])}
    if (name, seed) == (CONTESTANTS[0], flags.calibration[0]):
        starts["vocabulary"] = words
    scores: Scores = {}
    for start, prompts in starts.items():
        moments = moments_of(study, next(iter(prompts.values())))
        own = scores.setdefault(start, {})
        for task in samples:
            start_of = prompts[task.name, task.seed]
            tests = scores_of(study, task, start_of, moments, flags.pretended)
            named = {f"{task.seed}/{pretended}": test for pretended, test in tests.items()}
            own.setdefault(task.name, {}).update(named)
    return scores


def judged(scores: Mapping[int, Scores], baseline: Scores, flags: argparse.Namespace) -> Any:
    """Return ARG by t₀ on both groups of seeds with differences to the best, and plain tuning's.

    Args:
        scores: upstream seed → scores of a soup.
        baseline: scores of words of the vocabulary.
        flags: their `calibration` and `seeds`, and what is `pretended`.
    """
    plain = {p: _table(baseline, "vocabulary", p) for p in flags.pretended}
    figures: dict[str, Any] = {}
    for group, seeds in (("calibration", flags.calibration), ("judging", flags.seeds)):
        entries = [
            Replicates(
                name=f"t0 = {p}", scores={s: _table(scores[s], "learned", p) for s in seeds}
            )
            for p in flags.pretended
        ]
        comparison = compare(entries, plain[0], rng=np.random.default_rng(0))
        figures[group] = {
            "leader": comparison.leader,
            "t0": {
                name: {
                    "arg": one.arg,
                    "to leader": one.to_leader and dataclasses.asdict(one.to_leader),
                }
                for name, one in comparison.summaries.items()
            },
        }
    figures["plain start"] = {
        f"t0 = {p}": float(100 * (own.mean(1) / plain[0].mean(1) - 1).mean())
        for p, own in plain.items()
    }
    return figures


def _table(one: Scores, start: str, pretended: int) -> np.ndarray:
    """Return test scores [T, D]."""
    end = f"/{pretended}"
    return np.array(
        [[test for key, test in own.items() if key.endswith(end)] for own in one[start].values()]
    )


def _soup(work: tuple[str, int, argparse.Namespace]) -> str:
    name, seed, flags = work
    keep(_file(name, seed, flags), lambda: measured(name, seed, flags))
    return f"{name}, upstream seed {seed}: done"


def _file(name: str, seed: int, flags: argparse.Namespace) -> Path:
    return Path(flags.results, f"moments-{name}-{seed}-{flags.steps}.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, and compare."""
    parser = argparse.ArgumentParser(description="Do learned second moments help?")
    add = parser.add_argument
    add("--results", type=Path, default=Path("results/start_signs"))
    add("--steps", type=int, default=3, help="of tuning")
    add("--calibration", type=numbers, default=[42, 43, 44], help="seeds that choose t₀")
    add("--seeds", type=numbers, default=[*range(801, 809)], help="seeds that judge it")
    add("--pretended", type=numbers, default=PRETENDED, help="t₀, 0 among them")
    add("--tasks", type=int, help="scored tasks, from the study's first on (default: all)")
    add("--workers", type=int, default=2)
    add("--json", type=Path, help="write all figures there")
    flags = parser.parse_args(argv)
    seeds = every_soup(_soup, flags)
    document = {}
    baseline = json.loads(_file(CONTESTANTS[0], flags.calibration[0], flags).read_text())
    for name in CONTESTANTS:
        scores = {seed: json.loads(_file(name, seed, flags).read_text()) for seed in seeds}
        document[name] = judged(scores, baseline, flags)
    print(json.dumps(document, indent=1))
    if flags.json:
        flags.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
