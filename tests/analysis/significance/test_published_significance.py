"""The authors' recorded scores: the page about Table 2 says what the command says."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.results.names import partition_label
from analysis.significance.comparisons import VIEWS, Significance, read_significance
from analysis.significance.output import write_files
from analysis.significance.tables import cells_table, record_table
from analysis.tables.arg import ROOT_SEED
from analysis.tables.render import to_markdown

ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = ROOT.parent / "shared" / "scores"
"""The authors' recorded scores, where there is a copy of them beside the checkout."""
PAGE = ROOT / "docs" / "published_significance.md"

pytestmark = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason=f"no recorded scores at {PUBLISHED}"
)


@pytest.fixture(scope="module")
def found() -> Significance:
    return read_significance(PUBLISHED, ROOT_SEED)


def _rows(markdown: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith("|")]


def test_the_tables_of_the_page_are_those_of_the_command(found: Significance) -> None:
    tables = (cells_table(found), record_table(found))
    rows = [row for table in tables for row in _rows(to_markdown(table))]
    assert _rows(PAGE.read_text(encoding="utf-8")) == rows


def test_the_figure_of_the_page_is_that_of_the_command(
    found: Significance, tmp_path: Path
) -> None:
    write_files(found, tmp_path)
    drawn = (tmp_path / "significance.svg").read_bytes()
    assert PAGE.with_suffix(".svg").read_bytes() == drawn


def test_arg_is_as_printed_but_for_fine_tuning_on_non_cls(found: Significance) -> None:
    printed: set[tuple[str, float]] = set()
    other: set[tuple[str, float]] = set()
    for setting in found.settings:
        for method, value in setting.printed.items():
            one = found.table.of(setting, method, "prompt_tuning")
            assert one is not None
            same = abs(one.value - value) <= 0.005 + 1e-9
            (printed if same else other).add((method, value))
    assert other == {("fine_tuning", -35.7)}
    assert len(printed) == 25


def test_the_page_counts_the_verdicts_right(found: Significance) -> None:
    distinct = {one.evidence: one for one in found.table.comparisons}.values()
    signs = {
        reference: [one.sign() for one in distinct if one.reference == reference]
        for reference in ("prompt_tuning", "multitask")
    }
    counts = {
        reference: [each.count(1), each.count(-1), each.count(0)]
        for reference, each in signs.items()
    }
    assert counts == {"prompt_tuning": [7, 3, 16], "multitask": [0, 13, 10]}
    firm = [one for one in distinct if one.sign() and {one.sign(v) for v in VIEWS} == {one.sign()}]
    kept = [one for one in distinct if one.sign("other_tasks_t")]
    assert len(firm) == len(kept) == 9
    assert all(one.sign("other_tasks_log") == one.sign() for one in distinct)
    words = PAGE.read_text(encoding="utf-8")
    for claim in ("7 higher, 3 lower, 16 ties", "0 higher, 13 lower, 10 ties", "9 of the 23"):
        assert claim in words


def test_the_page_names_the_cells_that_are_higher_than_prompt_tuning(found: Significance) -> None:
    higher = {
        (one.method, partition_label(one.setting.partition))
        for one in found.table.comparisons
        if one.reference == "prompt_tuning" and one.sign() == 1
    }
    assert higher == {
        *(("multitask", name) for name in ("Both→Non-Cls", "Non-Cls→Non-Cls")),
        *((method, name) for method in ("multitask", "fomaml") for name in ("QA→QA", "Non-QA→QA")),
        ("fomaml", "Both→Non-Cls"),
    }
