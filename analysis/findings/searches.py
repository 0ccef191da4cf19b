"""What a search says: its leader, what cannot be told from it, and which settings matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpt.metrics.choice import NOTHING_SHOWS
from mpt.words import counted

from ..figures.charts.data import Estimate, name_of, write
from ..figures.charts.from_search import search_of
from ..figures.charts.sensitivity import Importance, importance
from ..results.cells import Place
from ..results.names import method_label, partition_label
from ..results.searched import Configuration, Searched
from ..results.sections import Section
from ..results.summary import summary_of
from .finding import Finding, listed, percent, with_interval

if TYPE_CHECKING:
    from mpt.metrics.replicates import Summary


@dataclass(frozen=True, kw_only=True)
class Leader:
    """The best point of a search, in words."""

    place: Place
    points: int
    settings: str
    """Its own, of those that differ."""
    score: str
    """Its ARG, on upstream seeds it was not chosen on where there are some. With an interval, but
    for a cross-fitted one."""
    where: str
    """What that score is: on which upstream seeds, or how it was come by."""
    chosen: str
    """Its ARG on the upstream seeds that chose it, with an interval if `score` has none; empty if
    `score` is that."""
    extent: str
    """What the score was computed from."""
    tied: str
    """How many others cannot be told from it; ends with "from"."""
    told: bool
    """Whether it can be told from any."""


def search_findings(section: Section) -> tuple[list[Finding], list[str]]:
    """Return which points of a section's searches are best, which settings matter, what lacks.

    Of several searches one finding tells both, so that the other findings are not lost among them.
    """
    searches = {one.cells[0].place: one for one in section.searches}
    leaders = [one for search in searches.values() if (one := _leader(search))]
    shares = {search_place: importance_of(search) for search_place, search in searches.items()}
    told = {search_place: one for search_place, one in shares.items() if one is not None}
    findings = [_best(leaders)] if leaders else []
    findings += [_matter(told)] if told else []
    return findings, [] if searches else ["a search over hyperparameters"]


def _leader(search: Searched) -> Leader | None:
    choice = search.choice
    if choice is None or len(choice.comparison.summaries) < 2:
        return None
    comparison, on = choice.comparison, choice.reported
    leader = comparison.summaries[comparison.leader]
    ties, count = len(comparison.ties), len(comparison.summaries)
    own, cell = search.configurations[int(comparison.leader)], search.cells[0]
    tasks = {task for task, _, _ in cell.study.scored}
    seeds = "one upstream seed" if leader.seeds == 1 else f"{leader.seeds} upstream seeds"
    whole, levels = _score(on.summary or leader, own)
    chosen = percent(leader.arg) if on.summary else whole
    score = whole if on.summary or on.arg is None else percent(on.arg)
    # a race gives some more upstream seeds; among fewer of them a higher mean comes easily
    higher = sum(one.arg > leader.arg for one in comparison.summaries.values())
    return Leader(
        place=cell.place,
        points=count,
        settings=_setting_words(search.configurations, own)
        + (", the highest of those with most upstream seeds" if higher else ""),
        score=score,
        where=f"on the {seeds} of the choice: {NOTHING_SHOWS}" if on.arg is None else on.how,
        chosen="" if on.arg is None else f"{chosen} on the {seeds} of the choice",
        extent=f"validation tasks; interval over {levels}; "
        f"{counted(len(cell.study.data_seeds), 'data seed')}, {counted(len(tasks), 'task')}",
        tied=f"{ties - 1} of the other {count - 1} cannot be told from"
        if leader.seeds > 1
        else "one upstream seed cannot tell the others from",
        told=leader.seeds > 1 and ties < count,
    )


def _score(summary: Summary, own: Configuration) -> tuple[str, str]:
    """Return an ARG with its interval, and what the interval is over."""
    if summary.expected is not None:
        return with_interval(summary.arg, summary.expected), "upstream and data seeds"
    interval = summary.data_only
    if set(summary.by_seed) == set(own):  # one point, whose table has an interval of its own draw
        alone = summary_of(next(iter(own.values())))
        interval = alone.interval if alone else None
    return with_interval(summary.arg, interval), "data seeds alone"


def _best(leaders: Sequence[Leader]) -> Finding:
    tables = tuple(f"search:{one.place}" for one in leaders)
    told = any(one.told for one in leaders)
    if len(leaders) == 1:
        (one,) = leaders
        chosen = f", and of {one.chosen}" if one.chosen else ""
        return Finding(
            question=f"Which point of the search of {_label(one.place)} is best?",
            sentence=f"Of {counted(one.points, 'point')} the leader ({one.settings}) has an ARG "
            f"of {one.score} {one.where}{chosen} ({one.extent}); {one.tied} it.",
            tables=tables,
            told=told,
        )
    alike = len({(one.where, one.extent, one.tied) for one in leaders}) == 1
    parts, places = [], [one.place for one in leaders]
    for one in leaders:
        facts = [one.settings] if alike else [one.settings, one.extent, f"{one.tied} it"]
        score = one.score if alike else f"{one.score} {one.where}"
        facts = [one.chosen, *facts] if one.chosen else facts
        parts.append(f"{_short(one.place, places)} {score} ({'; '.join(facts)})")
    points = counted(sum(one.points for one in leaders), "point")
    first = leaders[0]
    end = f" ({first.where}; {first.extent}); {first.tied} them." if alike else "."
    return Finding(
        question=f"Which points of the searches{_where(places)} are best?",
        sentence=f"Of {points} in {len(leaders)} searches the leaders have an ARG of: "
        f"{listed(parts)}{end}",
        tables=tables,
        told=told,
    )


def _label(search_place: Place) -> str:
    return f"{method_label(search_place.method)} on {partition_label(search_place.partition)}"


def _where(places: Iterable[Place]) -> str:
    """Return " on R→R" if all searches are on one partition; nothing where there are several."""
    labels = {partition_label(search_place.partition) for search_place in places}
    return f" on {labels.pop()}" if len(labels) == 1 else ""


def _short(search_place: Place, places: Iterable[Place]) -> str:
    return method_label(search_place.method) if _where(places) else _label(search_place)


def _setting_words(every: Sequence[Configuration], own: Configuration) -> str:
    def settings(cells: Configuration) -> dict[str, Any]:
        first = next(iter(cells.values()))
        return {**first.config, "steps": first.steps}

    values, rows = settings(own), [settings(cells) for cells in every]
    names = [n for n in values if n != "seed" and len({repr(row.get(n)) for row in rows}) > 1]
    return ", ".join(
        f"{name_of(n)} {write(v) if isinstance(v := values[n], int | float) else v}" for n in names
    )


def importance_of(search: Searched) -> Importance | None:
    """Return how much each setting of a search moves its scores; None where it cannot be told."""
    shares = importance(search_of(search), search.cells[0].train_seed)
    return None if isinstance(shares, str) else shares


def _matter(importances: Mapping[Place, Importance]) -> Finding:
    tables = tuple(f"search:{search_place}" for search_place in importances)
    told = any(_clear(shares) for shares in importances.values())
    scale = "shares of the variation of ARG (fANOVA; range over 5 forests)"
    if len(importances) == 1:
        ((search_place, shares),) = importances.items()
        return Finding(
            question=f"Which settings matter in the search of {_label(search_place)}?",
            sentence=f"{_verdict(shares)}; {scale}: {_ranked_shares(shares)}.",
            tables=tables,
            told=told,
        )
    parts = [
        f"{_short(search_place, importances)}: {_uncapital(_verdict(shares))}, "
        f"{_ranked_shares(shares)}"
        for search_place, shares in importances.items()
    ]
    return Finding(
        question=f"Which settings matter in the searches{_where(importances)}?",
        sentence=f"{scale[0].upper()}{scale[1:]}. {'; '.join(parts)}.",
        tables=tables,
        told=told,
    )


def _uncapital(text: str) -> str:
    return f"{text[0].lower()}{text[1:]}"


def _verdict(shares: Importance) -> str:
    if _clear(shares):
        return f"{name_of(_ranked(shares)[0]).capitalize()} matters most"
    return "No setting stands clearly above the others"


def _ranked(shares: Importance) -> list[str]:
    fanova = shares.evaluators["fANOVA"]
    return sorted(fanova, key=lambda name: -(fanova[name].value or 0.0))


def _ranked_shares(shares: Importance) -> str:
    """Return every setting's share, the largest first, and what they were computed from."""
    fanova = shares.evaluators["fANOVA"]
    parts = [f"{name_of(name)} {_share(fanova[name])}" for name in _ranked(shares)]
    left_out = f", {shares.without} without a score left out" if shares.without else ""
    return f"{listed(parts)} (from {counted(shares.points, 'point')}{left_out})"


def _share(one: Estimate) -> str:
    assert one.value is not None
    ends = f" [{100 * (one.low or 0):.0f}, {100 * (one.high or 0):.0f}]"
    return f"{100 * one.value:.0f} %{ends}"


def _clear(shares: Importance) -> bool:
    """Return whether the first setting's lowest forest is above the second's highest."""
    fanova = shares.evaluators["fANOVA"]
    first, second, *_ = (fanova[name] for name in _ranked(shares))
    return (first.low or 0.0) > (second.high or 0.0)
