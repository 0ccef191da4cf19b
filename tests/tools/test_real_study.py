"""The tables of docs/real follow from the runs that are kept beside them."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from pathlib import Path

import pytest
from stored import Stored

from mpt.config import UpstreamConfig
from tools import real_study

ROOT = Path(__file__).parents[2]
PAGE, RUNS = ROOT / "docs/real/index.md", ROOT / "docs/real/runs.csv"
SEEDS = (1042, 2042)


def _config(method: str, seed: int | None) -> UpstreamConfig:
    return UpstreamConfig(method=method, inner_lr=0.1, outer_lr=0.03, seed=seed)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Kept runs of a study of known gains: reptile 20 and 40, maml 10, MTL 0, FoMAML −5."""
    gains = {"multitask": (0, 0), "fomaml": (-5, -5), "maml": (10, 10), "reptile": (20, 40)}
    results = Stored(tmp_path / "results")
    search = results.study(tasks=("v", "w"))
    for method in gains:
        results.point(search, _config(method, None), 20, 5.0)
    names = ("t", *real_study.READ_UPSTREAM)
    target = results.study(tasks=names, role="target")
    for method, args in {**gains, "untrained": (-50, -50)}.items():
        for seed, arg in zip(SEEDS, args, strict=True):
            results.point(target, _config(method, seed), 20, arg)
    out = tmp_path / "runs.csv"
    real_study.store(results.results, out)
    return out


def test_runs_are_kept_by_role_method_and_upstream_seed(runs: Path) -> None:
    rows = list(csv.DictReader(runs.read_text().splitlines()))
    assert len(rows) == 5 * 2 * 2 + 11 * 3 * 2
    reptile = [r for r in rows if (r["role"], r["method"]) == ("target", "reptile")]
    assert {(r["seed"], r["test"]) for r in reptile} == {("1042", "0.6"), ("2042", "0.7")}
    assert {r["inner_lr"] for r in reptile} == {"0.1"}
    assert {r["inner_lr"] for r in rows if r["method"] == "multitask"} == {""}
    plain = [r for r in rows if r["method"] == "prompt_tuning"]
    assert {(r["seed"], r["test"], r["dev"]) for r in plain} == {("", "0.5", "0.5")}


def test_the_tables_of_known_gains(runs: Path) -> None:
    tables = real_study.tables(runs)
    best, second, *_ = tables["target tasks"]
    assert best.startswith("| Reptile (.1, .03) | +30.0 | [")
    assert "| 20.0, 40.0 | 30 | .65 |" in best
    assert second.startswith("| MAML (.1, .03) | +10.0 |")
    assert tables["target tasks"][3] == "| plain prompt tuning | 0 | | | | 0 | .50 |"
    assert tables["target tasks"][-1].startswith("| untrained start | −50.0 | [")
    to_mtl = tables["paired difference to MTL"]
    assert [row.split(" [")[0] for row in to_mtl] == [
        "| Reptile | +30.0",
        "| MAML | +10.0",
        "| FoMAML | −5.0",
    ]
    control = tables["paired difference to the untrained start"]
    assert control[0].startswith("| Reptile | +80.0 [")
    assert control[-2].startswith("| MTL | +50.0 [")
    assert tables["search"][0].endswith("| +5.0 [5.0, 5.0] | .53 | .53 |")
    without = real_study.read(runs, "target", real_study.READ_UPSTREAM)
    assert set(without["task"]) == {"t"}


def test_a_missing_run_is_an_error(runs: Path) -> None:
    kept = [line for line in runs.read_text().splitlines() if ",2042,t,13," not in line]
    runs.write_text("\n".join(kept) + "\n")
    with pytest.raises(ValueError, match="runs are missing"):
        real_study.tables(runs)


def test_the_page_says_what_its_runs_say() -> None:
    page = PAGE.read_text()
    for title, lines in real_study.tables(RUNS).items():
        for line in lines:
            assert line in page, f"{title}: {line}"


def test_the_gains_of_the_page_by_the_definition_alone() -> None:
    """Mean over tasks of (s − s_PT) / s_PT, in plain Python, of the row of every upstream seed."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in csv.DictReader(RUNS.read_text().splitlines()):
        if row["role"] == "target":
            scores[row["method"], row["seed"]][row["task"]].append(float(row["test"]))
    plain = {task: statistics.fmean(own) for task, own in scores["prompt_tuning", ""].items()}
    assert len(plain) == 8
    rows = {line.split(" (")[0]: line for line in real_study.tables(RUNS)["target tasks"]}
    for method in real_study.ORDER:
        args = [
            100 * statistics.fmean(statistics.fmean(own[t]) / plain[t] - 1 for t in plain)
            for own in (scores[method, str(seed)] for seed in SEEDS)
        ]
        cells = rows[f"| {real_study.NAMES[method]}"].split(" | ")
        assert cells[1] == f"{statistics.fmean(args):+.1f}".replace("-", "−")
        assert cells[4] == ", ".join(f"{arg:.1f}" for arg in args).replace("-", "−")


def test_how_far_apart_runs_from_two_starts_5e_6_apart_end() -> None:
    """What the page says of ``moved.csv``: the control's runs of seed 1042 from a moved start."""
    moved = list(csv.DictReader((RUNS.parent / "moved.csv").read_text().splitlines()))
    own = {
        (row["task"], row["data_seed"]): float(row["test"])
        for row in csv.DictReader(RUNS.read_text().splitlines())
        if (row["role"], row["method"], row["seed"]) == ("target", "untrained", "1042")
    }
    apart = [abs(float(row["test"]) - own[row["task"], row["data_seed"]]) for row in moved]
    assert len(apart) == 9
    assert f"{statistics.fmean(apart):.2f}, {max(apart):.2f}" == "0.20, 0.54"
    assert ".20 of test score\n  apart on average, once .54" in PAGE.read_text()
