"""The table of a search ranks as the search's own terminal does, on the same upstream seeds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_factory import NOW, Results

from analysis.figures.charts.from_search import search_of
from analysis.figures.search_plans import validation_plans
from analysis.results.reading import read_results
from analysis.tables.costs import search_budget_table
from analysis.tables.lookup import Lookup
from analysis.tables.searches import search_tables
from analysis.tables.table import Row, Table
from mpt.config import UpstreamConfig
from mpt.search.comparison import Ranking, rankings
from mpt.search.display.configurations import interval_text, rank_of
from mpt.search.display.display import ONE_SEED
from mpt.search.watch.note import DriverNote
from mpt.search.watch.recorded import recorded
from mpt.store.database import open_results
from mpt.store.records import DRIVER

DATA_SEEDS = (13, 21, 42)
BASELINE = {"a": {13: 0.5, 21: 0.6, 42: 0.4}, "b": {13: 0.3, 21: 0.2, 42: 0.25}}
LEVELS = {
    0.1: {42: 0.62, 1042: 0.70, 2042: 0.66},
    0.2: {42: 0.61, 1042: 0.62, 2042: 0.64},
    0.3: {42: 0.60, 1042: 0.57},
    0.5: {42: 0.20},
    0.9: {42: 0.67},
}
"""Outer rate → upstream seed → about what is scored: a race whose last point was lucky once."""
FRESH = {3042: 0.30, 4042: 0.36}
"""The same of the winner's fresh seeds: on all of its seeds it is below 0.2 and 0.3."""
WINNER = 0.1
JUMP = {"step": 30, "loss": 9.0, "before": 1.5, "deviations": 12.0}

Scores = dict[tuple[float, int], dict[str, dict[int, float]]]
"""(outer rate, upstream seed) → task → data seed → test score."""


def _drawn(levels: Mapping[float, Mapping[int, float | None]]) -> Scores:
    """Return scores around the levels; none where the level is None."""
    rng = np.random.default_rng(5)
    return {
        (rate, seed): {
            task: {at: float(level * s + 0.02 * rng.normal()) for at, s in row.items()}
            for task, row in BASELINE.items()
        }
        if level is not None
        else {}
        for rate, of in levels.items()
        for seed, level in ((seed, None if v is None else 2 * v) for seed, v in of.items())
    }


def _store(
    root: Path,
    levels: Mapping[float, Mapping[int, float | None]],
    jumped: tuple[float, int] | None = None,
) -> Scores:
    """Store the points of a search; return their scores."""
    results, scores = Results(root, seeds=DATA_SEEDS), _drawn(levels)
    for (rate, seed), own in scores.items():
        config = UpstreamConfig(outer_lr=rate, seed=None if seed == 42 else seed)
        point: dict[str, Any] = {
            "settings": dataclasses.asdict(config),
            "trajectory": f"{rate} {seed}",
            # the search goes through its grid with one upstream seed after the other
            "created": f"2026-01-01T00:{seed // 1000:02d}:{int(10 * rate):02d}+00:00",
        }
        if not own:
            point |= {"status": "diverged", "note": "loss is NaN"}
        if (rate, seed) == jumped:
            point["provenance"] = {"jump": JUMP}
        results.point(
            "maml", "random_to_random", own, BASELINE, point=point, role="validation",
            tasks=list(BASELINE),
        )  # fmt: skip
    results.close()
    return scores


def _arg(scores: Mapping[str, Mapping[int, float]]) -> float:
    """Return ARG in %, as the paper defines it."""
    gains = [
        np.mean(list(row.values())) / np.mean(list(BASELINE[task].values())) - 1
        for task, row in scores.items()
    ]
    return 100 * float(np.mean(gains))


def _table(root: Path) -> Table:
    (table,) = search_tables(Lookup(read_results(root).main))
    return table


