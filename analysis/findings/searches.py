"""What a search says: its leader, what cannot be told from it, and which settings matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mpt.words import counted

from ..figures.charts.data import Estimate, Search, name_of, write
from ..figures.charts.from_search import searches
from ..figures.charts.sensitivity import Importance, importance
from ..results.cells import Cell, Place
from ..results.names import method_label, partition_label
from ..results.searched import Configuration, compared, configurations_of
from ..results.sections import Section
from ..results.summary import summary_of
from .finding import Finding, listed, with_interval


def search_findings(section: Section) -> tuple[list[Finding], list[str]]:
    """Return two findings for each search of a section, and what was not run."""
    groups: dict[Place, list[Cell]] = {}
    for cell in section.select(role="validation"):
        groups.setdefault(cell.place, []).append(cell)
    found = []
    for place, cells in groups.items():
        configurations = configurations_of(cells)
        label = f"{method_label(place.method)} on {partition_label(place.partition)}"
        found += _leader(label, cells, configurations)
        found += _settings(label, place, configurations)
    return found, [] if groups else ["a search over hyperparameters"]


def _leader(
    label: str, cells: Sequence[Cell], configurations: Sequence[Configuration]
) -> list[Finding]:
    comparison = compared(configurations)
    if comparison is None or len(comparison.summaries) < 2:
        return []
    leader = comparison.summaries[comparison.leader]
    ties, count = len(comparison.ties), len(comparison.summaries)
    interval, levels = leader.expected, "upstream and data seeds"
    own = configurations[int(comparison.leader)]
    if interval is None:  # the one of its table
        alone = summary_of(next(iter(own.values())))
        interval, levels = alone.interval if alone else None, "data seeds alone"
    settings = _setting_words(configurations, own)
    # a race gives some more upstream seeds; among fewer of them a higher mean comes easily
    higher = sum(one.arg > leader.arg for one in comparison.summaries.values())
    of = ", the highest of those with most upstream seeds" if higher else ""
    many = counted(leader.seeds, "upstream seed")
    tied = (
        f"{ties - 1} of the other {count - 1} cannot be told from it"
        if leader.seeds > 1
        else "one upstream seed cannot tell the others from it"
    )
    return [
        Finding(
            question=f"Which point of the search of {label} is best?",
            sentence=f"Of {counted(count, 'point')} the leader ({settings}{of}) has an ARG of "
            f"{with_interval(leader.arg, interval)} on the validation tasks ({levels}; {many}, "
            f"{counted(len(cells[0].seeds), 'data seed')}, {counted(len(cells[0].tasks), 'task')}"
            f"); {tied}.",
            tables=(f"search:{cells[0].place}",),
            told=leader.seeds > 1 and ties < count,
        )
    ]


def _setting_words(every: Sequence[Configuration], own: Configuration) -> str:
    """Return a configuration's values of the settings that differ within the search."""
    first = [next(iter(cells.values())) for cells in every]
    cell = next(iter(own.values()))
    rows = [{**one.config, "steps": one.steps} for one in first]
    names = [
        name
        for name in ({**cell.config, "steps": cell.steps})
        if name != "seed" and len({repr(row.get(name)) for row in rows}) > 1
    ]
    values = {**cell.config, "steps": cell.steps}
    return ", ".join(
        f"{name_of(n)} {write(v) if isinstance(v := values[n], int | float) else v}" for n in names
    )


def averaged_search(place: Place, configurations: Sequence[Configuration]) -> Search | None:
    """Return a search whose points are configurations: mean ARG over their upstream seeds."""
    if not configurations:
        return None
    first = [next(iter(cells.values())) for cells in configurations]
    search = searches(first)[place]
    points = [
        replace(
            point,
            settings={name: v for name, v in point.settings.items() if name != "seed"},
            score=_mean(cells),
        )
        for point, cells in zip(search.points, configurations, strict=True)
    ]
    return Search(title=search.title, points=tuple(points))


def _mean(cells: Configuration) -> Estimate:
    summaries = [summary_of(cell) for cell in cells.values()]
    values = [s.value for s in summaries if s is not None and s.comparable and s.value is not None]
    if len(values) < len(cells):
        return Estimate(value=None, note="not every upstream seed has a score")
    return Estimate(value=float(np.mean(values)))


def _settings(label: str, place: Place, configurations: Sequence[Configuration]) -> list[Finding]:
    search = averaged_search(place, configurations)
    if search is None:
        return []
    shares = importance(search, next(iter(configurations[0].values())).train_seed)
    if isinstance(shares, str):
        return []
    fanova = shares.evaluators["fANOVA"]
    ranked = sorted(fanova, key=lambda name: -(fanova[name].value or 0.0))
    parts = [f"{name_of(name)} {_share(fanova[name])}" for name in ranked]
    clear = _clear(shares, ranked)
    verdict = (
        f"{name_of(ranked[0]).capitalize()} matters most"
        if clear
        else "No setting stands clearly above the others"
    )
    return [
        Finding(
            question=f"Which settings matter in the search of {label}?",
            sentence=f"{verdict}; shares of the variation of ARG (fANOVA; range over 5 forests): "
            f"{listed(parts)} (from {counted(shares.points, 'point')}"
            + (f", {shares.without} without a score left out" if shares.without else "")
            + ").",
            tables=(f"search:{place}",),
            told=clear,
        )
    ]


def _share(one: Estimate) -> str:
    assert one.value is not None
    ends = f" [{100 * (one.low or 0):.0f}, {100 * (one.high or 0):.0f}]"
    return f"{100 * one.value:.0f} %{ends}"


def _clear(shares: Importance, ranked: Sequence[str]) -> bool:
    """Return whether the first setting's lowest forest is above the second's highest."""
    fanova = shares.evaluators["fANOVA"]
    first, second = fanova[ranked[0]], fanova[ranked[1]]
    return (first.low or 0.0) > (second.high or 0.0)
