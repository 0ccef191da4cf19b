"""Does another machine's rounding change the answer? One search: as it is, nudged, in float64.

    python benchmarks/nudged.py [--results DIR] [--seeds 3] [--json FILE]

Upstream learning at these rates is chaotic: two machines, or two exact engines, part within a few
steps. Rounding that differs is stood for by MAML whose prompt is moved by 1e-6 of its norm, in a
direction of its own at every episode, before gradients are taken; and by the same study in
float64. Every point of the embedded grid is run with the same upstream seeds in all three, and
the answers are compared: scores, ranking, winner, tie set.

What is stored is not computed again: `--results results/reproducibility` takes the first of the
three from the other benchmark. By the costs recorded there, three seeds of the whole grid are
about half an hour of one worker a float32 version (3456 steps, 2430 runs).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr

from mpt.api.methods import upstream_method
from mpt.config import UpstreamConfig
from mpt.metrics.replicates import Replicates, compare
from mpt.search.comparison import seed_of, tables_of
from mpt.search.job import Execution, SearchJob
from mpt.search.look import peek
from mpt.search.run import run_search
from mpt.study.options import StudyOptions
from mpt.study.presets import load_smoke_size, load_study
from mpt.study.spaces import load_space
from mpt.study.specs import UpstreamSpec, trials_of
from mpt.study.study import plan_study
from mpt.upstream.methods import maml
from mpt.upstream.registry import UPSTREAM_METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import EpisodeLoss

NUDGE = 1e-6
"""Length of the move, relative to the prompt's norm; float32 rounds each entry by up to 6e-8."""
NUDGED = "nudged_maml"
VERSIONS = ("as it is", "nudged", "float64")


