"""ARG of scores from elsewhere (`results.scores`) or from a database, and how it is shown.

Of a file: for each partition and backbone, the tasks are those of the baseline and of the method
together, and the data seeds those that occur in any of the group's lines. A task without a score
at one of them has no relative gain, and neither has one whose baseline is not positive (a Matthews
score may be negative): the ARG then is a mean over the other tasks, and marked so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpt.errors import DataError, UsageError

from ..results.cells import PLAIN, Cell
from ..results.names import (
    BASELINE,
    METHODS,
    PARTITION_LABELS,
    in_order,
)
from ..results.scores import ScoreRow, read_scores
from ..results.sections import Section
from ..results.summary import Summary, summarise, summary_of
from .table import Row, TableCell, number, shown, shown_interval, text

ROOT_SEED = 42
"""Of the bootstrap; an interval is the same on every call."""


@dataclass(frozen=True, kw_only=True)
class ScoredMethod:
    """What a file or database says about one method on one partition."""

    partition: str
    backbone: str
    method: str
    summary: Summary
    done: int
    """Scores that are there."""
    of: int
    """Scores asked for: tasks × data seeds."""
    edition: str = ""
    """See `results.cells.Place`."""
    lacking: str = ""
    """What keeps it from being a whole run, as far as is recorded."""


def scored_methods(path: Path, partition: str | None = None) -> list[ScoredMethod]:
    """Compute the ARG of every method of a file of scores.

    Args:
        path: the file, see `analysis.results.scores`.
        partition: only this one; None for all.

    Raises:
        UsageError: the file is absent, or has no such partition.
        DataError: the file breaks a rule, or lacks the baseline.
    """
    rows = read_scores(path)
    names = in_order((row.partition for row in rows), PARTITION_LABELS)
    if partition is not None and partition not in names:
        raise UsageError(
            f"--partition {partition!r} is not in {path}; there are {', '.join(names)}"
        )
    methods = []
    for name in names if partition is None else [partition]:
        here = [row for row in rows if row.partition == name]
        for backbone in sorted({row.backbone for row in here}):
            group = [row for row in here if row.backbone == backbone]
            methods += _group(path, name, backbone, group)
    return methods


def _group(
    path: Path, partition: str, backbone: str, rows: Sequence[ScoreRow]
) -> list[ScoredMethod]:
    seeds = sorted({row.seed for row in rows})
    baseline = _scores(rows, BASELINE)
    if not any(baseline.values()):
        raise DataError(
            f"{path}: has no score of the baseline (method pt) for {partition}, {backbone}; a "
            "relative gain needs it"
        )
    methods = []
    for method in in_order({row.method for row in rows} - {BASELINE}, METHODS):
        scores = _scores(rows, method)
        tasks = sorted({*baseline, *scores})
        methods.append(
            ScoredMethod(
                partition=partition,
                backbone=backbone,
                method=method,
                summary=summarise(scores, baseline, tasks, seeds, ROOT_SEED),
                done=sum(len(row) for row in scores.values()),
                of=len(tasks) * len(seeds),
            )
        )
    if not methods:
        raise DataError(f"{path}: has no method beside the baseline for {partition}, {backbone}")
    return methods


def recorded_methods(section: Section, partition: str | None = None) -> list[ScoredMethod]:
    """Return the ARG of every method of the plain replay; those without a score are left out.

    Args:
        section: what a database says.
        partition: only this one; None for all.
    """
    where = {} if partition is None else {"partition": partition}
    cells = section.select(role="target", **PLAIN, **where)
    scored = map(_recorded, sorted(cells, key=lambda cell: cell.place.paper_order))
    return [one for one in scored if one is not None]


def _recorded(cell: Cell) -> ScoredMethod | None:
    summary = summary_of(cell)
    if summary is None:
        return None
    rows = [row for point in cell.points for row in point.tasks.values()]
    samples = [sample for row in rows for sample in row.values()]
    return ScoredMethod(
        partition=cell.place.partition,
        backbone=cell.place.backbone,
        method=cell.place.method,
        summary=summary,
        done=sum(bool(sample.taken) for sample in samples),
        of=len(samples),
        edition=cell.place.edition,
        lacking=incomplete(cell),
    )


def incomplete(cell: Cell) -> str:
    """Say what keeps a cell from being a whole run; empty if nothing does."""
    done, of = cell.counts
    for point in cell.points:
        if point.status != "ok":
            return f"{point.status}: {point.note}" if point.note else point.status
    if cell.study.smoke:
        return "smoke run"
    if cell.study.partial is not None:
        return cell.study.partial
    return f"{done} of {of} runs" if done < of else ""


def _scores(rows: Sequence[ScoreRow], method: str) -> dict[str, dict[int, float]]:
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.method == method:
            seeds = scores.setdefault(row.task, {})
            if row.test is not None:
                seeds[row.seed] = row.test
    return scores


def flags_of(summary: Summary) -> tuple[str, ...]:
    """Return the flags that follow from a summary alone."""
    flags = []
    if summary.gain.near_zero:
        flags.append("near_zero")
    if not summary.whole:
        flags.append("some_tasks")
    if summary.value is not None and summary.interval is None:
        flags.append("no_interval")
    if summary.upstream is not None:
        flags.append("several_seeds")
    return tuple(flags)


def seeds_note(summary: Summary) -> str:
    """Say which upstream seeds an ARG is the mean of, and where one more may lie; or nothing."""
    upstream = summary.upstream
    if upstream is None:
        return ""
    listed = ", ".join(f"{seed} ({shown(arg, 2)})" for seed, arg in upstream.by_seed.items())
    one = shown_interval(upstream.new_run, 2)
    more = f"; one new run lies in {one} at 95 %" if one else ""
    return f"mean over {upstream.seeds} upstream seeds: {listed}{more}"


def arg_cell(
    summary: Summary,
    *,
    done: int,
    of: int,
    more_flags: Sequence[str] = (),
    link: str | None = None,
) -> TableCell:
    """Return the cell of an ARG with its interval (`Summary.interval`)."""
    low, high = summary.interval or (None, None)
    return TableCell(
        value=summary.value,
        low=low,
        high=high,
        done=done,
        of=of,
        flags=(*flags_of(summary), *more_flags),
        link=link,
    )


DETAILS = (
    "ARG %",
    "over tasks",
    "median RG %",
    "tasks with RG",
    "near zero",
    "ARG % without them",
)
"""Columns of `detail_cells`."""


def detail_cells(summary: Summary, cell: TableCell) -> Row:
    """Return ARG, its interval over tasks, the median, and the tasks near zero."""
    gain = summary.gain
    return (
        cell,
        TableCell(low=summary.low_tasks, high=summary.high_tasks),
        number(gain.median_of_defined),
        text(f"{gain.defined}/{gain.of}"),
        text(", ".join(gain.near_zero) or "none"),
        number(summary.without_near_zero if gain.near_zero else summary.value),
    )


INTERVALS = (
    "Behind ARG stands its 95 % bootstrap interval over data seeds (2000 resamples, the same draw "
    "for method and baseline, percentiles) and n/N scores; over tasks: the same with tasks drawn "
    "instead. Near zero: tasks whose baseline is below 0.05."
)
