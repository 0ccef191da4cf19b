"""Does the answer of a search hold with other upstream seeds? Measured on many seeds of one grid.

    python benchmarks/reproducibility.py [--results DIR] [--seeds 11] [--space NAME] [--json FILE]

First the embedded MAML grid is searched with all seeds for all points (`--allocation full`; what
is stored is not computed again). Then searches of three seeds are replayed on these records in
many ways, and what each of them says is compared with the seeds it has not seen:

- two searches on disjoint seeds: rank correlation, and each winner in the other's tie set;
- coverage of both intervals on seeds that were in no search;
- a race with fresh seeds, as `mpt search` does it: what it costs, and how far the reported ARG is
  from that of all other seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from mpt.cli import search as search_command
from mpt.metrics.choice import cross_fitted
from mpt.metrics.replicates import Replicates, Summary, compare, estimate
from mpt.search.comparison import name_of, seed_of, tables_of
from mpt.search.look import peek
from mpt.search.replication import Allowance, Point, passes_of, raced

SIZE, FRESH = 3, 3
"""Seeds of a search, and fresh ones of its winner, as in the embedded study."""
SPLITS = 60
"""Ways in which the seeds are dealt out; all of them where there are fewer."""
ROOT = 2026


@dataclass(frozen=True)
class Grid:
    """The records: every point with every seed."""

    scores: Mapping[str, Mapping[int, np.ndarray]]
    """Point → upstream seed → test scores [T, D]."""
    baseline: np.ndarray
    points: Mapping[str, Point]
    """Point → the trial of one of its seeds, and its steps."""
    seeds: tuple[int, ...]

    def args(self, points: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Return ARG in %, mean over some seeds, of some points."""
        reference = self.baseline.mean(1)
        rows = [
            np.mean([100 * (self.scores[p][s].mean(1) / reference - 1).mean() for s in seeds])
            for p in points
        ]
        return np.array(rows)

    def outer(self, point: str) -> float:
        """Return a point's outer learning rate."""
        return float(getattr(self.points[point][0].upstream.config, "outer_lr", math.nan))

    def searched(self, points: Sequence[str], seeds: Sequence[int]) -> list[Replicates]:
        """Return what a search of some points with some seeds has."""
        return [Replicates(name=p, scores={s: self.scores[p][s] for s in seeds}) for p in points]


def main(argv: Sequence[str] | None = None) -> int:
    """Search, then print what holds; return the exit code of the search."""
    parser = argparse.ArgumentParser(description="Does a search hold with other upstream seeds?")
    parser.add_argument("--results", type=Path, default=Path("results/reproducibility"))
    parser.add_argument("--seeds", type=int, default=11, help="upstream seeds of every point")
    parser.add_argument("--fresh", type=int, default=FRESH, help="fresh seeds of a race's winner")
    parser.add_argument("--space", help="another space of search_spaces/maml.toml")
    parser.add_argument("--json", type=Path, help="write all figures there")
    flags = parser.parse_args(argv)
    words = ["--results", str(flags.results), "--replicates", str(flags.seeds)]
    words += ["--fresh-replicates", "0", "--allocation", "full"]
    words += [] if flags.space is None else ["--space", flags.space]
    code = search_command.main("maml", words)
    figures = measure(read_grid(words), flags.fresh)
    print("\n".join(lines_of(figures)))
    if flags.json is not None:
        flags.json.write_text(json.dumps(figures, indent=2))
    return code


def read_grid(words: Sequence[str]) -> Grid:
    """Return the records of a search, of the seeds that all of its points have."""
    job = search_command._job("maml", search_command.parser_of("maml").parse_args(list(words)))
    scores: dict[str, dict[int, np.ndarray]] = {}
    points: dict[str, Point] = {}
    with peek(job) as look:
        entries = [entry for entry in look.entries if entry.score is not None]
        plan = entries[0].trial.plan
        baseline, tables = tables_of(look.board, plan, entries)
        for entry, table in zip(entries, tables, strict=True):
            name = name_of(entry)
            scores.setdefault(name, {})[seed_of(entry.trial)] = table
            points.setdefault(name, (entry.trial, entry.steps))
    seeds = [s for s in plan.config.seeds if all(s in of for of in scores.values())]
    return Grid(scores, baseline, points, tuple(seeds))


