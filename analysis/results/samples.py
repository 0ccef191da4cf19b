"""Rows of runs as samples: which run of each (task, data seed) counts, and what is missing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from mpt.metrics.relative_gain import Candidate, or_nan, select_by_dev
from mpt.store.records import Point, ScoreRow, Stop, StudyRecord, lr_order, start_order

from .cells import RUN_COSTS, AskedRun, Cell, Place, Sample, Samples


class RunTable:
    """The runs of many points.

    Args:
        rows: one a (point, run).
    """

    def __init__(self, rows: Iterable[ScoreRow]) -> None:
        self._rows: dict[str, dict[tuple[str, int], list[ScoreRow]]] = {}
        for row in rows:
            own = self._rows.setdefault(row.point, {})
            own.setdefault((row.task, row.data_seed), []).append(row)
        self.problems: list[str] = []
        """What was found wrong with them, one line each."""

    def cell(
        self,
        point: Point,
        baseline_place: Place,
        study: StudyRecord,
        baseline: tuple[Point | None, Samples],
        stop: Stop | None,
    ) -> Cell:
        """Return a point as a cell; `baseline`: its study's point of prompt tuning and samples."""
        tasks = {} if point.status == "diverged" else self.samples(point, study)
        status, note = point.status, point.note
        lacking = any(s.done < len(s.runs) for row in tasks.values() for s in row.values())
        if status == "ok" and stop is not None and lacking:
            status, note = "stopped", stop.text
        return Cell(
            place=dataclasses.replace(baseline_place, method=point.method),
            point=point,
            study=study,
            status=status,
            note=note,
            tasks=tasks,
            baseline=baseline[1],
            baseline_point=None if baseline[0] is None else baseline[0].key,
        )

    def samples(self, point: Point | None, study: StudyRecord) -> Samples:
        """Return task → data seed → sample of all that a study scores; no point has no run."""
        rows = {} if point is None else self._rows.get(point.key, {})
        lrs = study.lrs if point is None else lr_order(point, study)
        starts = study.start_seeds if point is None else start_order(point, study)
        samples_of: dict[str, dict[int, Sample]] = {}
        for task, seed, _ in study.scored:
            own = rows.get((task, seed), ())
            samples_of.setdefault(task, {})[seed] = _sample(
                own, lrs or [row.lr for row in own], starts
            )
        if point is not None:
            self._check(point, rows, samples_of)
        return samples_of

    def _check(
        self, point: Point, rows: dict[tuple[str, int], list[ScoreRow]], samples: Samples
    ) -> None:
        """Note runs that a point names but that its study does not ask for."""
        for (task, seed), own in rows.items():
            known = (
                {asked.key for asked in samples[task][seed].runs}
                if seed in samples.get(task, {})
                else set()
            )
            strange = [row for row in own if row.run not in known]
            if strange:
                self.problems.append(
                    f"point {point.key}: its runs of {task}, data seed {seed}, learning rate "
                    f"{', '.join(f'{row.lr:g}' for row in strange)} are not asked for by its study"
                )


def _sample(rows: Sequence[ScoreRow], lrs: Sequence[float], starts: Sequence[int]) -> Sample:
    by_run = {(row.train_seed, row.lr): row for row in rows}
    by_start = [[by_run.get((start, lr)) for lr in lrs] for start in starts]
    present = [row for of_start in by_start for row in of_start if row is not None]
    count = len(starts) * len(lrs)
    taken: list[ScoreRow] = []
    reason = None
    if len(present) < count:
        reason = f"{count - len(present)} of {count} runs are missing"
    elif not count:
        reason = "no run is there"
    else:
        candidates = [
            _taken([row for row in of_start if row is not None]) for of_start in by_start
        ]
        taken = [one for one in candidates if one is not None]
        if len(taken) < len(candidates):
            whose = "" if len(starts) == 1 else " of a start"
            reason = f"every run{whose} diverged"
    return Sample(
        runs=tuple(
            AskedRun(lr, start, None if row is None else row.run)
            for start, of_start in zip(starts, by_start, strict=True)
            for lr, row in zip(lrs, of_start, strict=True)
        ),
        taken=() if reason else tuple(taken),
        reason=reason,
        cost={n: math.fsum(float(getattr(row, n)) for row in present) for n in RUN_COSTS},
    )


def _taken(rows: Sequence[ScoreRow]) -> ScoreRow | None:
    """Return the run that the recipe takes: best dev score, the earlier rate on ties."""
    candidates = [Candidate(lr=r.lr, dev=or_nan(r.dev), test=or_nan(r.test)) for r in rows]
    best = select_by_dev(candidates)
    return next((row for row, one in zip(rows, candidates, strict=True) if one is best), None)
