"""Points that differ in the upstream seed alone are one cell of every table; pairs of cells."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from results_factory import Results, flat
from scipy import stats

from analysis.paper.answers import arg_table
from analysis.report.report import ReportOptions, write_report
from analysis.results.cells import Cell
from analysis.results.reading import read_results
from analysis.results.sections import Section
from analysis.results.upstream_seeds import upstream_summary
from analysis.tables.arg import recorded_methods
from analysis.tables.lookup import Lookup
from analysis.tables.main import main_table
from analysis.tables.searches import search_tables

PT = flat({"a": 0.5, "b": 0.4})
SETTINGS = {"inner_lr": 1.0, "outer_lr": 0.1}


def _scores(gain: float) -> dict[str, dict[int, float]]:
    """Return scores with this relative gain (in %) on every task and data seed."""
    return flat({"a": 0.5 * (1 + gain / 100), "b": 0.4 * (1 + gain / 100)})


def _put(
    results: Results, method: str, gain: float | None, seed: int | None, **fields: Any
) -> str:
    """Write a point of this ARG (None: it diverged) with an upstream seed; return its key."""
    study = {name: fields.pop(name) for name in ("role", "partition") if name in fields}
    settings = {**SETTINGS, **fields.pop("settings", {}), "seed": seed}
    partition = study.pop("partition", "cls_to_cls")
    name = f"{method} {partition} {settings} {fields.pop('run', '')}"
    point = {"settings": settings, "trajectory": name, **fields}
    if gain is None:
        point |= {"status": "diverged", "note": "loss is NaN"}
    scores = {} if gain is None else _scores(gain)
    return results.point(method, partition, scores, PT, point=point, tasks=["a", "b"], **study)


def _section(root: Path) -> Section:
    return read_results(root).main


def _cell(section: Section, method: str, partition: str = "cls_to_cls") -> Cell:
    (cell,) = section.select(role="target", method=method, partition=partition)
    return cell


def test_two_seeds_are_one_entry_with_their_mean_and_the_interval_of_t_with_one_freedom(
    tmp_path: Path,
) -> None:
    """Data seeds agree, so that only the upstream seeds spread: mean ± t(1) · s / √2."""
    results = Results(tmp_path)
    keys = [_put(results, "maml", gain, seed) for gain, seed in ((10.0, None), (14.0, 1042))]
    look = Lookup(_section(tmp_path))
    table = main_table(look)
    row = next(row for row in table.rows if row[0].text == "MAML")
    cell = row[table.columns.index("Cls→Cls")]
    assert cell.value == pytest.approx(12.0, rel=1e-12)
    half = float(stats.t.ppf(0.975, 1)) * math.sqrt(8.0) / math.sqrt(2)
    assert cell.low is not None
    assert cell.high is not None
    # quantiles of 4000 evenly spaced ranks, not of the density itself
    assert (cell.low, cell.high) == pytest.approx((12 - half, 12 + half), rel=0.01)
    assert cell.flags == ("several_seeds",)
    assert (cell.done, cell.of) == (16, 16)
    assert cell.link == f"cells/{keys[0]}.html"
    arg = arg_table(recorded_methods(look.section))
    assert [row[3].value for row in arg.rows] == pytest.approx([12.0], rel=1e-12)
    assert any("mean over 2 upstream seeds: 42 (10.00), 1042 (14.00)" in n for n in arg.notes)


def test_the_spread_is_moderated_by_the_other_cells_of_the_replay(tmp_path: Path) -> None:
    """Variances 8 and 2 make a prior of 5 with two degrees of freedom; with its own 8 it is 6."""
    results = Results(tmp_path)
    for gain, seed in ((10.0, None), (14.0, 1042)):
        _put(results, "maml", gain, seed)
    for gain, seed in ((1.0, None), (3.0, 1042)):
        _put(results, "multitask", gain, seed)
    summary = Lookup(_section(tmp_path)).summary(_cell(_section(tmp_path), "maml"))
    assert summary is not None
    assert summary.upstream is not None
    half = float(stats.t.ppf(0.975, 3)) * math.sqrt(6.0 / 2)
    assert summary.interval == pytest.approx((12 - half, 12 + half), rel=0.01)
    one = float(stats.t.ppf(0.975, 3)) * math.sqrt(6.0 * 1.5)
    assert summary.upstream.new_run == pytest.approx((12 - one, 12 + one), rel=0.01)
    of_task = upstream_summary(_cell(_section(tmp_path), "maml"), ["a"])
    assert of_task is not None
    assert of_task.expected == pytest.approx((12 - half, 12 + half), rel=0.01)


def test_one_seed_looks_as_before(tmp_path: Path) -> None:
    _put(Results(tmp_path), "maml", 10.0, None)
    section = _section(tmp_path)
    cell = _cell(section, "maml")
    assert (cell.replicates, cell.line, cell.prior) == ((), cell.trajectory, None)
    summary = Lookup(section).summary(cell)
    assert summary is not None
    assert summary.upstream is None
    assert summary.interval == (summary.gain.low, summary.gain.high)


def test_other_settings_and_reruns_are_no_replicates(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _put(results, "maml", 10.0, None)
    _put(results, "maml", 30.0, 1042, settings={"outer_lr": 0.3})
    _put(results, "reptile", 10.0, None, run="once", created="2026-01-01")
    newer = _put(results, "reptile", 20.0, None, run="again", created="2026-02-01")
    _put(results, "reptile", 24.0, 1042, created="2026-01-15")
    section = _section(tmp_path)
    values = {
        cell.place.method: summary.value
        for cell in section.select(role="target")
        if (summary := Lookup(section).summary(cell)) is not None and summary.value is not None
    }
    assert sorted(values.values()) == pytest.approx([10.0, 10.0, 22.0, 30.0])
    reptile = _cell(section, "reptile")
    assert reptile.key == newer
    assert values["reptile"] == pytest.approx(22.0)


def test_a_seed_that_diverged_got_nothing_right_and_is_marked(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _put(results, "maml", None, None)
    _put(results, "maml", 10.0, 1042)
    section = _section(tmp_path)
    look = Lookup(section)
    cell = look.table_cell(_cell(section, "maml"))
    assert cell.value == pytest.approx((10.0 - 100.0) / 2)
    assert set(cell.flags) == {"several_seeds", "diverged"}


def test_a_search_ranks_configurations_by_their_means(tmp_path: Path) -> None:
    """A lucky seed of B would lead a list of points."""
    results = Results(tmp_path)
    for gain, seed, rate in ((8.0, None, 0.1), (9.0, 1042, 0.1), (12.0, None, 0.3)):
        _put(results, "maml", gain, seed, role="validation", settings={"outer_lr": rate})
    _put(results, "maml", 2.0, 1042, role="validation", settings={"outer_lr": 0.3})
    (table,) = search_tables(Lookup(_section(tmp_path)))
    assert table.columns[:4] == ("rank", "outer_lr", "steps", "upstream seeds")
    assert [[cell.text for cell in row[:4]] for row in table.rows] == [
        ["1=", "0.1", "100", "2"],
        ["2=", "0.3", "100", "2"],
    ]
    assert [row[4].value for row in table.rows] == pytest.approx([8.5, 7.0])
    assert table.notes[0].startswith("4 points, 2 configurations")


def test_the_rungs_of_a_configuration_stay_together_though_seeds_end_earlier(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    for steps, seeds in ((50, (None,)), (100, (None, 1042))):
        for seed in seeds:
            _put(results, "maml", 10.0, seed, steps=steps)
    section = _section(tmp_path)
    cell = _cell(section, "maml")
    assert [(one.steps, len(one.points)) for one in section.rungs[cell.key]] == [(50, 1), (100, 2)]


def test_the_page_of_a_cell_lists_each_seed(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    keys = [_put(results, "maml", gain, seed) for gain, seed in ((10.0, None), (14.0, 1042))]
    out = tmp_path / "report"
    write_report(results.root, out, ReportOptions(figures=False, copy_records=True))
    pages = list((out / "cells").iterdir())
    assert [page.stem for page in pages] == [keys[0]]
    text = pages[0].read_text()
    assert "2 upstream seeds" in text
    assert "mean over 2 upstream seeds: 42 (10.00), 1042 (14.00)" in text
    for key in keys:
        assert (out / "records" / f"{key}.json").is_file()
        assert key in text
    assert "method, upstream seed 1042" in text
    assert "ⁿ mean over several upstream seeds" in (out / "report.md").read_text()


def test_a_search_names_what_is_unstable_and_why(tmp_path: Path) -> None:
    """A spread that the others do not have, a loss that jumped, a seed that diverged."""
    results = Results(tmp_path)
    jump = {"step": 30, "loss": 9.0, "before": 1.5, "deviations": 12.0}
    for place, outer in enumerate((0.01, 0.02, 0.03, 0.04, 0.05)):
        for number, seed in enumerate((None, 1042, 2042, 3042)):
            gain = 10 - place + (40.0 if place == 4 else 1.0) * (number - 1.5)
            fields: dict[str, Any] = {"settings": {"outer_lr": outer}, "role": "validation"}
            if (place, number) == (1, 2):
                fields["provenance"] = {"jump": jump}
            _put(results, "maml", gain, seed, **fields)
    _put(results, "maml", None, None, settings={"outer_lr": 0.06}, role="validation")
    (table,) = search_tables(Lookup(_section(tmp_path)))
    at = table.columns.index("outer lr") if "outer lr" in table.columns else 1
    marked = {row[at].text for row in table.rows if str(row[0].text).endswith("*")}
    assert marked == {"0.02", "0.05", "0.06"}
    (spread,) = [note for note in table.notes if note.startswith("* outer_lr 0.05, 100 steps: ")]
    assert "standard deviation between its seeds 51.6, of the others 1.3 (F test, p " in spread
    (jumped,) = [note for note in table.notes if note.startswith("* outer_lr 0.02, 100 steps: ")]
    assert "seed 2042: loss jumped to 9 at step 30, 6.0 times what it was before" in jumped
    (lost,) = [note for note in table.notes if note.startswith("* outer_lr 0.06, 100 steps: ")]
    assert "seed 42: loss is NaN" in lost
    assert any(note.startswith("Unstable (*)") for note in table.notes)
