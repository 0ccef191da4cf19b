"""The figures of searches: their points, and their winners on the validation tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mpt.gym.catalogue import PARTITIONS

from ..results.cells import Cell
from ..results.names import in_order
from ..results.sections import Section
from .charts.data import Search
from .charts.from_cells import Group, arg_of
from .charts.from_search import search_of, unshown
from .charts.sensitivity import ablation_path, importance, rung_agreement
from .drawing.ranking import draw_ablation, draw_ranking, draw_rungs
from .drawing.settings import draw_importance, draw_maps, draw_parallel
from .figure import DOT, Figure, beside, by_method, lacks, partial_notes, slug
from .interactive.search import importance_plot, map_plot, parallel_plot, ranking_plot
from .setting_plans import group_plans

_SEEDS = (
    "Dot: mean over the upstream seeds of the choice; line: 95 % of the expected ARG over "
    "upstream and data seeds."
)


def validation_plans(section: Section, cells: Sequence[Cell], suffix: str) -> Iterator[Figure]:
    """Yield the figures of a backbone's searches."""
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
            caption = plan.caption + note if plan.canvas else ""
            named = f"search-{plan.name}-{ending}"
            yield replace(plan, name=named, caption=caption, place=search_place)


def _search_plans(search: Search, root_seed: int, dot: str) -> Iterator[Figure]:
    """Yield the figures of one search; their names lack the search's, `dot` says what one is."""
    label, without = search.title, _without(search)
    yield Figure(
        name="ranking",
        title=f"Ranking: {label}",
        caption=f"All points, best first. {dot} Grey: the interval of the best point.{without}",
        canvas=draw_ranking(search),
        plot=ranking_plot(search) if search.scored else None,
    )
    title = f"Importance of settings: {label}"
    shares = importance(search, root_seed)
    if isinstance(shares, str):
        yield Figure(name="importance", title=title, missing=shares)
    else:
        yield Figure(
            name="importance",
            title=title,
            caption=f"From {shares.points} points; line: range of fANOVA's forests.{without}",
            canvas=draw_importance(shares, title),
            plot=importance_plot(shares),
        )
    yield from _setting_map_plans(search, without)
    caption = f"ARG on validation tasks.{without}"
    title = f"Rank correlation between rungs: {label}"
    agreement = rung_agreement(search)
    if isinstance(agreement, str):
        yield Figure(name="rungs", title=title, missing=agreement)
    else:
        drawn = draw_rungs(agreement, title)
        yield Figure(name="rungs", title=title, caption=caption, canvas=drawn)
    title = f"From worst to best: {label}"
    path = ablation_path(search)
    if isinstance(path, str):
        yield Figure(name="ablation", title=title, missing=path)
    else:
        drawn = draw_ablation(path, title)
        yield Figure(name="ablation", title=title, caption=caption, canvas=drawn)


def _setting_map_plans(search: Search, without: str) -> Iterator[Figure]:
    parallel = f"Settings and score: {search.title}"
    maps = f"Mean ARG of two settings: {search.title}"
    if len(search.varied) < 2 or not search.scored:
        few = f"{len(search.varied)} of its settings vary, two are needed"
        why = few if len(search.varied) < 2 else "no point has a score"
        yield Figure(name="parallel", title=parallel, missing=why)
        yield Figure(name="maps", title=maps, missing=why)
        return
    yield Figure(
        name="parallel",
        title=parallel,
        caption=f"One line a point, yellow: best.{without}",
        canvas=draw_parallel(search),
        plot=parallel_plot(search),
    )
    yield Figure(
        name="maps",
        title=maps,
        caption=f"Mean over the other settings.{without}",
        canvas=draw_maps(search),
        plot=map_plot(search),
    )


def _without(search: Search) -> str:
    reasons = Counter(point.score.note for point in search.without)
    return lacks([f"{count} point(s): {why}" for why, count in reasons.items()])
