"""The ranking of configurations over their upstream seeds, in words, as a table and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mpt.study.specs import settings_of

if TYPE_CHECKING:
    from mpt.metrics.differences import Interval
    from mpt.metrics.replicates import Summary
    from mpt.search.comparison import Configuration, Ranking
    from mpt.search.leaderboard import PointStatus

HEADS = ("seeds", "ARG %", "expected 95 %", "one new run")
WIDE_HEADS = ("to the best", "P(best)")
"""Shown where a line has room for them."""
UNSTABLE_SHOWN = 5
"""Unstable configurations that are given with their reasons; `--json` has all."""


def row_of(one: Configuration, *, wide: bool) -> list[str]:
    """Return a configuration's cells below `HEADS`, and `WIDE_HEADS` with `wide`."""
    summary = one.summary
    mark = "*" if summary.unstable else ""
    cells = [
        f"{summary.seeds}{mark}",
        f"{summary.arg:+.1f}",
        interval_text(summary.expected),
        interval_text(summary.new_run),
    ]
    if wide:
        to = summary.to_leader
        cells += ["best" if to is None else interval_text(to.interval), f"{summary.p_best:.2f}"]
    return cells


def rank_of(rank: int, one: Configuration) -> str:
    """Return a rank, with a mark for what cannot be told from the best."""
    return f"{rank}=" if one.summary.tied else str(rank)


def interval_text(interval: Interval | None) -> str:
    """Return an interval in ARG points."""
    return "–" if interval is None else f"[{interval[0]:+.1f}, {interval[1]:+.1f}]"


def findings(ranking: Ranking, name: Callable[[PointStatus], str]) -> Iterator[str]:
    """Say what the ranking shows, one line each."""
    best, comparison = ranking.best, ranking.comparison
    count = len(ranking.configurations)
    yield (
        f"best     {name(best.first)}: ARG {best.summary.arg:+.2f} "
        f"{interval_text(best.summary.expected)} on the seeds it was chosen on"
    )
    on = ranking.reported
    if on.arg is None:
        yield f"reported –: {on.how}"
    else:
        where = "" if on.summary is None else f" {interval_text(on.expected)}"
        yield f"reported ARG {on.arg:+.2f}{where} {on.how}"
    ties = ranking.ties
    if "upstream seeds" not in comparison.levels:
        yield (
            "ties     one upstream seed: nothing here shows how far another seed would be, so no "
            "configuration can be told from the best"
        )
    elif len(ties) == 1:
        yield (
            f"ties     none: the best can be told from the {count - 1} others at 95 % "
            f"(paired, Holm over {comparison.tests} tests)"
        )
    else:
        yield (
            f"ties     {len(ties)} of {count} cannot be told from the best at 95 % (marked =; "
            f"paired, Holm over {comparison.tests} tests)"
        )
        yield f"cheapest of them with as many seeds: {name(ranking.cheapest.first)}"
    yield from unstable_lines(ranking, name)
    if "upstream seeds" in comparison.levels:
        yield f"intervals are over {' and '.join(comparison.levels)}"


def unstable_lines(ranking: Ranking, name: Callable[[PointStatus], str]) -> Iterator[str]:
    """Say which configurations are unstable and why, one line each, `UNSTABLE_SHOWN` at most."""
    unstable = [one for one in ranking.configurations if one.summary.unstable]
    if not unstable:
        return
    yield (
        f"note: {len(unstable)} unstable (*): upstream seeds wider apart than the ties and than "
        "those of the others (F test at 1 %), or a loss that jumped or diverged"
    )
    for one in unstable[:UNSTABLE_SHOWN]:
        yield f"unstable {name(one.first)}: {'; '.join(one.summary.reasons)}"
    if len(unstable) > UNSTABLE_SHOWN:
        yield f"unstable … and {len(unstable) - UNSTABLE_SHOWN} more"


def document_of_ranking(ranking: Ranking, key: Callable[[PointStatus], str]) -> dict[str, Any]:
    """Return a ranking for other programs.

    Returns:
        ``best`` (its ``arg`` is the honest one, ``how`` says why, ``selected_arg`` that of the
        choice), ``ties`` and ``cheapest`` (places in ``configurations``), ``levels``, ``tests``,
        and ``configurations``, best first.
    """
    best, reported = ranking.best, ranking.reported
    places = {one.summary.name: n for n, one in enumerate(ranking.configurations)}
    return {
        "method": best.first.trial.method,
        "partition": best.first.trial.plan.config.partition,
        "best": {
            "place": places[best.summary.name],
            "settings": _settings(best.first),
            "steps": best.first.steps,
            "arg": reported.arg,
            "how": reported.how,
            "interval": reported.expected,
            "new_run": None if reported.summary is None else reported.summary.new_run,
            "selected_arg": best.summary.arg,
        },
        "ties": [places[one.summary.name] for one in ranking.ties],
        "cheapest": places[ranking.cheapest.summary.name],
        "levels": list(ranking.comparison.levels),
        "tests": ranking.comparison.tests,
        "configurations": [
            {
                "settings": _settings(one.first),
                "steps": one.first.steps,
                **summary_document(one.summary),
                "points": {str(seed): key(entry) for seed, entry in one.entries.items()},
            }
            for one in ranking.configurations
        ],
    }


def summary_document(summary: Summary) -> dict[str, Any]:
    """Return a summary for other programs."""
    to = summary.to_leader
    return {
        "arg": summary.arg,
        "by_seed": {str(seed): arg for seed, arg in summary.by_seed.items()},
        "expected": summary.expected,
        "new_run": summary.new_run,
        "data_only": summary.data_only,
        "to_best": None if to is None else dataclasses.asdict(to),
        "tied": summary.tied,
        "p_best": summary.p_best,
        "unstable": summary.unstable,
        "reasons": list(summary.reasons),
        "spread": summary.spread,
    }


def _settings(entry: PointStatus) -> dict[str, Any]:
    return settings_of(entry.trial.upstream.without_seed().config)


def replicated(rankings: Sequence[Ranking]) -> bool:
    """Return whether any configuration has a say on upstream seeds."""
    return any(len(one.entries) > 1 for ranking in rankings for one in ranking.configurations)
