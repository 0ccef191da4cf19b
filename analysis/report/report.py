"""The report: everything that the records say, as one static site.

    out/
      index.html            all tables and figures; nothing in it is fetched or run
      report.md             the same tables as Markdown
      cells/<key>.html      one page a point: scores, every leaf, configuration, commit, versions
      tables/<name>.md .csv .tex
      figures/<name>.svg .png
      records/              copies of the records, if they were asked for

A cell's page links to its records by relative addresses: to the results directory, where they
lie, or (`copy_records`) to copies inside the report, so that it can be handed on alone.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mpt.errors import UsageError
from mpt.gym.catalogue import Catalogue, load_catalogue
from mpt.replay.similarity.pairs import load_pairs
from mpt.study.study import gym_folder

from ..paper.answers import paper_comparisons
from ..paper.comparison import paper_table
from ..published.caveats import CAVEATS
from ..results.cells import Cell
from ..results.reading import Study, load_study
from ..tables.costs import UNITS, budget_table, cost_table, search_budget_table
from ..tables.gym import gym_tables
from ..tables.lookup import Lookup
from ..tables.main import result_tables
from ..tables.render import to_csv, to_html, to_latex, to_markdown
from ..tables.searches import search_tables
from ..tables.table import Table
from .cell_page import Address, cell_page, leaf_path
from .page import bullets, navigation, page, paragraph, picture

TITLE = "Learning to initialise prompts: results"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What a report holds beside the tables."""

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
    """Broken files of the results directory, one line each."""


def write_report(results: Path, out: Path, options: ReportOptions) -> Written:
    """Read a results directory and write the report on it; the records are left as they are.

    Raises:
        UsageError: there is no such directory, or `out` cannot be written.
        DataError: no point is recorded, or records contradict each other.
    """
    study = load_study(results)
    look = Lookup(study, options.backbone)
    if options.backbone and not look.gym:
        names = ", ".join(sorted({cell.place.backbone for cell in study.cells}))
        raise UsageError(f"--backbone {options.backbone!r} is not in {results}; there are {names}")
    tables = all_tables(look, options)
    try:
        _make_folders(results, out)
        figures = _figures(study, out) if options.figures else []
        address = _addresses(study, out, options.copy_records)
        for cell in _shown(study):
            _write(out / "cells" / f"{cell.key}.html", cell_page(look, cell, address))
        for table in tables:
            _write_table(out / "tables", table)
        _write(out / "report.md", _markdown(tables))
        _write(out / "index.html", _index(study, tables, figures))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageError(f"--out {out} cannot be written ({reason}); give another") from None
    return Written(
        index=out / "index.html",
        tables=len(tables),
        figures=sum(figure.address is not None for figure in figures),
        cells=len(_shown(study)),
        problems=study.problems,
    )


def report_lines(results: Path, out: Path, backbone: str) -> list[str]:
    """Write the report with tables of one backbone; return what is to be said of it, by line."""
    written = write_report(results, out, ReportOptions(backbone=backbone))
    return [
        *(f"ignored: {problem}" for problem in written.problems),
        f"report   {written.tables} tables, {written.figures} figures, {written.cells} pages of "
        f"cells in {written.index}",
    ]


def all_tables(look: Lookup, options: ReportOptions) -> list[Table]:
    """Return every table of the report, in its order."""
    pairs = load_pairs(look.study.results)
    budgets = options.budgets or {}
    replay = [
        *result_tables(look, pairs),
        paper_table(paper_comparisons(look, pairs)),
        cost_table(look),
        *(budget_table(look, unit, budgets.get(unit)) for unit in UNITS),
    ]
    search = [*search_tables(look), *(search_budget_table(look, unit) for unit in UNITS)]
    if not look.targets():  # a search alone: what there is stands first
        replay, search = search, replay
    return [*replay, *search, *gym_tables(catalogue_of(look.gym))]


def catalogue_of(gym: str) -> Catalogue:
    """Return the catalogue of a recorded gym; the published one where its folder is not here."""
    if gym == "embedded":
        return load_catalogue(gym_folder(gym))
    folder = Path(gym)
    return load_catalogue(folder if gym and folder.is_dir() else None)


