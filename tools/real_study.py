"""The study of docs/real from its runs: their file, and the tables of the page.

    python -m tools.real_study store RESULTS docs/real/runs.csv     runs of `make real` → CSV
    python -m tools.real_study tables docs/real/runs.csv            the tables, as Markdown

One line of the file is one downstream run; `seed` is the upstream seed.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.findings.paired import Paired, Side, moderated, paired_of
from mpt.metrics.moderation import Prior
from mpt.metrics.replicates import Replicates, Summary, args_of, compare, prior_of
from mpt.seeds import numpy_generator

if TYPE_CHECKING:
    import pandas as pd

TRAIN_SEED = 42
"""Root of the study's randomness, so of the draws of its intervals."""
ORDER = ("multitask", "fomaml", "maml", "reptile")
NAMES = {
    "multitask": "MTL",
    "fomaml": "FoMAML",
    "maml": "MAML",
    "reptile": "Reptile",
    "untrained": "untrained start",
}
READ_UPSTREAM = ("ethos-disability", "superglue-rte")
"""Target tasks whose training rows stand, nearly all, in source tasks."""
PAIRED = ("fomaml", "reptile", "maml", "multitask", "untrained", "zero_shot")
"""Of two methods the one that stands first here is the minuend."""
NO_INNER = ("multitask", "untrained")
"""Methods that take no step of the inner rate."""
COLUMNS = ("role", "method", "inner_lr", "outer_lr", "steps", "seed", "task", "data_seed")


def store(results: Path, out: Path) -> None:
    """Write the runs of a results directory of `make real` as CSV."""
    import mpt

    opened = mpt.load_results(results)
    runs = opened.runs().drop(columns=["seed"], errors="ignore")
    roles = dict(zip(opened.studies()["study"], opened.studies()["role"], strict=True))
    runs["role"] = runs["study"].map(roles)
    runs["seed"] = runs["upstream_seed"].astype("Int64")
    runs.loc[runs["method"].isin(NO_INNER), "inner_lr"] = np.nan
    for name in ("dev", "test"):
        runs[name] = runs[name].round(6)
    rows = runs[[*COLUMNS, "dev", "test"]].sort_values(list(COLUMNS), ignore_index=True)
    rows.to_csv(out, index=False, lineterminator="\n")


def read(file: Path, role: str, without: Collection[str] = ()) -> pd.DataFrame:
    """Return the runs of a role ("validation", "target") on all tasks but some."""
    import pandas as pd

    runs = pd.read_csv(file)
    return runs[(runs["role"] == role) & ~runs["task"].isin(without)]


def scores_of(runs: pd.DataFrame) -> np.ndarray:
    """Return test scores [T, D], tasks and data seeds in order."""
    table = runs.pivot(index="task", columns="data_seed", values="test")
    if table.isna().any(axis=None):
        raise ValueError("runs are missing: a task lacks a data seed")
    return np.asarray(table.sort_index(), dtype=float)


def sides(runs: pd.DataFrame) -> Iterator[tuple[tuple[str, float, float], dict[int, np.ndarray]]]:
    """Yield (method, inner rate, outer rate) → upstream seed → test scores [T, D]."""
    learned = runs[runs["seed"].notna()]
    keys = ["method", "inner_lr", "outer_lr"]
    for key, group in learned.groupby(keys, dropna=False):
        yield tuple(key), {int(seed): scores_of(own) for seed, own in group.groupby("seed")}


def target_table(runs: pd.DataFrame) -> list[str]:
    """Return the rows of the table of target tasks, best first, each with the same columns."""
    base = _plain(runs)
    of = {key[0]: (key, own) for key, own in sides(runs)}
    rows = {m: Replicates(name=m, scores=own) for m, (_, own) in of.items()}
    prior = prior_of(args_of(one, base) for one in rows.values())
    lines = []
    for method in (*ORDER, "untrained"):
        summary, ((_, inner, outer), tables) = _summary(rows[method], base, prior), of[method]
        gains = np.mean([own.mean(1) / base.mean(1) - 1 for own in tables.values()], 0)
        cells = (
            NAMES[method] + (f" ({_rate(inner)}, {_rate(outer)})" if method in ORDER else ""),
            _number(summary.arg, "+.1f"),
            _ends(summary.expected),
            _ends(summary.new_run),
            ", ".join(_number(arg) for _, arg in sorted(summary.by_seed.items())),
            _number(100 * float(np.median(gains)), ".0f"),
            _share(np.mean([own.mean() for own in tables.values()])),
        )
        lines.append((summary.arg, f"| {' | '.join(cells)} |"))
    lines.append((0.0, f"| plain prompt tuning | 0 | | | | 0 | {_share(base.mean())} |"))
    if (runs["method"] == "zero_shot").any():
        scores = scores_of(runs[runs["method"] == "zero_shot"])
        gains = 100 * (scores.mean(1) / base.mean(1) - 1)
        arg, median = _number(gains.mean(), "+.1f"), _number(float(np.median(gains)), ".0f")
        row = f"| zero-shot | {arg} | | | | {median} | {_share(scores.mean())} |"
        lines.append((float(gains.mean()), row))
    return _best_first(lines)


