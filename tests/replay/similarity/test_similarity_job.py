"""The whole job at smoke size, from the command line to the report; one run serves all tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_scripts import run_script
from safetensors.numpy import load_file

from analysis.__main__ import main as analysis_main
from analysis.paper.answers import paper_comparisons
from analysis.paper.comparison import NOT_ATTEMPTED
from analysis.results.cells import Cell
from analysis.results.reading import read_results
from analysis.tables.lookup import Lookup
from analysis.tables.main import result_tables
from analysis.tables.table import Table
from mpt.cli.similarity import main
from mpt.config import DATA_SEEDS
from mpt.replay.similarity.ranking import load_rankings
from mpt.store.database import open_results
from mpt.store.records import BASELINE, Point

TARGET = "qa-who_is_where"
pytestmark = pytest.mark.timeout(1800)  # for hangs only


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the results directory and what the job printed."""
    results = tmp_path_factory.mktemp("pilot") / "results"
    words = ("--smoke", "--results", str(results), "--keep-prompts")
    return results, run_script("similarity.py", *words)


def _look(results: Path) -> Lookup:
    """Return the one section that the pilot makes: all of its studies are of one protocol."""
    (section,) = read_results(results).sections
    return Lookup(section)


def _cells(results: Path) -> list[Cell]:
    return _look(results).targets()


def _points(results: Path) -> list[Point]:
    with open_results(results, read_only=True) as database:
        return database.points()


def _table(results: Path, name: str) -> Table:
    return next(one for one in result_tables(_look(results)) if one.name == name)


def test_the_choice_is_printed_saved_and_in_the_records(run: tuple[Path, str]) -> None:
    results, printed = run
    (ranking,) = load_rankings(results)
    assert ranking.target == TARGET
    values = [value for _, value in ranking.ranked]
    assert values == sorted(values, reverse=True)
    cells = {cell.place.source_set: cell for cell in _cells(results)}
    assert set(cells) == {f"{how}2-{TARGET}" for how in ("highest", "random", "lowest")}
    for how, expected in (("highest", ranking.ranked[:2]), ("lowest", ranking.ranked[-2:])):
        cell = cells[f"{how}2-{TARGET}"]
        assert set(cell.source_tasks) == {name for name, _ in expected}
        assert set(cell.tasks) == {TARGET}
        assert cell.sources == 2
        for name, value in expected:
            assert f"{name} {value:.3f}" in printed
    assert printed.splitlines()[-1].endswith("tune_jobs/similarity.py --keep-prompts")


def test_table_8_has_three_columns_with_intervals_and_says_what_was_chosen(
    run: tuple[Path, str],
) -> None:
    table = _table(run[0], "table-8")
    assert table.columns == ("target task", "highest2", "random2", "lowest2")
    (row,) = table.rows
    assert row[0].text == TARGET
    for cell in row[1:]:
        assert cell.value is not None
        assert cell.low is not None
        assert cell.high is not None
        assert cell.low <= cell.value <= cell.high
        assert (cell.done, cell.of) == (2, 2)
    (ranking,) = load_rankings(run[0])
    first = ", ".join(f"{name} {value:.3f}" for name, value in ranking.ranked[:2])
    assert "ranked by the similarity of tuned prompts" in table.notes[0]
    assert table.notes[1] == f"{TARGET}, highest2: {first}"
    assert len(table.notes) == 4


def test_the_ranking_is_that_of_the_prompts_that_were_tuned_first(run: tuple[Path, str]) -> None:
    """NumPy on the kept files; at smoke size there is one learning rate."""
    (ranking,) = load_rankings(run[0])
    assert ranking.by == "prompts"
    bases: dict[str, np.ndarray[Any, Any]] = {}
    with open_results(run[0], read_only=True) as database:
        points = [point for point in database.points() if point.method == BASELINE]
        plain = {run for point in points for run in point.runs}
        for one in database.artifacts("prompt"):
            identity = database.runs([one.owner])[one.owner].identity
            wanted = identity.task != TARGET or one.owner in plain
            if wanted and identity.data_seed == DATA_SEEDS[0]:
                prompt = load_file(run[0] / one.uri)["prompt"].astype(float)
                _, sigma, right = np.linalg.svd(prompt, full_matrices=False)
                k = int(np.argmax(np.cumsum(sigma**2) >= 0.95 * np.sum(sigma**2))) + 1
                bases[identity.task] = right[:k].T
    own = bases[TARGET]
    expected = {
        name: np.linalg.norm(own.T @ bases[name]) / min(own.shape[1], bases[name].shape[1]) ** 0.5
        for name, _ in ranking.ranked
    }
    assert dict(ranking.ranked) == pytest.approx(expected, abs=1e-9)
    assert len(expected) == 10
    assert "prompts of 11 tasks are tuned first" in run[1]


def test_table_7_has_five_pairs_of_either_kind(run: tuple[Path, str]) -> None:
    results, printed = run
    table = _table(results, "table-7")
    kinds = [str(row[0].text) for row in table.rows if row[1].text != "mean"]
    assert kinds == ["similar"] * 5 + ["dissimilar"] * 5
    lines = printed.splitlines()
    start = next(at for at, line in enumerate(lines) if "similar pairs are" in line)
    about, first = lines[start : start + 2]
    assert "similar pairs are (classification, classification)" in about
    assert about in table.notes
    assert first.startswith(f"similar: {table.rows[0][1].text} and {table.rows[0][2].text} 0.")


def test_the_report_lists_the_sources_on_every_cells_page(
    run: tuple[Path, str], tmp_path: Path
) -> None:
    words = ["report", "--results", str(run[0]), "--out", str(tmp_path), "--no-figures"]
    assert analysis_main(words) == 0
    assert "highest2" in (tmp_path / "tables" / "table-8.md").read_text()
    for cell in _cells(run[0]):
        page = (tmp_path / "cells" / f"{cell.key}.html").read_text()
        assert ", ".join(cell.source_tasks) in page


def test_the_paper_is_not_reproduced_by_it(run: tuple[Path, str]) -> None:
    """Other backbone, other tasks, two sources instead of five: nothing of it is compared."""
    results = run[0]
    found = paper_comparisons(_look(results))
    ours = [one for one in found if one.published.place in ("Table 7", "Table 8")]
    assert len(ours) == 12 + 9
    assert {one.status for one in ours} == {NOT_ATTEMPTED}


def test_a_finished_pilot_is_done_at_once_and_its_prompts_can_be_compared(
    run: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    results = run[0]
    before = _points(results)
    words = ["--smoke", "--results", str(results)]
    assert main([*words, "--only", "pilot"]) == 0
    assert "3 of 3 cells" in capsys.readouterr().out
    assert _points(results) == before
    # prompts of the one target were kept, and no pair has both of its tasks
    assert main([*words, "--only", "pairs", "--prompts"]) == 3
    assert "replay with --keep-prompts" in capsys.readouterr().err