@dataclass(frozen=True, kw_only=True)
class _Figure:
    address: str | None
    """From the index; None if the figure is missing."""
    title: str
    caption: str


def _figures(study: Study, out: Path) -> list[_Figure]:
    from ..figures import all_figures  # matplotlib takes a second to import

    return [
        _Figure(
            address=None if one.svg is None else f"figures/{quote(one.svg.name)}",
            title=one.title,
            caption=one.caption if one.svg is not None else f"Missing: {one.missing}",
        )
        for one in all_figures(study, out / "figures")
    ]


def _make_folders(results: Path, out: Path) -> None:
    if out.resolve() == results.resolve():
        raise UsageError(f"--out {out} is the results directory; give another, or one inside it")
    for name in ("cells", "tables", "figures"):
        (out / name).mkdir(parents=True, exist_ok=True)


def _shown(study: Study) -> list[Cell]:
    """Return every cell that some table can link to: those of the tables and their rungs."""
    cells = {rung.key: rung for cell in study.cells for rung in study.rungs[cell.key]}
    return list(cells.values())


def _addresses(study: Study, out: Path, copy: bool) -> Address:
    """Return how a cell's page finds a record; copy the records if that is asked for."""
    if copy:
        for path in sorted(_record_paths(study)):
            source, target = study.results / path, out / "records" / path
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        base = "../records"
    else:
        base = os.path.relpath(study.results.resolve(), (out / "cells").resolve())
    return lambda path: f"{quote(base)}/{path}"


def _record_paths(study: Study) -> Iterator[str]:
    seen: set[str] = set()
    for cell in _shown(study):
        yield f"points/{cell.key}.json"
        for side in (cell.tasks, cell.baseline):
            samples = (sample for row in side.values() for sample in row.values())
            seen.update(key for sample in samples for _, key in sample.keys)
    yield from (leaf_path(key) for key in seen)


def _write_table(folder: Path, table: Table) -> None:
    _write(folder / f"{table.name}.md", to_markdown(table.below("..")))
    _write(folder / f"{table.name}.csv", to_csv(table))
    _write(folder / f"{table.name}.tex", to_latex(table))


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8", newline="\n")


def _markdown(tables: Sequence[Table]) -> str:
    caveats = [f"- {caveat.about}: {caveat.text}" for caveat in CAVEATS]
    parts = [f"# {TITLE}\n", *map(to_markdown, tables), "### Caveats\n", "\n".join(caveats)]
    return "\n".join(parts) + "\n"


def _index(study: Study, tables: Sequence[Table], figures: Sequence[_Figure]) -> str:
    leaves = [cell.leaves for cell in study.cells]
    done, of = sum(n for n, _ in leaves), sum(n for _, n in leaves)
    entries = [(f"#{table.name}", re.split(r"[.(:]", table.title)[0].strip()) for table in tables]
    entries += [("#figures", "Figures"), ("#caveats", "Caveats")]
    there = [figure for figure in figures if figure.address is not None]
    missing = [f"{f.title}: {f.caption}" for f in figures if f.address is None]
    return page(
        TITLE,
        [
            paragraph(
                f"{len(study.cells)} cells, {done} of the {of} leaves that they name. A number "
                "links to the page that says where it comes from. – is missing, never 0."
            ),
            *_said("Broken files that were ignored", study.problems),
            *_said("On the choice of records", study.notes),
            navigation(entries),
            *map(to_html, tables),
            '<section id="figures"><h2>Figures</h2>',
            *(picture(f.address or "", f.title, f.caption) for f in there),
            bullets(missing),
            "</section>",
            '<section id="caveats"><h2>Caveats of a comparison with the paper</h2>',
            bullets([f"{caveat.about}: {caveat.text}" for caveat in CAVEATS]),
            "</section>",
        ],
    )


def _said(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    head = f"<details open><summary>{title}: {len(lines)}</summary>"
    return [head + bullets(lines) + "</details>"]
