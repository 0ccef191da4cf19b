"""The report as a reader has it: files on disk, links that lead somewhere, text as text."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from results_factory import Results, flat

from analysis.__main__ import main
from analysis.figures import Figure
from analysis.report.report import ReportOptions, write_report
from analysis.results.reading import read_results
from analysis.results.sections import PAIRS
from mpt.cli.flags import Parser

HOSTILE = "<script>alert('x')</script>\" onload=\"x|[y](javascript:z)"
VOID = {"meta", "img", "br"}
PT = flat({"a": 0.5, HOSTILE: 0.4})
MAML = flat({"a": 0.6, HOSTILE: 0.5})


class _Page(HTMLParser):
    """Checks nesting; collects tags, addresses and ids."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.attributes: set[str] = set()
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == [], f"left open in {path}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """A replay of two methods, a rung of one of them, and a partial search."""
    made = Results(tmp_path / "results of a study")
    made.point("maml", "cls_to_cls", MAML, PT, point={"settings": {"note": HOSTILE}})
    made.point("maml", "cls_to_cls", PT, PT, point={"steps": 50})
    made.point("multitask", "qa_to_qa", MAML, PT, point={"note": HOSTILE})
    made.point("maml", "random_to_random", MAML, PT, role="validation", partial=HOSTILE)
    return made


def _report(results: Results, *more: str) -> Path:
    out = results.root.parent / "report"
    words = ["report", "--results", str(results.root), "--out", str(out), "--no-figures", *more]
    assert main(words) == 0
    return out


def _pages(out: Path) -> dict[Path, _Page]:
    return {path: _Page(path) for path in sorted(out.rglob("*.html"))}


def test_the_report_has_an_index_a_page_a_point_and_every_table_in_three_formats(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _report(results)
    pages = _pages(out)
    assert len(list((out / "cells").glob("*.html"))) == 4
    names = {path.stem for path in (out / "tables").iterdir()}
    wanted = {f"table-{n}" for n in range(1, 12)} | {"paper", "costs", "figure-3", "studies"}
    partial = read_results(results.root).sections[1].id
    wanted |= {f"search-1-{partial}", f"table-2-{partial}"}
    assert wanted <= names
    shown = {"duels", "table-2", "table-2-details", "costs", "studies", f"search-1-{partial}"}
    assert shown <= set(pages[out / "index.html"].ids)
    # what holds nothing is a file for programs, and no empty table on the page
    assert not {f"table-2-{partial}", "table-7", "table-4"} & set(pages[out / "index.html"].ids)
    for name in names:
        assert all((out / "tables" / f"{name}.{end}").is_file() for end in ("md", "csv", "tex"))
    assert capsys.readouterr().out.startswith(f"{len(names)} tables, 0 figures, 4 pages of cells")


def test_every_link_leads_to_a_file_or_section_that_is_there(results: Results) -> None:
    out = _report(results, "--copy-records")
    pages = _pages(out)
    links = [(path, address) for path, page in pages.items() for address in page.addresses]
    records = [address for _, address in links if address.endswith(".json")]
    # 4 points; 16 runs each, of which the baseline's are shared
    assert len(records) == 4 * (1 + 16)
    assert len(list((out / "records").iterdir())) == 4 + 3  # three studies have a baseline
    for path, address in links:
        target, _, section = address.partition("#")
        found = (path.parent / unquote(target)).resolve() if target else path
        assert found.is_file(), address
        if section:
            assert section in pages[found].ids


def test_nothing_is_fetched(results: Results) -> None:
    for page in _pages(_report(results)).values():
        assert not {"link", "iframe", "object", "embed"} & set(page.tags)
        assert not [a for a in page.addresses if "://" in a or a.startswith(("//", "javascript:"))]
        assert not [name for name in page.attributes if name.startswith("on")]


def test_hostile_text_is_shown_as_text_in_every_file(results: Results) -> None:
    out = _report(results)
    for path in out.rglob("*"):
        if path.suffix in (".html", ".md"):
            assert "<script>" not in path.read_text(encoding="utf-8")
    shown = "".join(path.read_text(encoding="utf-8") for path in (out / "cells").iterdir())
    assert shown.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") > 8


def test_the_runs_of_several_downstream_starts_stand_with_their_train_seeds(
    results: Results,
) -> None:
    key = results.point("reptile", "cls_to_cls", MAML, PT, settings={"starts": 2}, smoke=True)
    cells = _report(results) / "cells"
    content = (cells / f"{key}.html").read_text(encoding="utf-8")
    assert "train seed</th>" in content
    assert content.count(">1042<") == 2 * 8  # of the method, and of plain tuning
    assert content.count(">42<") == 2 * 8 + 1  # the study's own stands among the origins too
    assert "So it does at each train seed, and their mean is the score." in content
    others = [page.read_text(encoding="utf-8") for page in cells.iterdir() if key not in page.name]
    assert others
    assert not [page for page in others if "train seed</th>" in page]


def test_a_cells_page_says_where_its_numbers_come_from(results: Results) -> None:
    key = results.point(
        "reptile", "cls_to_cls", MAML, PT, settings={"downstream": {"steps": 777}}, smoke=True
    )
    content = (_report(results) / "cells" / f"{key}.html").read_text(encoding="utf-8")
    made = results.database.points_of([key])[key]
    for part in (
        key, made.study, "abc123", "made by: versions.torch", "2.13.0", "data of a 13",
        "study: settings.downstream.steps", "777", "config: outer_lr", "learned prompt",
        "cost: seconds", *(run[:12] for run in made.runs),
        f"<h1>Reptile on Cls→Cls, target – study {made.study[:8]}, smoke run</h1>",
    ):  # fmt: skip
        assert part in content


def test_numbers_of_the_csv_are_those_of_the_records(results: Results) -> None:
    out = _report(results)
    with (out / "tables" / "table-2.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    # mean of (0.6 − 0.5) / 0.5 and (0.5 − 0.4) / 0.4
    assert float(rows["MAML"]["Cls→Cls"]) == pytest.approx(22.5, rel=1e-12)
    assert rows["MAML"]["Cls→Cls runs"] == "8"
    assert rows["Reptile"]["Cls→Cls"] == ""


def test_records_can_be_copied_into_the_report(results: Results) -> None:
    out = _report(results, "--copy-records")
    moved = out.rename(out.parent / "handed on")
    shutil.rmtree(results.root)
    cell = next(iter((moved / "cells").iterdir()))
    addresses = {address for address in _Page(cell).addresses if address.endswith(".json")}
    records = [json.loads((cell.parent / unquote(one)).read_text()) for one in addresses]
    assert {record["point"]["key"] for record in records} >= {cell.stem}
    for record in records:
        assert len(record["runs"]) == 8
        assert record["study"]["partition"]


def test_a_report_without_copies_needs_nothing_of_the_results(results: Results) -> None:
    out = _report(results)
    assert not (out / "records").exists()
    for page in _pages(out).values():
        assert not [address for address in page.addresses if ".json" in address]


def test_the_records_are_left_as_they_are(results: Results) -> None:
    results.close()
    before = {path: path.stat().st_mtime_ns for path in results.root.rglob("*")}
    _report(results)
    assert {path: path.stat().st_mtime_ns for path in results.root.rglob("*")} == before


def test_a_score_that_somebody_edited_is_named_on_the_page_and_on_stderr(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    key = read_results(results.root).cells[0].tasks["a"][13].runs[0].key
    results.edit("update run set test = 0.99 where key = ?", key)
    out = _report(results)
    said = f"run {str(key)[:8]} (a, data seed 13"
    assert f"ignored: {said}" in capsys.readouterr().err
    assert said in (out / "index.html").read_text(encoding="utf-8")


def test_figures_are_shown_with_their_captions_and_missing_ones_with_the_reason(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figures(_: object, out: Path, suffix: str) -> list[Figure]:
        svg = out / "one.svg"
        svg.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
        return [
            Figure(name="one", title="First", caption="all <of> it", svg=svg),
            Figure(name="two", title="Second", caption="", missing="no <curve> on disk"),
        ]

    monkeypatch.setattr("analysis.report.parts.all_figures", figures)
    out = results.root.parent / "report"
    written = write_report(results.root, out, ReportOptions())
    content = written.index.read_text(encoding="utf-8")
    assert written.figures == 2  # one a section
    assert "figures/one.svg" in _Page(written.index).addresses
    assert "all &lt;of&gt; it" in content
    assert "Second: Missing: no &lt;curve&gt; on disk" in content


def test_similarities_in_the_database_become_table_7(results: Results) -> None:
    body = {"gym": "embedded", "smoke": False, "backbone": "embedded", "about": "what it is of"}
    results.database.put_document(PAIRS, "x", {**body, "pairs": {"similar": [["a", "b", 0.75]]}})
    table = _report(results) / "tables" / "table-7.md"
    assert "0.750" in table.read_text(encoding="utf-8")
    results.edit("update document set body = replace(body, '0.75', '0.95')")
    out = _report(results)
    assert "0.950" not in table.read_text(encoding="utf-8")
    assert f"{PAIRS} &#39;x&#39;: was changed" in (out / "index.html").read_text()


def test_a_budget_on_the_command_line_reaches_its_table(results: Results) -> None:
    out = _report(results, "--budget-steps", "60", "--budget-samples", "1e6")
    for name, allowed, taken in (("budget-steps", 60.0, 50.0), ("budget-samples", 1e6, 400.0)):
        with (out / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = {row["partition"]: row for row in csv.DictReader(file)}
        unit = name.removeprefix("budget-")
        assert float(rows["Cls→Cls"][f"{unit} allowed"]) == allowed
        assert float(rows["Cls→Cls"][f"MAML {unit}"]) == taken


def test_a_search_alone_has_its_ranking_in_front(tmp_path: Path) -> None:
    made = Results(tmp_path / "results")
    made.point("maml", "random_to_random", MAML, PT, role="validation")
    ids = _Page(_report(made) / "index.html").ids
    assert ids.index("search-1") < ids.index("studies")
    assert "table-2" not in ids


def test_studies_that_may_not_be_compared_are_sections_of_one_report(tmp_path: Path) -> None:
    made = Results(tmp_path / "results")
    others: list[dict[str, Any]] = [
        {}, {"precision": "bfloat16"}, {"partial": "partial: x"}, {"smoke": True},
    ]  # fmt: skip
    for gain, study in enumerate(others):
        scores = flat({"a": 0.5 + 0.05 * gain})
        made.point("maml", "cls_to_cls", scores, flat({"a": 0.5}), **study)
    sections = read_results(made.root).sections
    assert len(sections) == 4
    out = _report(made)
    content = (out / "index.html").read_text(encoding="utf-8")
    values = {}
    for at, section in enumerate(sections):
        assert f'<h2 id="section-{section.id}"' in content
        assert section.differs in content.replace("&#39;", "'")
        name = "table-2" + (f"-{section.id}" if at else "")
        markdown = (out / "tables" / f"{name}.md").read_text(encoding="utf-8")
        assert markdown.splitlines()[0].endswith(f"– {section.label}")
        with (out / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            (row,) = (row for row in csv.DictReader(file) if row["method"] == "MAML")
        values[section.label.partition(", ")[2]] = (
            float(row["Cls→Cls"]),
            row.get("Cls→Cls flags", ""),
        )
    assert values["smoke run"] == (pytest.approx(30.0), "smoke")
    assert values["partial"] == (pytest.approx(20.0), "partial")
    # the tables of the gym are the same for all
    assert len(list((out / "tables").glob("table-9*.md"))) == 1
    only = _report(made, "--study", sections[0].id) / "index.html"
    assert sections[3].id not in only.read_text(encoding="utf-8")


def test_a_study_of_edited_data_keeps_the_directory_reportable_and_is_named(
    tmp_path: Path,
) -> None:
    made = Results(tmp_path / "results")
    for edited in ({}, {"a": "edited"}):
        made.point("maml", "cls_to_cls", MAML, PT, edited=edited)
    out = _report(made)
    studies = read_results(made.root).main.studies
    content = (out / "index.html").read_text(encoding="utf-8")
    assert f"studies {studies[0].id} and {studies[1].id} differ in the data of" in content
    markdown = (out / "tables" / "table-2.md").read_text(encoding="utf-8")
    assert all(f"Cls→Cls \\[{study.id}\\]" in markdown for study in studies)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backbone", "absent"], "--backbone 'absent' is not in"),
        (["--study", "absent"], "--study is 'absent', but must be the first 8 digits"),
        (["--budget-steps", "many"], "must be a number"),
        (["--budget-steps", "0"], "--budget-steps: is '0', but must be a number > 0"),
        (["--budget-samples", "-3"], "is '-3', but must be a number > 0"),
        (["--speed", "1"], "unrecognized arguments"),
    ],
)
def test_flags_that_cannot_be_met_are_usage_errors(
    more: list[str], message: str, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(results.root.parent / "report")
    assert main(["report", "--results", str(results.root), "--out", out, *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("mpt", "report")])
def test_the_usage_names_the_program_that_was_called(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Parser, "command", words)
    with pytest.raises(SystemExit) as end:
        main(["report", "--help"])
    assert end.value.code == 0
    program = "mpt report" if words else "python -m analysis report"
    assert capsys.readouterr().out.startswith(f"usage: {program} ")


def test_a_report_neither_replaces_its_records_nor_a_file(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (results.root, results.root / "foreign"):
        if out != results.root:
            out.write_text("a file")
        assert main(["report", "--results", str(results.root), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert "is the results directory" in err
    assert "cannot be written" in err


def test_no_results_and_no_records_have_their_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    Results(tmp_path / "empty")
    assert main(["report", "--results", str(tmp_path / "absent"), "--out", out]) == 2
    assert main(["report", "--results", str(tmp_path / "empty"), "--out", out]) == 3
    assert capsys.readouterr().err.count("error: ") == 2


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_a_browser_opens_every_page_without_a_message_on_its_console(results: Results) -> None:
    out = _report(results)
    (out / "figures" / "one.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><path d="M0 0h9"/></svg>'
    )
    probe = out / "index.html"
    content = probe.read_text(encoding="utf-8")
    probe.write_text(content.replace("</body>", '<img src="figures/one.svg" alt=""></body>'))
    for path in (probe, next((out / "cells").iterdir())):
        shown = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu",
             "--enable-logging=stderr", "--dump-dom", path.as_uri()],
            capture_output=True, text=True, timeout=500, check=True,
        )  # fmt: skip
        assert "</table>" in shown.stdout
        assert "CONSOLE" not in shown.stderr
