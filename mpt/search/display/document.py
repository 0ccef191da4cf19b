"""The result of a search as one JSON document, for other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpt.search.comparison import cells_of, rankings
from mpt.search.control import control_of
from mpt.search.display.configurations import document_of_ranking, summary_document
from mpt.search.leaderboard import PointStatus, ranked
from mpt.study.specs import settings_of
from mpt.trial.score import BAD_SCORE

if TYPE_CHECKING:
    from mpt.search.comparison import Cell, Ranking
    from mpt.search.job import SearchJob
    from mpt.search.leaderboard import Leaderboard
    from mpt.store.records import Point

VERSION = 3
"""Of the document's form: a change that breaks readers counts up."""


def document_of(
    job: SearchJob,
    board: Leaderboard,
    *,
    exit_code: int,
    failures: Mapping[str, str],
    command: str,
) -> dict[str, Any]:
    """Return the result of a search.

    Returns:
        ``version``, ``exit_code``, ``results``, ``title``, ``partial``, ``smoke``, ``stoppers``;
        ``rankings``, one a study and method (see `document_of_ranking`), with ``control``, what
        the best adds to the untrained start, None if that was not run; ``best``, that of the
        only ranking, or None if there are several, no point has an ARG, or it is a smoke run, as
        its numbers mean nothing; ``points``, best first, then those without a score in the order
        of the search (see `_point`); ``cells``, what a
        replay is made of (see `_cell`), none of a search; ``studies``, ``failures``,
        ``cost`` (of all downstream runs, each counted once) and ``next``.
    """
    entries = board.entries()
    order = ranked(entries)
    scored = len(order)
    order += [entry for entry in entries if entry.score is None]
    best = order[0].score if order else None
    ranks = rankings(board, entries)
    ranking_documents = [
        {**document_of_ranking(one, board.point_key), "control": _control(board, entries, one)}
        for one in ranks
    ]
    targets = [entry for entry in entries if entry.trial.plan.role == "target"]
    smoke = any(plan.smoke for plan in job.plans)
    whole = (
        len(ranking_documents) == 1 and best is not None and best.score > BAD_SCORE and not smoke
    )
    return {
        "version": VERSION,
        "exit_code": exit_code,
        "results": str(job.results),
        "title": job.title,
        "partial": list(job.partial),
        "smoke": smoke,
        "stoppers": sorted(job.stoppers),
        "best": ranking_documents[0]["best"] if whole else None,
        "rankings": ranking_documents,
        "cells": [_cell(one, board) for one in cells_of(targets, ranks)],
        "points": [
            _point(entry, board, rank if rank <= scored else None)
            for rank, entry in enumerate(order, start=1)
        ],
        "studies": [
            {name: getattr(study, name) for name in ("id", "key", "partition", "starts")}
            for study in board.studies.values()
        ],
        "failures": [{"trial": name, "reason": reason} for name, reason in failures.items()],
        "cost": board.run_costs(entries),
        "next": command,
    }


def _control(
    board: Leaderboard, entries: Sequence[PointStatus], ranking: Ranking
) -> dict[str, Any] | None:
    """Return ``arg`` of the start, ``added`` by the best (see `Difference`) and ``fresh``."""
    control = control_of(board, entries, ranking)
    return None if control is None else dataclasses.asdict(control)


def _cell(cell: Cell, board: Leaderboard) -> dict[str, Any]:
    """Return one cell of a replay.

    ``arg`` is the mean over ``seeds``; with one, or none, its interval (``interval``) is over data
    seeds alone, and ``summary`` is None. With several ``summary`` has the intervals of the
    expected ARG and of one new run, and the ARG of each seed.
    """
    plan, upstream = cell.first.trial.plan, cell.first.trial.upstream
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
        "arg": cell.arg,
        "interval": cell.interval,
        "summary": None if cell.summary is None else summary_document(cell.summary),
        "mean_test": cell.mean_test,
        "runs": cell.runs,
        "points": [board.point_key(entry) for entry in cell.entries],
    }


def _point(entry: PointStatus, board: Leaderboard, rank: int | None) -> dict[str, Any]:
    """Return one point.

    ``status`` is "ok", "diverged", "stopped" (``note`` says by whom and why) or "missing". ARG and
    interval are in %, over ``tasks.defined`` of ``tasks.of`` tasks; ``score`` is what is ranked
    by. ``cost.upstream`` runs from step 0, so it holds that of the earlier rungs.
    """
    plan, score, record = entry.trial.plan, entry.score, entry.record
    gain = None if score is None else score.gain
    note = "" if entry.stopped is None else entry.stopped.text
    own = "" if record is None else record.note
    return {
        "rank": rank,
        "trial": entry.trial.name,
        "method": entry.trial.upstream.config.method,
        "partition": plan.config.partition,
        "backbone": plan.config.backbone,
        "role": plan.role,
        "settings": dataclasses.asdict(entry.trial.upstream.config),
        "steps": entry.steps,
        "status": _status(entry),
        "note": note if score is None else score.note or own,
        "arg": None if score is None else score.arg,
        "interval": None if score is None else score.interval,
        "tasks": None if gain is None else {"defined": gain.defined, "of": gain.of},
        "score": None if score is None else score.score,
        "mean_test": None if score is None else score.mean_test,
        "runs": None if score is None else score.runs,
        "cost": None
        if record is None
        else _cost(record, board.run_costs([entry], baselines=False)),
        "keys": {
            "study": board.studies[plan].key,
            "point": board.point_key(entry),
            "upstream": board.upstream[entry.index],
            "prompt": None if record is None else record.prompt,
        },
    }


def _cost(record: Point, runs: dict[str, float]) -> dict[str, Any]:
    """Return what a point has cost, and its targets to take their starts, if they do."""
    cost: dict[str, Any] = {"upstream": dataclasses.asdict(record.cost), "downstream": runs}
    if starts := record.provenance.get("starts"):
        cost["starts"] = {k: v for k, v in starts.items() if k != "taken"}
    return cost


def plan_document(
    job: SearchJob, entries: Sequence[PointStatus], lines: Sequence[str]
) -> dict[str, Any]:
    """Return the plan of a search (`--dry-run`).

    Returns:
        ``points`` with settings, steps and whether they are there; ``plan``, the lines.
    """
    return {
        "version": VERSION,
        "results": str(job.results),
        "title": job.title,
        "partial": list(job.partial),
        "trials": job.total[0],
        "plan": list(lines),
        "points": [
            {
                "trial": entry.trial.name,
                "settings": dataclasses.asdict(entry.trial.upstream.config),
                "steps": entry.steps,
                "status": _status(entry),
            }
            for entry in entries
        ],
    }


def _status(entry: PointStatus) -> str:
    if entry.record is not None:
        return str(entry.record.status)
    return "missing" if entry.stopped is None else "stopped"
