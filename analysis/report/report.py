"""The report: everything that a database says, as one static site.

    out/
      index.html            findings, then tables with their pictures; one file, nothing is
                            fetched, and only scripts run whose hashes its policy names
      report.md             the same findings and tables as Markdown
      cells/<key>.html      one page a point: scores, every run, settings, study, commit, versions
      tables/<name>.md .csv .tex
      figures/<name>.svg .png
      records/<key>.json    a point with its study and runs, if they were asked for

Studies that may not be compared (other gym, seeds, number format, recipe, score code; smoke runs;
partial ones) are sections of their own, with tables and figures of their own. Names of files of
all sections but the first end with the section's id.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mpt.errors import UsageError
from mpt.gym.catalogue import Catalogue, load_catalogue
from mpt.study.study import gym_folder
from mpt.words import counted

from ..findings.duels import duel_plot, duel_table
from ..findings.matrix import Matrix
from ..findings.records import findings_of
from ..paper.answers import paper_comparisons
from ..paper.comparison import paper_table
from ..results.cells import Cell
from ..results.reading import load_results
from ..results.sections import Results, Section
from ..tables.costs import UNITS, budget_table, cost_table, search_budget_table
from ..tables.gym import gym_tables
from ..tables.lookup import Lookup
from ..tables.main import result_tables
from ..tables.render import to_csv, to_latex, to_markdown
from ..tables.searches import search_tables, searches
from ..tables.studies import study_table
from ..tables.table import Table
from .blocks import Picture, blocks_of
from .cell_page import cell_page
from .folder import ReportFolder
from .index import Part, index_page, markdown_page
from .records import RecordFiles


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What a report holds beside the tables."""

    store: str | None = None
    """URL of the database; None: the one in the results directory."""
    study: str | None = None
    """First digits of the only study or protocol; None: all."""
    backbone: str | None = None
    """Of the tables that show one model; None chooses (`Lookup`)."""
    budgets: Mapping[str, float] | None = None
    """Cost ("steps", "examples") → budget of the view at equal cost; None: the common one."""
    figures: bool = True
    """Draw the figures too."""
    copy_records: bool = False
    """Put copies of the records into the report."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of a report."""

    index: Path
    tables: int
    figures: int
    cells: int
    problems: tuple[str, ...]
    """What was found broken in the database, one line each."""


def write_report(results: Path, out: Path, options: ReportOptions) -> Written:
    """Read a database and write the report on it; the records are left as they are.

    Raises:
        UsageError: there is no such database, study or backbone, or `out` cannot be written or
            holds a page that no report wrote.
        DataError: no point of a method is recorded.
    """
    recorded = load_results(results, store=options.store, study=options.study)
    backbones = sorted({cell.place.backbone for cell in recorded.cells})
    if options.backbone and options.backbone not in backbones:
        raise UsageError(
            f"--backbone {options.backbone!r} is not in {results}; there are "
            f"{', '.join(backbones)}"
        )
    try:
        folder = ReportFolder(results, out)
        folder.clear()
        parts = _parts(recorded, out, options)
        cells = [_write_cells(section, out, options) for section in recorded.sections]
        for table in (table for part in parts for table in part.tables):
            _write_table(out / "tables", table)
        _write(out / "report.md", markdown_page(recorded, parts))
        _write(out / "index.html", index_page(recorded, parts))
        folder.keep()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageError(f"--out {out} cannot be written ({reason}); give another") from None
    return Written(
        index=out / "index.html",
        tables=sum(len(part.tables) for part in parts),
        figures=sum(figure.address is not None for part in parts for figure in part.figures),
        cells=sum(cells),
        problems=recorded.problems,
    )


def report_lines(results: Path, out: Path, backbone: str, store: str | None = None) -> list[str]:
    """Write the report with tables of one backbone; return what is to be said of it, by line."""
    written = write_report(results, out, ReportOptions(backbone=backbone, store=store))
    return [
        *(f"ignored: {problem}" for problem in written.problems),
        f"report   {counted(written.tables, 'table')}, {counted(written.figures, 'figure')}, "
        f"{counted(written.cells, 'page')} of cells in {written.index}",
    ]


def _parts(recorded: Results, out: Path, options: ReportOptions) -> list[Part]:
    """Return what stands in the report, a part a section; figures are drawn."""
    parts: list[Part] = []
    for section in recorded.sections:
        suffix = section.id if parts else ""
        known = {part.section.gym for part in parts}
        parts.append(_part(section, out, options, suffix, gym=section.gym not in known))
    return parts


