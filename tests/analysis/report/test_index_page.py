"""The page as a browser takes it: what may run, what stands first, what is beside what."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from results_factory import Results, flat

from analysis.__main__ import main
from analysis.report.page import policy, render

PT = {"cls_to_cls": {"a": 0.5, "b": 0.4}, "qa_to_qa": {"c": 0.5}}
GAINS = {"maml": 1.2, "multitask": 1.1}
MOST_BYTES = 6_000_000


class _Document(HTMLParser):
    """Scripts, styles, policy, ids in their order, and tables as rows of texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.policy = ""
        self.ids: list[str] = []
        self.plots: list[str] = []
        self.links: list[str] = []
        self.style_attributes = 0
        self.tables: list[list[list[str]]] = []
        self._tag = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._tag = tag
        self.style_attributes += "style" in found
        self.ids += [found["id"] or ""] if "id" in found else []
        self.plots += [found["data-plot"] or ""] if "data-plot" in found else []
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        if tag == "script":
            self.scripts.append((found, ""))
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._tag = "" if tag in ("script", "style", "td", "th") else self._tag

    def handle_data(self, data: str) -> None:
        if self._tag == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data
        elif self._tag == "style":
            self.styles.append(data)
        elif self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data.strip()

    def held(self, name: str) -> str:
        """Return the text of the script element with this id."""
        (text,) = (text for attributes, text in self.scripts if attributes.get("id") == name)
        return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay of two methods on two partitions and a search of four points, with figures."""
    root = tmp_path_factory.mktemp("page")
    made = Results(root / "results")
    for partition, baseline in PT.items():
        for method, gain in GAINS.items():
            scores = {t: {13: gain * s, 21: gain * s + 0.02} for t, s in baseline.items()}
            made.point(method, partition, scores, flat(baseline))
    for at, score in enumerate((0.5, 0.55, 0.6, 0.7)):
        settings = {"inner_lr": 1.0 + at % 2, "outer_lr": 0.1 * (1 + at // 2)}
        made.point(
            "maml", "random_to_random", flat({"v": score}), flat({"v": 0.5}), role="validation",
            point={"settings": settings, "trajectory": f"s{at}", "steps": 50 * (1 + at % 2)},
        )  # fmt: skip
    out = root / "report"
    assert main(["report", "--results", str(made.root), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def document(report: Path) -> _Document:
    return _Document((report / "index.html").read_text(encoding="utf-8"))


def test_only_hashed_scripts_run_and_the_packed_library_is_one_of_them(
    document: _Document,
) -> None:
    allowed = re.search(r"script-src ([^;]*);", document.policy)
    assert allowed is not None
    assert "unsafe" not in allowed[1]
    hashes = allowed[1].split()
    run = [text for attributes, text in document.scripts if "type" not in attributes]
    library = gzip.decompress(base64.b64decode(document.held("plotly"))).decode()
    assert sorted(hashes) == sorted(map(_hash, [*run, library]))
    assert "plotly.js v" in library[:200]
    assert "default-src 'none'" in document.policy


def test_the_one_style_sheet_is_hashed_and_no_element_is_styled_by_itself(
    document: _Document,
) -> None:
    (style,) = document.styles
    assert _hash(style) in document.policy
    assert document.style_attributes == 0
    # the library's own empty sheet
    assert _hash("") in document.policy


def test_the_page_is_one_small_file_that_refers_to_nothing_outside(
    report: Path, document: _Document
) -> None:
    assert (report / "index.html").stat().st_size <= MOST_BYTES
    assert not [one for one in document.links if "://" in one or one.startswith("//")]


def test_findings_stand_before_every_table(report: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    assert 0 < text.index('class="findings"') < text.index("<table>")
    assert text.index("MAML and MTL against plain prompt tuning") < text.index("Does a learned")
    markdown = (report / "report.md").read_text(encoding="utf-8")
    assert markdown.index("Does a learned start help?") < markdown.index("| --- |")


def test_every_picture_has_its_data_and_stands_after_its_table(document: _Document) -> None:
    plots: dict[str, Any] = json.loads(document.held("plots"))
    assert sorted(plots) == sorted(document.plots)
    order = document.ids.index
    for table, name in (
        ("duels", "picture-duels"),
        ("table-2", "picture-heat-table-2"),
        ("table-2-details", "picture-gain-cls-to-cls"),
        ("search-1", "picture-search-ranking-maml-random-to-random"),
        ("search-1", "picture-search-parallel-maml-random-to-random"),
        ("search-1", "picture-cost-search-1"),
    ):
        later = [one for one in document.ids if one in {"duels", "table-2", "costs", "search-1"}]
        after = [one for one in later if order(one) > order(table)]
        assert order(table) < order(name)
        assert not after or order(name) < order(after[0]), f"{name} stands by another table"


def test_the_gains_of_a_setting_stand_beside_its_rows(report: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    text = text[text.index('id="table-2-details"') :]
    text = text[: text.index("</section>")]
    strips = re.split(r"<h4>(.*?)</h4>", text)[1:]
    assert strips[::2] == ["Cls→Cls", "QA→QA"]
    for strip, own in zip(strips[1::2], ("cls-to-cls", "qa-to-qa"), strict=True):
        beside, *_ = strip.split('<div class="beside">')[1:]
        assert re.findall(r'figure id="picture-(gain-[a-z-]+)"', beside) == [f"gain-{own}"]
        (table,) = _Document(beside).tables
        assert [row[0] for row in table] == ["method", "MAML", "MTL"]
    assert text.count("Behind ARG stands") == 1  # notes are of the whole table
    # on the other pages it is one table
    assert (report / "report.md").read_text().count("| partition | method | ARG % | over") == 1


def test_the_heat_map_holds_the_tables_numbers_and_marks_intervals_without_0(
    document: _Document,
) -> None:
    plots: dict[str, Any] = json.loads(document.held("plots"))
    heat, digits = plots["picture-heat-table-2"]["data"]
    rows = dict(zip(heat["y"], heat["z"], strict=True))
    assert list(rows) == ["MTL", "MAML"]
    columns = dict(zip(heat["x"], rows["MAML"], strict=True))
    # the mean of the two seeds is 1.2 · baseline + 0.01
    assert columns["QA→QA"] == pytest.approx(100 * (0.2 + 0.01 / 0.5))
    assert columns["Cls→Cls"] == pytest.approx(100 * (0.2 + (0.01 / 0.5 + 0.01 / 0.4) / 2))
    assert all("●" in one for row in heat["text"] for one in row)
    written = zip(digits["y"], digits["x"], digits["text"], strict=True)
    assert [words for _, _, words in written] == [
        one for row in heat["text"] for one in row if one
    ]
    assert "2/2 runs" in heat["hovertext"][0][1] or "4/4 runs" in heat["hovertext"][0][1]


def test_no_table_has_an_empty_column_or_row(document: _Document) -> None:
    assert len(document.tables) > 5
    for head, *rows in document.tables:
        assert rows, head
        for at, column in enumerate(head):
            assert any(row[at] not in ("", "–") for row in rows), column


def test_hostile_data_cannot_end_the_element_that_holds_it() -> None:
    hostile = "</script><script>alert(1)</script><!--"
    plots = {"x": {"data": [{"name": hostile}], "layout": {}}}
    text = render(
        "index.html.j2", hostile, plots=plots, parts=[], caveats=[], problems=[], extent="",
        words={},
    )  # fmt: skip
    document = _Document(text)
    assert json.loads(document.held("plots")) == plots
    assert "alert(1)" not in "".join(t for a, t in document.scripts if "type" not in a)


def test_another_script_has_another_hash_and_so_does_not_run() -> None:
    assert policy(["a"], "s") != policy(["b"], "s")
    assert _hash("a") in policy(["a"], "s")
    assert _hash("b") not in policy(["a"], "s")


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_a_browser_draws_the_pictures_without_a_message_on_its_console(report: Path) -> None:
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--window-size=1280,6000", "--virtual-time-budget=20000", "--dump-dom",
         (report / "index.html").as_uri()],
        capture_output=True, text=True, timeout=1700, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in shown.stderr
    assert shown.stdout.count("main-svg") >= 5
    # tables can be sorted: their heads have become buttons
    assert '<th scope="col"><button type="button">method</button></th>' in shown.stdout
