"""The cells of a replay over several upstream seeds: as rows of a table, and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpt.search.display.configurations import interval_text, summary_document
from mpt.study.specs import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpt.search.cells import Cell
    from mpt.search.leaderboard import PointStatus

HEADS = ("seeds", "ARG %", "expected 95 %", "one new run", "test %", "runs")
"""Columns of a replay of which some cell has several upstream seeds."""


def cell_words(cell: Cell) -> list[str]:
    """Return a cell's words below `HEADS`.

    A method that learns nothing upstream has no seeds; its interval is over data seeds.
    """
    scored, of = len(cell.scored), len(cell.entries)
    seeds = f"{scored}" if scored == of else f"{scored}/{of}"
    arg, expected, new_run = "–", "–", "–"
    if cell.summary is not None:
        arg = f"{cell.summary.arg:+.2f}"
        expected = interval_text(cell.summary.expected)
        new_run = interval_text(cell.summary.new_run)
    elif (score := cell.first.score) is not None and score.gain is not None:
        gain = score.gain
        arg = "undefined" if gain.arg_of_defined is None else f"{gain.arg_of_defined:+.2f}"
        if gain.low is not None and gain.high is not None:
            expected = interval_text((gain.low, gain.high))
    upstream = cell.first.trial.learned is not None
    test = "–" if cell.mean_test is None else f"{100 * cell.mean_test:.1f}"
    return [seeds if upstream else "–", arg, expected, new_run, test, str(cell.runs)]


def cell_document(cell: Cell, key: Callable[[PointStatus], str]) -> dict[str, Any]:
    """Return a cell for other programs.

    ``arg`` is the mean over ``seeds``; with one, or none, its interval (``interval``) is over data
    seeds alone, and ``summary`` is None. With several ``summary`` has the intervals of the
    expected ARG and of one new run, and the ARG of each seed.

    Args:
        cell: the cell.
        key: a point's key.
    """
    plan, upstream = cell.first.trial.plan, cell.first.trial.upstream
    summary, score = cell.summary, cell.first.score
    gain = None if score is None else score.gain
    arg = None if gain is None else gain.arg_of_defined
    interval = None if gain is None or gain.low is None else [gain.low, gain.high]
    return {
        "method": upstream.config.method,
        "partition": plan.config.partition,
        "backbone": plan.config.backbone,
        "sources": plan.source_set,
        "source_shots": plan.source_shots,
        "target_shots": plan.target_shots,
        "settings": settings_of(upstream.without_seed().config),
        "steps": cell.first.steps,
        "seeds": list(cell.seeds),
        "of_seeds": len(cell.entries),
        "arg": arg if summary is None else summary.arg,
        "interval": interval if summary is None else summary.expected,
        "summary": None if summary is None else summary_document(summary),
        "mean_test": cell.mean_test,
        "runs": cell.runs,
        "points": [key(entry) for entry in cell.entries],
    }