def differences(runs: pd.DataFrame) -> dict[tuple[str, str], Paired]:
    """Return (method, other) → ARG of one minus that of the other, on the same seeds.

    As in a report, the spread between upstream seeds is estimated from all pairs together.
    """
    base, tasks = _plain(runs), sorted(runs["task"].unique())
    of = {key[0]: np.stack([own[s] for s in sorted(own)]) for key, own in sides(runs)}
    seeds = len(next(iter(of.values())))
    if (runs["method"] == "zero_shot").any():
        zero = scores_of(runs[runs["method"] == "zero_shot"])
        of["zero_shot"] = np.stack([zero] * seeds)
    names = [name for name in PAIRED if name in of]
    pairs = list(itertools.combinations(names, 2))
    made = [
        paired_of(
            Side(scores=of[one], base=base),
            Side(scores=of[other], base=base),
            tasks=tasks,
            train_seed=TRAIN_SEED,
        )
        for one, other in pairs
    ]
    return dict(zip(pairs, moderated(made), strict=True))


def difference_table(runs: pd.DataFrame, reference: str) -> list[str]:
    """Return one row a method: its difference to the reference, in ARG points."""
    return _best_first(
        (one.value, f"| {NAMES[m]} | {_number(one.value, '+.1f')} {_ends(one.interval)} |")
        for (m, other), one in differences(runs).items()
        if other == reference and m in ORDER
    )


def search_table(runs: pd.DataFrame) -> list[str]:
    """Return one row a point of the search, best first; intervals are over data seeds."""
    base = _plain(runs)
    lines = []
    for (method, inner, outer), own in sides(runs):
        if method not in ORDER:
            continue
        for seed, scores in own.items():
            one = Replicates(name=method, scores={seed: scores})
            summary = _summary(one, base, prior_of([args_of(one, base)]))
            cells = (
                NAMES[method],
                f"{_rate(inner)}, {_rate(outer)}",
                f"{_number(summary.arg, '+.1f')} {_ends(summary.data_only)}",
                *(_share(value) for value in scores.mean(1)),
            )
            lines.append((summary.arg, f"| {' | '.join(cells)} |"))
    plain = " | ".join(_share(value) for value in base.mean(1))
    return [*_best_first(lines), f"| plain prompt tuning | | 0 | {plain} |"]


def _best_first(lines: Iterable[tuple[float, str]]) -> list[str]:
    return [line for _, line in sorted(lines, key=lambda one: -one[0])]


def tables(file: Path) -> Mapping[str, list[str]]:
    """Return title → rows of every table of the page."""
    target, fewer = read(file, "target"), read(file, "target", READ_UPSTREAM)
    return {
        "target tasks": target_table(target),
        "paired difference to MTL": difference_table(target, "multitask"),
        "paired difference to the untrained start": difference_table(target, "untrained"),
        f"target tasks without {' and '.join(READ_UPSTREAM)}": target_table(fewer),
        "paired difference to MTL without them": difference_table(fewer, "multitask"),
        "paired difference to the untrained start without them": difference_table(
            fewer, "untrained"
        ),
        "search": search_table(read(file, "validation")),
    }


def _plain(runs: pd.DataFrame) -> np.ndarray:
    return scores_of(runs[runs["method"] == "prompt_tuning"])


def _summary(one: Replicates, base: np.ndarray, prior: Prior) -> Summary:
    """Return what the terminal shows of a cell: the same draws."""
    rng = numpy_generator(TRAIN_SEED, "replicates")
    return compare([one], base, rng=rng, prior=prior).summaries[one.name]


def _ends(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return "–"
    return f"[{_number(interval[0])}, {_number(interval[1])}]"


def _number(value: float, form: str = ".1f") -> str:
    """Return a number with the minus that people read."""
    return format(value, form).replace("-", "−")


def _rate(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:g}".replace("0.", ".")


def _share(value: float | np.floating) -> str:
    return f"{value:.2f}".removeprefix("0")


if __name__ == "__main__":
    if sys.argv[1] == "store":
        store(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        for title, lines in tables(Path(sys.argv[2])).items():
            print(f"\n{title}\n", *lines, sep="\n")
