"""The folder of a report: what is not ours stays, what is ours and stale goes; both pages warn."""

from __future__ import annotations

from pathlib import Path

import pytest
from results_factory import Results

from analysis.__main__ import main

PT = {"a": {13: 0.5, 21: 0.5}}
BETTER = {"a": {13: 0.6, 21: 0.6}}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    made = Results(tmp_path / "results")
    made.point("maml", "cls_to_cls", BETTER, PT)
    return made


def _report(results: Results, out: Path, *more: str) -> int:
    words = ["report", "--results", str(results.root), "--out", str(out), "--no-figures"]
    return main([*words, *more])


def _names(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_a_page_that_no_report_wrote_is_never_overwritten(
    name: str, results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "site"
    out.mkdir()
    (out / name).write_text("<html><title>my own</title></html>")
    assert _report(results, out) == 2
    assert f"holds a {name} that no report wrote; give another folder" in capsys.readouterr().err
    assert _names(out) == {name}
    assert "my own" in (out / name).read_text()


def test_the_next_report_removes_its_own_stale_files_and_no_others(
    results: Results, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    assert _report(results, out, "--copy-records") == 0
    first = _names(out)
    (out / "cells" / "mine.html").write_text("x")
    (out / "tables" / "mine.csv").write_text("x")
    (out / "mine.txt").write_text("x")
    key = results.point("multitask", "cls_to_cls", BETTER, PT)
    assert _report(results, out) == 0
    second = _names(out)
    assert f"cells/{key}.html" in second
    assert {"cells/mine.html", "tables/mine.csv", "mine.txt"} <= second
    assert any(name.startswith("records/") for name in first)
    assert not any(name.startswith("records/") for name in second)
    # a third report that holds less, of another study alone
    other = Results(tmp_path / "other")
    other.point("reptile", "cls_to_cls", BETTER, PT)
    assert _report(other, out) == 0
    third = _names(out)
    assert f"cells/{key}.html" not in third
    assert {"cells/mine.html", "tables/mine.csv", "mine.txt"} <= third
    assert len([name for name in third if name.startswith("cells/")]) == 2


def test_a_list_of_files_that_somebody_edited_removes_nothing_elsewhere(
    results: Results, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    assert _report(results, out) == 0
    (tmp_path / "precious").write_text("x")
    (out / "mine").write_text("x")
    (out / ".report-files").write_text("../precious\ncells/../../precious\nmine\ntables/..\n")
    assert _report(results, out) == 0
    assert (tmp_path / "precious").exists()
    assert (out / "mine").exists()


def test_markdown_warns_of_everything_that_the_page_warns_of(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    for edited in ({}, {"a": "edited"}):  # two studies claim one column: the page says so
        results.point("maml", "cls_to_cls", BETTER, PT, edited=edited)
    results.point("maml", "cls_to_cls", BETTER, PT, smoke=True)
    out = tmp_path / "report"
    assert main(["report", "--results", str(results.root), "--out", str(out)]) == 0
    page, markdown = ((out / name).read_text() for name in ("index.html", "report.md"))
    for text in (
        "These studies may not be compared; each is a section of its own",
        "A number links to the page that says where it comes from",
        "On the choice of records",
        "Missing: ",
        "its numbers mean nothing",
        "The printed ± cannot be the variance over data seeds",
    ):
        assert text in page, text
        assert text in markdown, text


def test_a_gym_that_is_not_here_is_said_and_not_replaced_by_the_published_one(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path / "results")
    results.point("maml", "cls_to_cls", BETTER, PT, gym=str(tmp_path / "moved"))
    out = tmp_path / "report"
    assert _report(results, out) == 0
    for name in ("index.html", "report.md"):
        text = (out / name).read_text()
        assert "moved is not here, so its tables of partitions and tasks are left out" in text
        assert "Table 1. Partitions" not in text
        assert "glue-mrpc" not in text


def test_exports_refuse_endings_that_say_something_else(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, name in (("parquet", "runs.csv"), ("optuna", "points.parquet")):
        words = ["export", kind, "--results", str(results.root), "--out", str(tmp_path / name)]
        assert main(words) == 2
        assert "but must end in" in capsys.readouterr().err
        assert not (tmp_path / name).exists()
