"""The four formats of a table, each read back by another parser."""

from __future__ import annotations

import csv
import io
import math
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from analysis.tables.render import RENDERERS, escape_latex, to_csv, to_html, to_latex, to_markdown
from analysis.tables.table import FLAGS, MISSING, Table, TableCell, number, quantity, shown, text

HOSTILE = '=cmd|"x"!A1 </td><script>alert(1)</script> `a` *b* _c_ [d](e) \\end{table} $1 & 5% #~^'


class _Cells(HTMLParser):
    """Collects the text of table cells, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data


def _table(*cells: TableCell) -> Table:
    columns = tuple(f"c{n}" for n in range(len(cells)))
    return Table(name="toy", title="A toy: 50 % & more", columns=columns, rows=(cells,))


def _cells(page: str) -> _Cells:
    parser = _Cells()
    parser.feed(page)
    parser.close()
    return parser


FULL = TableCell(
    value=-16.594, low=-20.0, high=-12.25, done=9, of=12, flags=("near_zero",), link="cells/k.html"
)


def test_html_holds_number_mark_interval_count_and_link() -> None:
    parsed = _cells(to_html(_table(FULL)))
    assert parsed.cells == ["c0", "−16.59†[−20.00, −12.25] 9/12"]
    assert ("a", {"href": "cells/k.html"}) in parsed.tags
    assert FLAGS["near_zero"].text in to_html(_table(FULL))


def test_markdown_holds_the_same_and_a_parser_of_markdown_finds_it() -> None:
    page = MarkdownIt("commonmark").enable("table").render(to_markdown(_table(FULL)))
    parsed = _cells(page)
    assert parsed.cells == ["c0", "−16.59† [−20.00, −12.25] 9/12"]
    assert ("a", {"href": "cells/k.html"}) in parsed.tags


def test_csv_has_each_part_in_its_column_with_all_digits() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(_table(text("x"), FULL)))))
    assert rows == [
        ["c0", "c1", "c1 low", "c1 high", "c1 runs", "c1 of", "c1 flags"],
        ["x", "-16.594", "-20.0", "-12.25", "9", "12", "near_zero"],
    ]


def test_latex_holds_the_row_between_rules() -> None:
    latex = to_latex(_table(text("a"), FULL))
    assert r"{}a & $-$16.59\dag{} [$-$20.00, $-$12.25] 9/12 \\" in latex
    assert r"\caption{A toy: 50 \% \& more}" in latex
    assert latex.count(r"\begin{") == latex.count(r"\end{") == 2


def test_hostile_text_stays_text_in_html() -> None:
    parsed = _cells(to_html(_table(text(HOSTILE))))
    assert parsed.cells[1] == HOSTILE
    assert {tag for tag, _ in parsed.tags} <= {
        "section", "h2", "div", "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip


def test_hostile_text_stays_text_in_markdown() -> None:
    page = MarkdownIt("commonmark").enable("table").render(to_markdown(_table(text(HOSTILE))))
    parsed = _cells(page)
    assert parsed.cells[1] == HOSTILE
    assert {tag for tag, _ in parsed.tags} <= {"h3", "table", "thead", "tbody", "tr", "th", "td"}


def test_line_breaks_in_text_do_not_break_a_row() -> None:
    broken = text("two\nlines\r\nand\ttab")
    assert len(to_markdown(_table(broken)).splitlines()) == 5
    assert r"{}two lines and tab \\" in to_latex(_table(broken))
    assert list(csv.reader(io.StringIO(to_csv(_table(broken)))))[1] == ["two lines and tab"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_spreadsheet_cannot_take_text_for_a_formula(start: str) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(_table(text(f"\t{start}1+1"))))))
    assert rows[1][0] == f"'{start}1+1"
    # a negative number is a number
    assert list(csv.reader(io.StringIO(to_csv(_table(number(-1.5))))))[1] == ["-1.5"]


def test_every_special_letter_of_latex_is_escaped() -> None:
    assert escape_latex(r"\ { } $ & # % _ ^ ~") == (
        r"\textbackslash{} \{ \} \$ \& \# \% \_ \textasciicircum{} \textasciitilde{}"
    )


@pytest.mark.parametrize("ending", sorted(RENDERERS))
def test_a_missing_number_is_a_dash_or_empty_and_never_0(ending: str) -> None:
    page = RENDERERS[ending](_table(number(None), TableCell(done=0, of=8)))
    if ending == "csv":
        assert page.splitlines()[1] == ",,0,8"
    else:
        assert page.count("--" if ending == "tex" else MISSING) >= 2
        assert "0.00" not in page


def test_an_address_cannot_end_a_markdown_link_or_cell() -> None:
    page = to_markdown(_table(TableCell(value=1.0, link="a (b)|c.html")))
    assert "[1.00](a%20%28b%29%7Cc.html)" in page


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(-0.001, 2, "0.00"), (-0.0, 1, "0.0"), (-3.456, 2, "−3.46"), (1234.5, 0, "1234")],
)
def test_numbers_have_a_true_minus_and_no_negative_zero(
    value: float, digits: int, expected: str
) -> None:
    assert shown(value, digits) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (123456, "123456"), (12.34, "12.3"), (0.01234, "0.0123"), (20.0, "20"), (3, "3")],
)
def test_amounts_show_three_digits_and_whole_thousands(value: float, expected: str) -> None:
    assert quantity(value).number == expected


def test_a_count_that_is_a_mean_has_no_decimals_in_any_file() -> None:
    table = _table(quantity(20.0))
    for write in (to_markdown, to_csv, to_html, to_latex):
        assert "20" in write(table)
        assert "20.0" not in write(table)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"value": math.nan}, "must be finite"),
        ({"value": 1.0, "low": 0.0}, "needs both ends"),
        ({"value": 1.0, "low": 2.0, "high": 0.0}, "must ascend"),
        ({"value": 1.0, "text": "x"}, "one only"),
        ({"flags": ("odd",)}, "flag 'odd' is unknown"),
    ],
)
def test_a_cell_refuses_nonsense(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TableCell(**fields)  # type: ignore[arg-type]


def test_a_table_refuses_rows_of_another_length_and_names_that_are_no_file_names() -> None:
    with pytest.raises(ValueError, match="row 0 of toy has 1 cells for 2 columns"):
        Table(name="toy", title="", columns=("a", "b"), rows=((text("x"),),))
    with pytest.raises(ValueError, match=r"name is '\.\./x'"):
        Table(name="../x", title="", columns=(), rows=())


def test_a_mark_stands_behind_its_number_and_is_explained_once_below() -> None:
    cells = (TableCell(value=1.0, flags=("partial",)), TableCell(value=2.0, flags=("partial",)))
    rows = tuple((cell,) for cell in (*cells, TableCell(value=3.0)))
    said = to_markdown(Table(name="t", title="T", columns=("ARG %",), rows=rows))
    assert said.count("§ recorded as partial: tasks were left out") == 1
    assert [line.count("§") for line in said.splitlines() if line.startswith("| ")] == [
        0,
        0,
        1,
        1,
        0,
    ]
    whole = to_markdown(Table(name="t", title="T", columns=("ARG %",), rows=rows[2:]))
    assert "§" not in whole