def _named(table: Table) -> list[dict[str, Any]]:
    """Return the rows by the names of their columns."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _terminal(root: Path, note: DriverNote | None = None) -> Ranking:
    with open_results(root, read_only=True) as database:
        board = recorded(database, database.studies(), root, note).board
        assert board is not None
        (ranking,) = rankings(board, board.entries())
    return ranking


def _with_fresh() -> dict[float, dict[int, float]]:
    return {**LEVELS, WINNER: {**LEVELS[WINNER], **FRESH}}


def test_the_order_is_that_of_the_seeds_of_the_choice(tmp_path: Path) -> None:
    scores = _store(tmp_path, _with_fresh())
    args: dict[float, list[float]] = {}
    every: dict[float, list[float]] = {}
    for (rate, seed), own in scores.items():
        every.setdefault(rate, []).append(_arg(own))
        if seed not in FRESH:
            args.setdefault(rate, []).append(_arg(own))
    means = {rate: float(np.mean(of)) for rate, of in args.items()}
    order = sorted(means, key=lambda rate: -means[rate])
    of_all = sorted(every, key=lambda rate: -float(np.mean(every[rate])))
    assert (order.index(WINNER), of_all.index(WINNER)) == (1, 3)
    rows = _named(_table(tmp_path))
    assert [float(row["outer_lr"].text) for row in rows] == order
    assert [row["ARG %"].value for row in rows] == pytest.approx([means[r] for r in order])
    assert [row["upstream seeds"].text for row in rows] == [str(len(args[r])) for r in order]
    # two tasks, three data seeds and two rates a point
    assert [row["ARG %"].count for row in rows] == [
        "/".join(2 * [str(12 * len(args[rate]))]) for rate in order
    ]


def test_the_winner_is_reported_on_the_seeds_that_were_run_afterwards(tmp_path: Path) -> None:
    scores = _store(tmp_path, _with_fresh())
    notes = _table(tmp_path).notes
    assert any("by the mean over the upstream seeds 42, 1042, 2042, or" in one for one in notes)
    (line,) = [one for one in notes if "reported:" in one]
    fresh = float(np.mean([_arg(scores[WINNER, seed]) for seed in FRESH]))
    chosen = float(np.mean([_arg(scores[WINNER, seed]) for seed in LEVELS[WINNER]]))
    found = re.fullmatch(
        r"Best \(outer_lr 0\.1, 100 steps\): ARG (\S+) \[\S+, \S+\] on the seeds it was chosen "
        r"on; reported: ARG (\S+) \[\S+, \S+\] on fresh upstream seeds 3042, 4042\.",
        line,
    )
    assert found is not None
    numbers = [float(one.replace("−", "-")) for one in found.groups()]
    assert numbers == pytest.approx([chosen, fresh], abs=0.005)


def _shown(row: Mapping[str, Any], name: str) -> str:
    """Return a cell's interval as the terminal writes it."""
    cell = row[name]
    return interval_text(None if cell.low is None else (cell.low, cell.high))


@pytest.mark.parametrize("diverged", [(), ((0.2, 1042),), ((0.3, 42), (0.5, 42))])
def test_the_terminal_shows_the_same(
    diverged: tuple[tuple[float, int], ...], tmp_path: Path
) -> None:
    """Order, ARG, ties, intervals, differences, P(best); what diverged got nothing right."""
    levels: dict[float, dict[int, float | None]] = {
        rate: {seed: None if (rate, seed) in diverged else v for seed, v in of.items()}
        for rate, of in _with_fresh().items()
    }
    _store(tmp_path, levels, jumped=(0.2, 2042))
    ranking, rows = _terminal(tmp_path), _named(_table(tmp_path))
    assert len(rows) == len(ranking.configurations)
    for place, (row, one) in enumerate(zip(rows, ranking.configurations, strict=True), start=1):
        own, trial = one.summary, one.first.trial.upstream.config
        assert isinstance(trial, UpstreamConfig)
        assert float(row["outer_lr"].text) == trial.outer_lr
        assert row["rank"].text == rank_of(place, one) + "*" * own.unstable
        assert row["upstream seeds"].text == str(own.seeds)
        assert row["ARG %"].value == pytest.approx(own.arg)
        assert _shown(row, "ARG %") == interval_text(own.expected)
        assert _shown(row, "one new run") == interval_text(own.new_run)
        assert row["P(best)"].value == own.p_best
        if own.to_leader is None:
            assert row["to the best"].text == "best"
        else:
            assert row["to the best"].value == pytest.approx(own.to_leader.mean)
            assert _shown(row, "to the best") == interval_text(own.to_leader.interval)
    tied = sum(one.summary.tied for one in ranking.configurations)
    assert f"{tied} of {len(rows)} cannot be told" in " ".join(_table(tmp_path).notes)


def test_seeds_that_a_driver_has_noted_are_compared(tmp_path: Path) -> None:
    """By the records alone a seed that one configuration has is fresh; its driver knows better."""
    _store(tmp_path, {**LEVELS, WINNER: {**LEVELS[WINNER], 3042: 0.3}})
    assert _named(_table(tmp_path))[1]["outer_lr"].text == "0.1"
    with open_results(tmp_path) as database:
        (study,) = database.studies()
        note = DriverNote(
            host="h", results=str(tmp_path), title="", began=NOW, updated=NOW,
            studies=(study.key,), seeds=(42, 1042, 2042, 3042), fresh=2, trials=1, points=1,
            runs=(1, 1), left_s=0.0,
        )  # fmt: skip
        database.put_document(DRIVER, "one", dataclasses.asdict(note))
    rows, ranking = _named(_table(tmp_path)), _terminal(tmp_path, note)
    assert [row["ARG %"].value for row in rows] == pytest.approx(
        [one.summary.arg for one in ranking.configurations]
    )
    assert [row["upstream seeds"].text for row in rows if row["outer_lr"].text == "0.1"] == ["4"]


