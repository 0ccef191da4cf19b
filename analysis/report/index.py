"""The pages that hold everything: ``index.html`` and ``report.md``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mpt.words import counted

from ..published.caveats import CAVEATS
from ..results.sections import Results, Section
from ..tables.render import escape_markdown, to_html, to_markdown
from ..tables.table import Table
from .page import bullets, heading, navigation, page, paragraph, picture

TITLE = "Learning to initialise prompts: results"
_BROKEN = "Broken records that were ignored"
_APART = "These studies may not be compared; each is a section of its own"
_CHOICE = "On the choice of records"
_UNDRAWN = "Figures that are missing"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure, or the reason why it is missing."""

    address: str | None
    """From the index; None if the figure is missing."""
    title: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """What the report shows of one section."""

    section: Section
    tables: Sequence[Table]
    figures: Sequence[Figure]
    notes: Sequence[str] = ()
    """What a reader must know about what is shown."""

    @property
    def title(self) -> str:
        """What the section is, and what tells it from the others."""
        name, differs = self.section.name, self.section.differs
        return f"{name}: {differs}" if differs else name

    @property
    def undrawn(self) -> list[str]:
        """The figures that are missing, and why."""
        return [f"{one.title}: {one.caption}" for one in self.figures if one.address is None]

    @property
    def anchor(self) -> str:
        """Name of its place on the page."""
        return f"section-{self.section.id}"


def markdown_page(found: Results, parts: Sequence[Part]) -> str:
    """Return all tables as Markdown, with all that the page warns of."""
    caveats = [f"- {caveat.about}: {caveat.text}" for caveat in CAVEATS]
    body = [
        f"# {TITLE}\n",
        f"{escape_markdown(_extent(found))}\n",
        *_listed(_BROKEN, found.problems),
    ]
    if len(parts) > 1:
        body += _listed(_APART, [part.title for part in parts])
    for part in parts:
        body += [
            f"## {escape_markdown(part.title)}\n",
            *_listed(_CHOICE, part.notes),
            *map(to_markdown, part.tables),
            *_listed(_UNDRAWN, part.undrawn),
        ]
    return "\n".join([*body, "### Caveats\n", *caveats]) + "\n"


def index_page(recorded: Results, parts: Sequence[Part]) -> str:
    """Return all tables and figures as one page."""
    body = [paragraph(_extent(recorded)), *_said(_BROKEN, recorded.problems)]
    if len(parts) > 1:
        body += [
            paragraph(f"{_APART}:"),
            navigation([(f"#{part.anchor}", part.title) for part in parts]),
        ]
    for part in parts:
        body += _section(part)
    body += [
        '<section id="caveats"><h2>Caveats of a comparison with the paper</h2>',
        bullets([f"{caveat.about}: {caveat.text}" for caveat in CAVEATS]),
        "</section>",
    ]
    return page(TITLE, body)


def _extent(found: Results) -> str:
    """Say how much there is, and how numbers are read."""
    counts = [cell.counts for cell in found.cells]
    done, of = sum(n for n, _ in counts), sum(n for _, n in counts)
    return (
        f"{counted(len(found.cells), 'cell')}, {done} of the {of} runs asked for. A number links "
        "to the page that says where it comes from. – is missing, never 0."
    )


def _section(part: Part) -> list[str]:
    figures = f"figures-{part.section.id}"
    entries = [(f"#{t.name}", re.split(r"[.(:–]", t.title)[0].strip()) for t in part.tables]
    entries += [(f"#{figures}", "Figures"), ("#caveats", "Caveats")]
    drawn = [figure for figure in part.figures if figure.address is not None]
    return [
        heading(part.title, part.anchor),
        *_said(_CHOICE, part.notes),
        navigation(entries),
        *map(to_html, part.tables),
        f'<section id="{figures}"><h2>Figures</h2>',
        *(picture(f.address or "", f.title, f.caption) for f in drawn),
        bullets(part.undrawn),
        "</section>",
    ]


def _said(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    head = f"<details open><summary>{title}: {len(lines)}</summary>"
    return [head + bullets(lines) + "</details>"]


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines of plain text as a list of Markdown; nothing if there is none."""
    if not lines:
        return []
    return [f"{title}:\n", *(f"- {escape_markdown(line)}" for line in lines), ""]
