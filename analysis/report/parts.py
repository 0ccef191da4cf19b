"""What the report shows of each section: tables, findings, figures, and notes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.gym.catalogue import Catalogue, load_catalogue
from mpt.study.study import gym_folder

from ..contest.forest import CAPTION, draw_contest, forest_plot
from ..contest.tables import future_work, kept_verdict
from ..contest.verdict import Verdict
from ..figures import Figure, all_figures
from ..figures.drawing.style import save
from ..findings.matrix import Matrix, duel_plot, duel_table
from ..findings.records import findings_of
from ..paper.answers import paper_comparisons
from ..paper.comparison import paper_table
from ..results.sections import Results, Section
from ..tables.costs import UNITS, budget_table, cost_table, search_budget_table
from ..tables.gym import gym_tables
from ..tables.lookup import Lookup
from ..tables.main import result_tables
from ..tables.searches import search_tables
from ..tables.studies import study_table
from ..tables.table import Table
from .blocks import blocks_of
from .index import Part

if TYPE_CHECKING:
    from .report import ReportOptions


def parts_of(recorded: Results, out: Path, options: ReportOptions) -> list[Part]:
    """Return what stands in the report, a part a section; figures are drawn."""
    parts: list[Part] = []
    for section in recorded.sections:
        suffix = section.id if parts else ""
        known = {part.section.gym for part in parts}
        parts.append(_part(section, out, options, suffix, gym=section.gym not in known))
    return parts


def _part(section: Section, out: Path, options: ReportOptions, suffix: str, *, gym: bool) -> Part:
    """Return what stands in the report of one section; `gym`: with the tables of its gym."""
    look = look_of(section, options)
    findings = findings_of(section, look.backbone)
    duels = [] if findings.matrix is None else [duel_table(findings.matrix, look.about)]
    # of the report and not of a study, so in the first section alone
    verdict = kept_verdict(options.contest) if options.contest and not suffix else None
    contest = [] if verdict is None else future_work(verdict)
    every = (*duels, *contest, *all_tables(look, options, gym=gym))
    named = {table.name: table for table in every}
    tables = [one if one in contest else one.of(section.label, suffix) for one in named.values()]
    aliases = [(name, table.name) for name, table in zip(named, tables, strict=True)]
    places = {
        dict(aliases)[f"search-{n}"]: search.cells[0].place
        for n, search in enumerate(section.searches, start=1)
    }
    figures = _figures(section, out, suffix, look.backbone) if options.figures else []
    if findings.matrix is not None and options.figures:
        figures.insert(0, _duel_picture(findings.matrix, look, suffix))
    if verdict is not None and options.figures:
        figures.insert(0, _contest_picture(verdict, out))
    return Part(
        section=section,
        findings=findings,
        tables=tables,
        figures=figures,
        blocks=blocks_of(tables, figures, places, suffix),
        notes=_notes(section),
        aliases=[
            *aliases,
            *((f"search:{search_place}", name) for name, search_place in places.items()),
        ],
    )


def _duel_picture(matrix: Matrix, look: Lookup, suffix: str) -> Figure:
    return Figure(
        name=f"duels-{suffix}" if suffix else "duels",
        title=f"Wins–ties–losses of the row against the column ({look.about})",
        caption="Settings in which the interval of the paired difference lies above, around and "
        "below 0; PT is plain prompt tuning.",
        plot=duel_plot(matrix),
    )


def _contest_picture(verdict: Verdict, out: Path) -> Figure:
    svg, _ = save(draw_contest(verdict), out / "figures", "contest")
    return Figure(
        name="contest",
        title=f"Difference to the best multitask learning ({verdict.best_pooled}).",
        caption=CAPTION,
        svg=svg,
        plot=forest_plot(verdict),
    )


def look_of(section: Section, options: ReportOptions) -> Lookup:
    """Return what finds the cells of a section's tables."""
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
    gym = section.studies[0].gym
    if catalogue_of(gym) is not None:
        return list(section.notes)
    absent = f"gym {gym} is not here, so its tables of partitions and tasks are left out"
    return [*section.notes, absent]


def _figures(section: Section, out: Path, suffix: str, backbone: str) -> list[Figure]:
    """Draw all figures of a section; `backbone`: the one of its tables about a single model."""
    return [
        replace(one, row=one.row if one.backbone == backbone else None)
        for one in all_figures(section, out / "figures", suffix)
    ]
