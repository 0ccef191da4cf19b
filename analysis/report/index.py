"""The pages that hold everything: ``index.html`` and ``report.md``; findings stand first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from mpt.words import counted

from ..figures import Figure
from ..findings.finding import Finding
from ..findings.records import Findings
from ..published.caveats import CAVEATS
from ..results.sections import Results, Section
from ..tables.render import escape_markdown, to_markdown
from ..tables.table import Table
from .blocks import Block, short_title
from .page import TITLE, render

_WORDS = SimpleNamespace(
    broken="Broken records that were ignored",
    apart="These studies may not be compared; each is a section of its own",
    choice="On the choice of records",
    undrawn="Figures that are missing",
    left_out="Tables without a record",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What the report shows of one section."""

    section: Section
    findings: Findings | None
    """What the records say; None where it is not asked for."""
    tables: Sequence[Table]
    """All, those without a record too."""
    blocks: Sequence[Block]
    """Tables that hold something, with their pictures."""
    figures: Sequence[Figure]
    notes: Sequence[str] = ()
    """What a reader must know about what is shown."""
    aliases: Sequence[tuple[str, str]] = ()
    """(name that a finding uses, name of the table)."""

    @property
    def title(self) -> str:
        """What the section is, and what tells it from the others."""
        name, differs = self.section.name, self.section.differs
        return f"{name}: {differs}" if differs else name

    @property
    def undrawn(self) -> list[str]:
        """The figures that are missing, and why."""
        return [f"{one.title}: Missing: {one.missing}" for one in self.figures if not one.drawn]

    @property
    def left_out(self) -> list[str]:
        """Titles of tables that hold nothing."""
        shown = {block.anchor for block in self.blocks}
        absent = [table.title for table in self.tables if table.name not in shown]
        return list(dict.fromkeys(map(short_title, absent)))

    @property
    def anchor(self) -> str:
        """Name of its place on the page."""
        return f"section-{self.section.id}"

    def links(self, finding: Finding) -> list[Block]:
        """Return the blocks with a finding's numbers that are on the page."""
        names, blocks = dict(self.aliases), {block.anchor: block for block in self.blocks}
        wanted = (names.get(name, name) for name in finding.tables)
        return [blocks[name] for name in wanted if name in blocks]


def markdown_page(results: Results, parts: Sequence[Part]) -> str:
    """Return findings and tables as Markdown, with all that the page warns of."""
    caveats = [f"- {about}: {text}" for about, text in CAVEATS.items()]
    body = [f"# {TITLE}\n"]
    for at, part in enumerate(parts):
        body += [f"## {escape_markdown(part.title)}\n", *_findings(part)]
        if at == 0:
            body += [
                f"{escape_markdown(_extent(results))}\n",
                *_listed(_WORDS.broken, results.problems),
            ]
            if len(parts) > 1:
                body += _listed(_WORDS.apart, [one.title for one in parts])
        body += [
            *_listed(_WORDS.choice, part.notes),
            *(to_markdown(block.table) for block in part.blocks if block.table is not None),
            *_listed(_WORDS.left_out, part.left_out),
            *_listed(_WORDS.undrawn, part.undrawn),
        ]
    return "\n".join([*body, "### Caveats\n", *caveats]) + "\n"


def _findings(part: Part) -> list[str]:
    if part.findings is None:
        return []
    studied = part.findings.studied
    lines = [escape_markdown(line) for line in (studied[0], *studied[2:])]
    body = [f"{line}\n" for line in lines]
    for one in part.findings.findings:
        links = "".join(
            f" [{escape_markdown(link.short)}](tables/{link.anchor}.md)"
            for link in part.links(one)
        )
        body.append(
            f"- **{escape_markdown(one.question)}** {escape_markdown(one.sentence)}{links}"
        )
    last = (part.findings.not_run, studied[1])
    return [*body, "", *(f"{escape_markdown(line)}\n" for line in last if line)]


def index_page(recorded: Results, parts: Sequence[Part]) -> str:
    """Return findings, tables and figures as one page."""
    blocks = [block for part in parts for block in part.blocks]
    pictures = [one for block in blocks for one in (*block.pictures, *block.more)]
    return render(
        "index.html.j2",
        TITLE,
        plots={one.anchor: one.plot for one in pictures if one.plot is not None},
        extent=_extent(recorded),
        problems=recorded.problems,
        parts=parts,
        words=_WORDS,
        caveats=[f"{about}: {text}" for about, text in CAVEATS.items()],
    )


def _extent(results: Results) -> str:
    counts = [cell.counts for cell in results.cells]
    done, of = sum(n for n, _ in counts), sum(n for _, n in counts)
    return (
        f"{counted(len(results.cells), 'cell')}, {done} of the {of} runs asked for. A number "
        "links to the page that says where it comes from. – is missing, never 0."
    )


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    return [f"{title}:\n", *(f"- {escape_markdown(line)}" for line in lines), ""]
