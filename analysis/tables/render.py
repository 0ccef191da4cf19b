"""A table as Markdown, CSV, LaTeX and HTML; every text is escaped for its format.

In Markdown, CSV and LaTeX a text is one line: its line breaks become blanks.

Markdown and HTML link a number to its page; CSV has each part of a cell in a column of its own.
"""

from __future__ import annotations

import csv
import functools
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .table import MISSING, Table, TableCell

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#&$!])")
_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # \textquotedbl needs another encoding of fonts
    "−": "$-$",
    "–": "--",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "φ": r"$\varphi$",
    "·": r"$\cdot$",
    "…": r"\dots{}",
    "°": r"$^\circ$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "ⁿ": "$^{n}$",
    "√": r"$\surd$",
    "κ": r"$\kappa$",
    "½": r"$\frac{1}{2}$",
}
_FORMULA = ("=", "+", "-", "@")
"""A text that begins like this would be run by a spreadsheet."""


def escape_markdown(content: str) -> str:
    """Escape a text for a cell or a paragraph of Markdown."""
    return _MARKDOWN.sub(r"\\\1", " ".join(content.split()))


def escape_latex(content: str) -> str:
    """Escape a text for LaTeX; letters outside of ASCII that are not known here stay.

    An accent that stands behind its letter is joined with it: LaTeX knows the letters alone.
    """
    joined = unicodedata.normalize("NFC", " ".join(content.split()))
    return "".join(_LATEX.get(letter, letter) for letter in joined)


def escape_csv(content: str) -> str:
    """Keep a spreadsheet from taking a text for a formula, by an apostrophe before it."""
    line = " ".join(content.split())
    return f"'{line}" if line.startswith(_FORMULA) else line


def to_markdown(table: Table) -> str:
    """Return the table under its title; links are relative to the folder of the report."""
    lines = [f"### {escape_markdown(table.title)}", ""]
    lines.append(_markdown_row(escape_markdown(column) for column in table.columns))
    lines.append(_markdown_row("---" for _ in table.columns))
    lines += [_markdown_row(map(_markdown_cell, row)) for row in table.rows]
    lines += [f"\n{escape_markdown(line)}" for line in table.legend]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: TableCell) -> str:
    if cell.text is not None:
        body = escape_markdown(cell.text)
        return f"[{body}]({_address(cell.link)})" if cell.link and body else body
    body = escape_markdown(cell.number + cell.marks)
    if cell.link:
        body = f"[{body}]({_address(cell.link)})"
    # the brackets of an interval cannot be taken for a link: no link is named like a number
    return " ".join(part for part in (body, cell.interval, cell.count) if part)


def _address(link: str) -> str:
    """Return an address that ends neither a Markdown link nor a cell."""
    for letter, code in (("%", "%25"), (" ", "%20"), ("(", "%28"), (")", "%29"), ("|", "%7C")):
        link = link.replace(letter, code)
    return link


def to_csv(table: Table) -> str:
    """Return the table with one line a row.

    A column that holds numbers is followed by columns for what its cells have beside them: low,
    high, runs, of, flags. Numbers have all their digits; missing ones are empty.
    """
    parts = [_csv_parts(table, at) for at in range(len(table.columns))]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        escape_csv(f"{column} {part}" if part else column)
        for column, column_parts in zip(table.columns, parts, strict=True)
        for part in column_parts
    )
    for row in table.rows:
        writer.writerow(
            _PARTS[part](cell)
            for cell, column_parts in zip(row, parts, strict=True)
            for part in column_parts
        )
    return file.getvalue()


def _plain(value: float | None) -> str:
    return "" if value is None else repr(value)


_PARTS: Mapping[str, Callable[[TableCell], str]] = {
    "": lambda cell: escape_csv(cell.text) if cell.text is not None else _plain(cell.value),
    "low": lambda cell: _plain(cell.low),
    "high": lambda cell: _plain(cell.high),
    "runs": lambda cell: "" if cell.done is None else str(cell.done),
    "of": lambda cell: "" if cell.of is None else str(cell.of),
    "flags": lambda cell: " ".join(cell.flags),
}


def _csv_parts(table: Table, at: int) -> list[str]:
    cells = [row[at] for row in table.rows]
    return [part for part in _PARTS if not part or any(_PARTS[part](cell) for cell in cells)]


def to_latex(table: Table) -> str:
    """Return a ``table`` environment with a ``tabular`` in it (plain LaTeX, no package)."""
    head = " & ".join(escape_latex(column) for column in table.columns)
    lines = [
        r"\begin{table}",
        rf"\caption{{{escape_latex(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
        r"\hline",
        rf"{head} \\",
        r"\hline",
        *(rf"{' & '.join(map(_latex_cell, row))} \\" for row in table.rows),
        r"\hline",
        r"\end{tabular}",
        *(rf"\par {escape_latex(line)}" for line in table.legend),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: TableCell) -> str:
    if cell.text is not None:
        # a bracket after \\ would be its optional argument
        return f"{{}}{escape_latex(cell.text)}"
    parts = [escape_latex(cell.number + cell.marks), escape_latex(cell.interval), cell.count]
    return " ".join(part for part in parts if part)


def environment(*folders: Path, html: bool = True) -> Environment:
    """Return templates of some folders, with the macros of tables (``table.html.j2``).

    Args:
        *folders: where templates lie.
        html: escape the values of templates for HTML.
    """
    made = Environment(
        loader=FileSystemLoader([Path(__file__).parent / "templates", *folders]),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["missing"] = MISSING
    return made


def to_html(table: Table) -> str:
    """Return a ``section`` with the table in it, named by its id."""
    return cast(str, _macros().section(table).strip())


@functools.cache
def _macros() -> Any:
    return environment().get_template("table.html.j2").module


RENDERERS: Mapping[str, Callable[[Table], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "tex": to_latex,
    "html": to_html,
}
"""File ending → renderer."""