def measure(grid: Grid, fresh: int = FRESH) -> dict[str, Any]:
    """Return every figure of this benchmark; races report on `fresh` seeds."""
    if len(grid.seeds) <= SIZE + fresh:
        raise SystemExit(
            f"{len(grid.seeds)} seeds are there for all points, but a search of {SIZE}, {fresh} "
            f"fresh ones and the truth need {SIZE + fresh + 1} or more; raise --seeds"
        )
    points, rng = list(grid.scores), np.random.default_rng(ROOT)
    steady = [p for p in points if grid.outer(p) <= 0.1]
    deals = [rng.permutation(grid.seeds).tolist() for _ in range(SPLITS)]
    comparisons: list[dict[str, Any]] = []
    covered: dict[str, list[bool]] = {"new_run": [], "expected": []}
    races: list[dict[str, Any]] = []
    for deal in deals:
        one, other, rest = deal[:SIZE], deal[SIZE : 2 * SIZE], deal[SIZE:]
        first, second = (
            compare(grid.searched(points, s), grid.baseline, rng=np.random.default_rng(1))
            for s in (one, other)
        )
        comparisons.append(
            {
                "all": _rank(grid, points, one, other),
                "outer <= 0.1": _rank(grid, steady, one, other),
                "winners": [
                    second.summaries[first.leader].tied,
                    first.summaries[second.leader].tied,
                ],
                "ties": len(first.ties),
            }
        )
        for point in points:
            summary = first.summaries[point]
            covered["expected"].append(
                _inside(summary.expected, float(grid.args([point], rest)[0]))
            )
            covered["new_run"] += [
                _inside(summary.new_run, float(grid.args([point], [s])[0])) for s in rest
            ]
        races.append(_race(grid, deal, fresh))
    halves = [
        _rank_of_halves(grid, points, half, one)
        for half in itertools.combinations(range(grid.baseline.shape[1]), 2)
        for one in [deal[:SIZE] for deal in deals]
    ]
    winners = [won for one in comparisons for won in one["winners"]]
    gaps = [race["reported"] - race["truth"] for race in races]
    return {
        "points": len(points),
        "seeds": list(grid.seeds),
        "deals": len(deals),
        "spearman": _spread([one["all"] for one in comparisons]),
        "spearman, outer rate <= 0.1": _spread([one["outer <= 0.1"] for one in comparisons]),
        "split half over data seeds": _spread(halves),
        "winner in the other's tie set": float(np.mean(winners)),
        "size of the tie set": _spread([one["ties"] for one in comparisons]),
        "coverage, one new run": float(np.mean(covered["new_run"])),
        "coverage, expected ARG": float(np.mean(covered["expected"])),
        "fresh seeds behind the expected": len(grid.seeds) - SIZE,
        "pairs": len(covered["new_run"]),
        "race: points per point of one seed": _spread([race["points"] for race in races]),
        "race: row passes per row pass of one seed": _spread([race["passes"] for race in races]),
        "race: selected ARG minus truth": _spread(
            [race["selected"] - race["truth"] for race in races]
        ),
        "race: cross-fitted ARG minus truth": _spread(
            [race["crossed"] - race["truth"] for race in races if race["crossed"] is not None]
        ),
        "race: reported ARG minus truth": _spread(gaps),
        "race: truth in the reported interval": float(np.mean([r["covered"] for r in races])),
        "race: loss against the best point": _spread([race["loss"] for race in races]),
    }


def _race(grid: Grid, deal: Sequence[int], count: int) -> dict[str, Any]:
    """Replay one race; the truth is the ARG of the seeds that it has not seen."""
    seeds, fresh, rest = deal[:SIZE], deal[SIZE : SIZE + count], deal[SIZE + count :]
    held = {point: [seeds[0]] for point in grid.points}
    names = {point: name for name, point in grid.points.items()}
    once = list(grid.points.values())
    allowance = Allowance.of(once, count)
    passes = passes_of(once)

    def state() -> Any:
        rows = [
            Replicates(name=p, scores={s: grid.scores[p][s] for s in of}) for p, of in held.items()
        ]
        return compare(rows, grid.baseline, rng=np.random.default_rng(1), resamples=1000)

    for number in range(1, SIZE):
        going = raced(state(), number, grid.points, allowance)
        if not going:
            break
        allowance = allowance.after(going)
        passes += passes_of(going)
        for point in going:
            held[names[point]].append(seeds[number])
    final = state()
    leader: str = final.leader
    own = Replicates(name=leader, scores={s: grid.scores[leader][s] for s in fresh})
    said: Summary = estimate(own, grid.baseline, final.prior, rng=np.random.default_rng(2))
    truth = float(grid.args([leader], rest)[0])
    return {
        "points": (sum(map(len, held.values())) + count) / len(once),
        "passes": (passes + count * passes_of([grid.points[leader]])) / passes_of(once),
        "selected": final.summaries[leader].arg,
        "crossed": cross_fitted({n: s.by_seed for n, s in final.summaries.items()}),
        "reported": said.arg,
        "truth": truth,
        "covered": _inside(said.expected, truth),
        "loss": float(grid.args(list(grid.points), rest).max() - truth),
    }


def _rank(grid: Grid, points: Sequence[str], one: Sequence[int], other: Sequence[int]) -> float:
    return float(spearmanr(grid.args(points, one), grid.args(points, other)).statistic)


def _rank_of_halves(
    grid: Grid, points: Sequence[str], half: Sequence[int], seeds: Sequence[int]
) -> float:
    """Return the rank correlation of points between two parts of the data seeds."""
    whole = range(grid.baseline.shape[1])
    parts = [list(half), [d for d in whole if d not in half]]
    ranked = [
        Grid(
            {p: {s: grid.scores[p][s][:, part] for s in seeds} for p in points},
            grid.baseline[:, part],
            grid.points,
            tuple(seeds),
        ).args(points, seeds)
        for part in parts
    ]
    return float(spearmanr(*ranked).statistic)


def _inside(interval: tuple[float, float] | None, value: float) -> bool:
    return interval is not None and interval[0] <= value <= interval[1]


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, [5, 50, 95])
    return {
        "mean": float(np.mean(values)),
        "low": float(low),
        "median": float(middle),
        "high": float(high),
    }


def lines_of(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures for people: a mean with the 5 % and 95 % points over deals."""
    lines = [
        f"{figures['points']} points × {len(figures['seeds'])} upstream seeds, dealt out anew"
    ]
    for name, value in figures.items():
        if isinstance(value, dict):
            shown = f"{value['mean']:.2f}  [{value['low']:.2f}, {value['high']:.2f}]"
            lines.append(f"  {name:<40}{shown}")
        elif isinstance(value, (int, float)):
            lines.append(f"  {name:<40}{value:.3g}")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