def nudged_maml(
    loss: EpisodeLoss, prompt: Tensor, episode: Episode, config: UpstreamConfig
) -> tuple[Tensor, float]:
    """Return MAML's outer gradient [P, d] and query loss at a prompt 1e-6 of its norm away."""
    noise = torch.randn(prompt.shape, generator=torch.Generator().manual_seed(episode.index))
    moved = prompt + NUDGE * prompt.norm() / noise.norm() * noise.to(prompt)
    return maml.outer_gradient(loss, moved, episode, config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the three searches, as far as they are not stored, and compare them."""
    parser = argparse.ArgumentParser(description="Does rounding change the answer of a search?")
    parser.add_argument("--results", type=Path, default=Path("results/nudged"))
    parser.add_argument("--seeds", type=int, default=3, help="upstream seeds of every point")
    parser.add_argument("--smoke", action="store_true", help="few points at a tiny size")
    parser.add_argument("--json", type=Path, help="write all figures there")
    flags = parser.parse_args(argv)
    upstream_method(nudged_maml, name=NUDGED)  # here: an import must not change what is known
    jobs = [job_of(name, flags.results.absolute(), flags.seeds, flags.smoke) for name in VERSIONS]
    execution = execution_of(sys.argv[1:] if argv is None else argv)
    for job in jobs:
        code = run_search(job, execution)
        if code:
            return code
    figures = measure([answer_of(job) for job in jobs])
    print("\n".join(lines_of(figures)))
    if flags.json is not None:
        flags.json.write_text(json.dumps(figures, indent=2))
    return 0


def execution_of(words: Sequence[str]) -> Execution:
    """Return how the searches run; whoever is interrupted goes on with the same command.

    Args:
        words: of the command line. The method must be registered.
    """
    command = shlex.join(["python", "benchmarks/nudged.py", *words])
    methods = {NUDGED: UPSTREAM_METHODS[NUDGED]}
    then = "nothing: the three are run in turn, and compared at the end"
    return Execution(methods=methods, resume=command, next_step=then)


def job_of(version: str, results: Path, seeds: int, smoke: bool = False) -> SearchJob:
    """Return the embedded MAML grid with all seeds for all points, in one of `VERSIONS`."""
    precision = "float64" if version == "float64" else None
    study = load_study("embedded", smoke=smoke, precision=precision)
    study = StudyOptions(replicates=seeds, fresh_replicates=0).apply(study)
    size = load_smoke_size() if smoke else None
    plan = plan_study(study, smoke_sources=None if size is None else size.source_tasks)
    specs = load_space("maml", "embedded").grid()
    if version == "nudged":
        specs = [_nudged(spec) for spec in specs]
    return SearchJob(
        trials=trials_of(plan, specs if size is None else size.cut(specs)),
        results=results,
        title=f"the embedded grid of MAML, {version}",
        allocation="full",
    )


def _nudged(spec: UpstreamSpec) -> UpstreamSpec:
    assert isinstance(spec.config, UpstreamConfig)
    return dataclasses.replace(spec, config=dataclasses.replace(spec.config, method=NUDGED))


@dataclass(frozen=True)
class Answer:
    """What one search says; points are (inner rate, outer rate, steps)."""

    args: Mapping[tuple[float, float, int], Mapping[int, float]]
    """Point → upstream seed → ARG in %."""
    ties: frozenset[tuple[float, float, int]]
    leader: tuple[float, float, int]
    expected: Mapping[tuple[float, float, int], tuple[float, float]]
    """Point → 95 % interval of the expected ARG."""


def answer_of(job: SearchJob) -> Answer:
    """Return what a finished search says."""
    rows: dict[tuple[float, float, int], dict[int, np.ndarray]] = {}
    with peek(job) as look:
        entries = [entry for entry in look.entries if entry.score is not None]
        baseline, tables = tables_of(look.board, entries[0].trial.plan, entries)
        for entry, table in zip(entries, tables, strict=True):
            config = entry.trial.upstream.config
            assert isinstance(config, UpstreamConfig)
            point = (config.inner_lr, config.outer_lr, entry.steps)
            rows.setdefault(point, {})[seed_of(entry.trial)] = table
    return compared(rows, baseline)


def compared(
    rows: Mapping[tuple[float, float, int], Mapping[int, np.ndarray]], baseline: np.ndarray
) -> Answer:
    """Return what scores say.

    Args:
        rows: point → upstream seed → test scores [T, D].
        baseline: [T, D].
    """
    names = {str(point): point for point in rows}
    comparison = compare(
        [Replicates(name=name, scores=rows[point]) for name, point in names.items()],
        baseline,
        rng=np.random.default_rng(1),
    )
    of = {names[name]: summary for name, summary in comparison.summaries.items()}
    return Answer(
        args={point: summary.by_seed for point, summary in of.items()},
        ties=frozenset(point for point, summary in of.items() if summary.tied),
        leader=names[comparison.leader],
        expected={p: one.expected for p, one in of.items() if one.expected is not None},
    )


def measure(answers: Sequence[Answer]) -> dict[str, Any]:
    """Compare the answers of `VERSIONS` with the first."""
    first = answers[0]
    means = _means(first)
    steady = [point for point in means if point[1] <= 0.1]
    spread = [np.var(list(seeds.values()), ddof=1) for seeds in first.args.values()]
    figures: dict[str, Any] = {
        "points": len(means),
        "seeds": sorted(next(iter(first.args.values()))),
        "sd between upstream seeds": float(np.sqrt(np.mean(spread))),
    }
    for name, other in zip(VERSIONS[1:], answers[1:], strict=True):
        pairs = [
            (arg, other.args[point][seed])
            for point, seeds in first.args.items()
            for seed, arg in seeds.items()
        ]
        theirs = _means(other)
        figures[name] = {
            "mean change of a run": float(np.mean([abs(a - b) for a, b in pairs])),
            "mean change of a point": float(np.mean([abs(means[p] - theirs[p]) for p in means])),
            "rank correlation": _rank(means, theirs, list(means)),
            "rank correlation, outer rate <= 0.1": _rank(means, theirs, steady),
            "inside the expected interval": float(
                np.mean([low <= theirs[p] <= high for p, (low, high) in first.expected.items()])
            ),
            "each winner in the other's tie set": [
                first.leader in other.ties,
                other.leader in first.ties,
            ],
            "tie sets": [len(first.ties), len(other.ties), len(first.ties & other.ties)],
        }
    return figures


def _means(answer: Answer) -> dict[tuple[float, float, int], float]:
    return {point: float(np.mean(list(of.values()))) for point, of in answer.args.items()}


def _rank(one: Mapping[Any, float], other: Mapping[Any, float], points: Sequence[Any]) -> float:
    return float(spearmanr([one[p] for p in points], [other[p] for p in points]).statistic)


def lines_of(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures for people."""
    seeds = ", ".join(map(str, figures["seeds"]))
    lines = [
        f"{figures['points']} points × upstream seeds {seeds}; "
        f"sd between seeds {figures['sd between upstream seeds']:.2f} ARG points"
    ]
    for name in VERSIONS[1:]:
        lines.append(f"{name}, against {VERSIONS[0]}:")
        for what, value in figures[name].items():
            shown = f"{value:.2f}" if isinstance(value, float) else str(value)
            lines.append(f"  {what:<40}{shown}")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
