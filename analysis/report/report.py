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

from mpt.errors import UsageError
from mpt.words import counted

from ..results.reading import read_results
from ..results.sections import Section
from ..tables.render import to_csv, to_latex, to_markdown
from ..tables.table import Table
from .page import MARK, TITLE


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
    contest: Path | None = None
    """Results directory of a contest against multitask learning; None: none is shown."""
    figures: bool = True
    copy_records: bool = False


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
    recorded = read_results(results, store=options.store, study=options.study)
    backbones = sorted({cell.place.backbone for cell in recorded.cells})
    if options.backbone and options.backbone not in backbones:
        raise UsageError(
            f"--backbone {options.backbone!r} is not in {results}; there are "
            f"{', '.join(backbones)}"
        )
    # drawing and statistics take seconds to import: a command line must not wait for them
    from .index import index_page, markdown_page
    from .parts import parts_of

    try:
        folder = ReportFolder(results, out)
        folder.clear()
        parts = parts_of(recorded, out, options)
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


def _write_cells(section: Section, out: Path, options: ReportOptions) -> int:
    """Write the page of every cell that some table can link to; return how many there are."""
    from .cell_page import RecordFiles, cell_page
    from .parts import look_of

    look = look_of(section, options)
    files = RecordFiles(section, out if options.copy_records else None)
    cells = section.every_rung
    for cell in cells:
        page = cell_page(look, cell, files.sources(cell))
        _write(out / "cells" / f"{cell.key}.html", page)
    return len(cells)


def _write_table(folder: Path, table: Table) -> None:
    _write(folder / f"{table.name}.md", to_markdown(table.below("..")))
    _write(folder / f"{table.name}.csv", to_csv(table))
    _write(folder / f"{table.name}.tex", to_latex(table))


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8", newline="\n")


FOLDERS = ("cells", "tables", "figures", "records")
LIST = ".report-files"
"""Lists the files of the report, so that the next one removes what it does not write again."""
_SIGNS = {"index.html": MARK, "report.md": f"# {TITLE}"}


class ReportFolder:
    """Where a report goes.

    Args:
        results: results directory that it is of.
        out: the folder; it is made.

    Raises:
        UsageError: it is the results directory, or holds a page that is not of a report.
        OSError: it cannot be read or written.
    """

    def __init__(self, results: Path, out: Path) -> None:
        if out.resolve() == results.resolve():
            raise UsageError(
                f"--out {out} is the results directory; give another, or one inside it"
            )
        for name, sign in _SIGNS.items():
            path = out / name
            if path.is_file() and sign not in path.read_text("utf-8", errors="replace")[:1000]:
                raise UsageError(
                    f"--out {out} holds a {name} that no report wrote; give another folder, "
                    "nothing of others is overwritten"
                )
        self._out = out
        self._foreign = self._files() - self._listed()

    def clear(self) -> None:
        """Remove the files of the report before, and make the folders."""
        for name in self._listed() - self._foreign:
            (self._out / name).unlink(missing_ok=True)
        for name in FOLDERS[:3]:
            (self._out / name).mkdir(parents=True, exist_ok=True)

    def keep(self) -> None:
        """List what was written since `clear`."""
        own = sorted(self._files() - self._foreign)
        (self._out / LIST).write_text("".join(f"{name}\n" for name in own), encoding="utf-8")

    def _listed(self) -> set[str]:
        path = self._out / LIST
        names = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return {name for name in names if _inside(name)}

    def _files(self) -> set[str]:
        paths = (path for name in FOLDERS for path in (self._out / name).glob("*"))
        return {path.relative_to(self._out).as_posix() for path in paths if path.is_file()}


def _inside(name: str) -> bool:
    folder, _, file = name.partition("/")
    return folder in FOLDERS and file not in ("", ".", "..") and "/" not in file