def _part(section: Section, out: Path, options: ReportOptions, suffix: str, *, gym: bool) -> Part:
    """Return what stands in the report of one section; `gym`: with the tables of its gym."""
    look = _look(section, options)
    found = findings_of(section, look.backbone)
    duels = [] if found.matrix is None else [duel_table(found.matrix, look.about)]
    named = {table.name: table for table in (*duels, *all_tables(look, options, gym=gym))}
    tables = [table.of(section.label, suffix) for table in named.values()]
    aliases = [(name, table.name) for name, table in zip(named, tables, strict=True)]
    places = {
        dict(aliases)[f"search-{n}"]: cells[0].place
        for n, cells in enumerate(searches(look), start=1)
    }
    figures = _figures(section, out, suffix) if options.figures else []
    if found.matrix is not None and options.figures:
        figures.insert(0, _duel_picture(found.matrix, look, suffix))
    return Part(
        section=section,
        found=found,
        tables=tables,
        figures=figures,
        blocks=blocks_of(tables, figures, places, suffix),
        notes=_notes(section),
        aliases=[*aliases, *((f"search:{place}", name) for name, place in places.items())],
    )


def _duel_picture(matrix: Matrix, look: Lookup, suffix: str) -> Picture:
    return Picture(
        name=f"duels-{suffix}" if suffix else "duels",
        title=f"Wins–ties–losses of the row against the column ({look.about})",
        caption="Settings in which the interval of the paired difference lies above, around and "
        "below 0; PT is plain prompt tuning.",
        plot=duel_plot(matrix),
    )


def _look(section: Section, options: ReportOptions) -> Lookup:
    own = {cell.place.backbone for cell in section.cells}
    return Lookup(section, options.backbone if options.backbone in own else None)


def all_tables(look: Lookup, options: ReportOptions, *, gym: bool = True) -> list[Table]:
    """Return every table of a section, in the report's order; `gym`: those of its gym too."""
    budgets = options.budgets or {}
    replay = [
        *result_tables(look),
        paper_table(paper_comparisons(look)),
        cost_table(look),
        *(budget_table(look, unit, budgets.get(unit)) for unit in UNITS),
    ]
    search = [*search_tables(look), *(search_budget_table(look, unit) for unit in UNITS)]
    if not look.targets():  # a search alone: what there is stands first
        replay, search = search, replay
    known = catalogue_of(look.section.studies[0].gym) if gym else None
    catalogue = [] if known is None else gym_tables(known)
    return [*replay, *search, study_table(look.section), *catalogue]


def catalogue_of(gym: str) -> Catalogue | None:
    """Return the catalogue of a recorded gym; None where its folder is not here.

    Raises:
        DataError: its ``gym.toml`` is malformed.
    """
    folder = gym_folder(gym)
    return load_catalogue(folder) if gym and folder.is_dir() else None


def _notes(section: Section) -> list[str]:
    """Return what a reader must know of a section, its gym included."""
    gym = section.studies[0].gym
    if catalogue_of(gym) is not None:
        return list(section.notes)
    absent = f"gym {gym} is not here, so its tables of partitions and tasks are left out"
    return [*section.notes, absent]


def _figures(section: Section, out: Path, suffix: str) -> list[Picture]:
    from ..figures import all_figures  # matplotlib takes a second to import

    return [
        Picture(
            name=one.name,
            place=one.place,
            plot=one.plot,
            address=None if one.svg is None else f"figures/{quote(one.svg.name)}",
            title=one.title.removesuffix(f" – {section.label}"),
            caption=one.caption if one.svg is not None else f"Missing: {one.missing}",
        )
        for one in all_figures(section, out / "figures", suffix)
    ]


def _write_cells(section: Section, out: Path, options: ReportOptions) -> int:
    """Write the page of every cell that some table can link to; return how many there are."""
    look = _look(section, options)
    files = RecordFiles(section, out if options.copy_records else None)
    cells = shown(section)
    for cell in cells:
        page = cell_page(look, cell, files.sources(cell))
        _write(out / "cells" / f"{cell.key}.html", page)
    return len(cells)


def shown(section: Section) -> list[Cell]:
    """Return every cell that some table can link to: those of the tables and their rungs."""
    rungs = {rung.key: rung for cell in section.cells for rung in section.rungs[cell.key]}
    return list(rungs.values())


def _write_table(folder: Path, table: Table) -> None:
    _write(folder / f"{table.name}.md", to_markdown(table.below("..")))
    _write(folder / f"{table.name}.csv", to_csv(table))
    _write(folder / f"{table.name}.tex", to_latex(table))


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8", newline="\n")
