"""The figures of searches: their points, and their winners on the validation tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from mpt.gym.catalogue import PARTITIONS

from ..results.cells import Cell
from ..results.names import in_order
from ..results.sections import Section
from .charts.data import Search
from .charts.from_cells import Group, arg_of
from .charts.from_search import search_of, unshown
from .charts.sensitivity import RungAgreement, ablation_path, importance, rung_agreement
from .drawing.ranking import draw_ablation, draw_ranking, draw_rungs
from .drawing.settings import draw_importance, draw_maps, draw_parallel
from .drawing.style import Canvas
from .interactive.frame import Plot
from .interactive.search import importance_plot, map_plot, parallel_plot, ranking_plot
from .plan import (
    DOT,
    Plan,
    beside,
    by_method,
    lacks,
    partial_notes,
    slug,
)
from .setting_plans import group_plans

_SEEDS = (
    "Dot: mean over the upstream seeds of the choice; line: 95 % of the expected ARG over "
    "upstream and data seeds."
)
_LINES = "One line a point, yellow: best."


def validation_plans(section: Section, cells: Sequence[Cell], suffix: str) -> Iterator[Plan]:
    """Yield the figures of a backbone's searches.

    Args:
        section: what the cells are from.
        cells: the validation cells of a backbone and edition.
        suffix: ends the files' names.
    """
    places = {cell.place for cell in cells}
    searches = [one for one in section.searches if one.cells[0].place in places]
    best = [one.leader for one in searches]
    for partition in in_order({c.place.partition for c in cells}, PARTITIONS):
        chosen = [c for c in best if c is not None and c.place.partition == partition]
        chosen = [c for c in chosen if c.place.is_plain() and arg_of(c).value is not None]
        if chosen:
            tasks = len({task for cell in chosen for task in cell.tasks})
            group = Group(
                partition=partition,
                cells=by_method(chosen),
                scored=f"{tasks} validation tasks, best point of each search",
            )
            for plan in group_plans(section, group, f"validation-{slug(partition)}{suffix}"):
                yield replace(plan, place=chosen[0].place)
    for one in searches:
        search, own, search_place = search_of(one), one.cells, one.cells[0].place
        extra = "" if search_place.is_plain() else f"-{slug(str(search_place))}"
        ending = f"{slug(search_place.method)}-{slug(search_place.partition)}{suffix}{extra}"
        hidden = unshown(own)
        note = f" Not shown, since no numbers: {', '.join(hidden)}." if hidden else ""
        compared = [one.compared(cell) for cell in own]
        note += beside([*(p.score.note for p in search.scored), *partial_notes(compared)])
        for plan in _search_plans(search, own[0].train_seed, _SEEDS if one.replicated else DOT):
            caption = plan.caption + note if plan.draw else ""
            named = f"search-{plan.name}-{ending}"
            yield replace(plan, name=named, caption=caption, place=search_place)


def _search_plans(search: Search, root_seed: int, dot: str) -> Iterator[Plan]:
    """Yield the figures of one search; their names lack the search's, `dot` says what one is."""
    label, without = search.title, _without(search)
    yield Plan(
        name="ranking",
        title=f"Ranking: {label}",
        caption=f"All points, best first. {dot} Grey: the interval of the best point.{without}",
        draw=partial(draw_ranking, search),
        plot=partial(ranking_plot, search) if search.scored else None,
    )
    title = f"Importance of settings: {label}"
    shares = importance(search, root_seed)
    if isinstance(shares, str):
        yield Plan(name="importance", title=title, missing=shares)
    else:
        yield Plan(
            name="importance",
            title=title,
            caption=f"From {shares.points} points; line: range of fANOVA's forests.{without}",
            draw=partial(draw_importance, shares, title),
            plot=partial(importance_plot, shares),
        )
    yield from _setting_map_plans(search, without)
    yield _found_plan("rungs", f"Rank correlation between rungs: {label}", search, without)
    yield _found_plan("ablation", f"From worst to best: {label}", search, without)


def _found_plan(name: str, title: str, search: Search, without: str) -> Plan:
    """Return the plan of rung correlations or of the ablation path."""
    result = rung_agreement(search) if name == "rungs" else ablation_path(search)
    if isinstance(result, str):
        return Plan(name=name, title=title, missing=result)
    draw = (
        partial(draw_rungs, result, title)
        if isinstance(result, RungAgreement)
        else partial(draw_ablation, result, title)
    )
    return Plan(name=name, title=title, caption=f"ARG on validation tasks.{without}", draw=draw)


def _setting_map_plans(search: Search, without: str) -> Iterator[Plan]:
    few = f"{len(search.varied)} of its settings vary, two are needed"
    kinds: tuple[tuple[str, str, str, Callable[..., Canvas], Callable[..., Plot]], ...] = (
        ("parallel", "Settings and score", _LINES, draw_parallel, parallel_plot),
        ("maps", "Mean ARG of two settings", "Mean over the other settings.", draw_maps, map_plot),
    )
    for name, title, caption, draw, plot in kinds:
        full = f"{title}: {search.title}"
        if len(search.varied) < 2 or not search.scored:
            why = few if len(search.varied) < 2 else "no point has a score"
            yield Plan(name=name, title=full, missing=why)
        else:
            yield Plan(
                name=name,
                title=full,
                caption=caption + without,
                draw=partial(draw, search),
                plot=partial(plot, search),
            )


def _without(search: Search) -> str:
    """Return the end of a caption: how many points have no score, and why."""
    reasons: dict[str, int] = {}
    for point in search.without:
        reasons[point.score.note] = reasons.get(point.score.note, 0) + 1
    return lacks([f"{count} point(s): {why}" for why, count in reasons.items()])
