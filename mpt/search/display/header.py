"""What stands above a search: what it is, over what, with which seeds, and what it has cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.search.comparison import seed_of
from mpt.search.cost.time_left import clock_text
from mpt.words import counted

if TYPE_CHECKING:
    from mpt.config import StudyConfig
    from mpt.search.job import SearchJob
    from mpt.search.leaderboard import PointStatus, RecordedLeaderboard
    from mpt.store.records import StudyRecord

SMOKE = "a smoke run shows that the path works; its numbers mean nothing"
"""What is said of a smoke run."""


def subject_text(job: SearchJob) -> str:
    """Return which methods are searched or replayed, where and on what."""
    methods = dict.fromkeys(trial.upstream.config.method.upper() for trial in job.trials)
    partitions = dict.fromkeys(plan.config.partition for plan in job.plans)
    backbones = dict.fromkeys(plan.config.backbone for plan in job.plans)
    what = "search" if job.plans[0].role == "validation" else "replay"
    return (
        f"{', '.join(methods)} {what} · {', '.join(partitions)} · backbone {', '.join(backbones)}"
    )


def folder_text(folder: Path | str) -> str:
    """Return the path of a folder from here, where it lies below; a line has room for no more."""
    path, here = Path(folder), Path.cwd()
    return str(path.relative_to(here)) if here in path.parents else str(path)


def score_text(job: SearchJob) -> str:
    """Return what points are scored by."""
    plan, starts = job.trials[0].plan, job.trials[0].plan.config.starts
    return (
        f"ARG (%) over prompt tuning on {counted(len(plan.scored), f'{plan.role} task')} × "
        f"{counted(len(plan.config.data_seeds), 'data seed')}"
    ) + ("" if starts == 1 else f" × {starts} starts")


def studies_text(studies: Sequence[StudyRecord]) -> str:
    """Return which studies a job belongs to: their ids, the first few of them."""
    ids = [study.id for study in studies]
    more = f" and {len(ids) - 4} more" if len(ids) > 4 else ""
    first = studies[0]
    shared = f"{first.precision}, train seed {first.train_seed}"
    shared += "" if first.starts == 1 else f", starts {first.starts}"
    return f"{', '.join(ids[:4])}{more} ({shared})"


def seeds_text(config: StudyConfig) -> str:
    """Return which upstream seeds a study has, and what for."""
    first, *others = config.seeds
    if not others:
        return f"{first} for all"
    fresh = ", ".join(map(str, config.fresh_seeds))
    text = f"{first} for all, {', '.join(map(str, others))} for those that may be the best"
    return f"{text}; the best is reported on {fresh}" if fresh else text


def listed_seeds(job: SearchJob) -> str:
    """Return the upstream seeds of a replay, which every cell has."""
    upstream = (one for one in job.trials if one.learned is not None)
    return f"{', '.join(map(str, dict.fromkeys(seed_of(one) for one in upstream)))} for every cell"


def cost_text(board: RecordedLeaderboard, entries: Sequence[PointStatus]) -> str:
    """Return what some points have cost, each trajectory and run counted once.

    Points that are not stored are passed over.
    """
    stored = [entry for entry in entries if entry.record is not None]
    upstream = {}
    for entry in stored:  # later rungs of a trajectory include the earlier ones
        assert entry.record is not None
        upstream[entry.record.upstream] = entry.record.cost
    steps = sum(cost.steps for cost in upstream.values())
    spent = sum(cost.seconds for cost in upstream.values())
    runs = board.run_costs(stored)
    choosing = {e.record.key: e.record.provenance.get("starts") or {} for e in stored if e.record}
    starts = sum(one.get("seconds", 0.0) for one in choosing.values())
    return (
        f"{steps:.0f} upstream steps ({clock_text(spent)} of computing), "
        f"{runs['runs']:.0f} downstream runs ({clock_text(runs['seconds'])})"
        + (f", starts taken by targets ({clock_text(starts)})" if starts else "")
    )