def test_one_upstream_seed_has_no_ties_and_says_what_its_interval_leaves_out(
    tmp_path: Path,
) -> None:
    scores = _store(tmp_path, {rate: {42: of[42]} for rate, of in LEVELS.items()})
    table = _table(tmp_path)
    order = sorted((rate for rate, _ in scores), key=lambda rate: -_arg(scores[rate, 42]))
    assert table.columns[2:] == ("steps", "ARG %", "median RG %", "upstream samples")
    assert [(row[0].text, float(row[1].text or 0)) for row in table.rows] == [
        (str(rank), rate) for rank, rate in enumerate(order, start=1)
    ]
    assert all(row[3].low is not None for row in table.rows)
    assert table.notes[-1] == f"Ranked on upstream seed 42, as the search ranks; {ONE_SEED}."


def _of(table: Table, rate: float) -> Row:
    return next(row for row in table.rows if row[1].text == str(rate))


def test_a_fresh_seed_makes_the_winner_unstable_by_an_event_alone(tmp_path: Path) -> None:
    """Judged on all seeds, the winner would lie wider apart than the others."""
    close = {42: 0.62, 1042: 0.63, 2042: 0.64}
    levels = {rate: {s: v - rate / 10 for s, v in close.items()} for rate in (0.1, 0.2, 0.3, 0.5)}
    levels[WINNER] |= {3042: 0.1, 4042: 1.1}
    _store(tmp_path / "plain", levels)
    assert "*" not in str([row[0].text for row in _table(tmp_path / "plain").rows])
    assert not any(one.summary.unstable for one in _terminal(tmp_path / "plain").configurations)
    _store(tmp_path / "jumped", levels, jumped=(WINNER, 3042))
    table = _table(tmp_path / "jumped")
    assert _of(table, WINNER)[0].text == "1=*"
    (why,) = [note for note in table.notes if note.startswith("* outer_lr 0.1, 100 steps: ")]
    assert why.split(": ", 1)[1].startswith("seed 3042: loss jumped to 9 at step 30")
    assert "standard deviation between" not in why


def test_a_spread_on_the_seeds_of_the_choice_makes_unstable(tmp_path: Path) -> None:
    levels = {rate: {42: 0.62, 1042: 0.63, 2042: 0.64} for rate in (0.1, 0.2, 0.3, 0.5)}
    levels[0.5] = {42: 0.1, 1042: 0.6, 2042: 1.1}
    _store(tmp_path, levels)
    assert str(_of(_table(tmp_path), 0.5)[0].text).endswith("*")
    assert [one.summary.unstable for one in _terminal(tmp_path).configurations].count(True) == 1


def test_the_best_within_a_budget_is_that_of_the_ranking(tmp_path: Path) -> None:
    """All points cost the same; with its fresh seeds the winner would be below another."""
    levels = _with_fresh()
    del levels[0.9]
    _store(tmp_path, levels)
    look = Lookup(read_results(tmp_path).main)
    first = _named(_table(tmp_path))[0]
    assert first["outer_lr"].text == str(WINNER)
    assert [row[2] for row in search_budget_table(look, "steps").rows] == [first["ARG %"]]


def test_the_figures_of_a_search_have_the_numbers_of_its_table(tmp_path: Path) -> None:
    """Their strip is the interval of what was chosen, not of the lucky point above it."""
    _store(tmp_path, _with_fresh())
    (searched,) = read_results(tmp_path).main.searches
    search, rows = search_of(searched), _table(tmp_path).rows
    at = _table(tmp_path).columns.index("ARG %")
    drawn = [(one.score.value, one.score.low, one.score.high) for one in search.scored]
    assert drawn == [(row[at].value, row[at].low, row[at].high) for row in rows]
    assert [point.settings["outer_lr"] for point in search.scored][:2] == [0.9, WINNER]
    assert search.best is search.scored[1]
    (plan,) = [
        one
        for one in validation_plans(read_results(tmp_path).main, searched.cells, "")
        if one.name == "search-ranking-maml-random-to-random"
    ]
    assert "Dot: mean over the upstream seeds of the choice; line: 95 % of the" in plan.caption
