"""What of a job is on disk: courses, points and leaves, compared with the records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mpt.errors import DataError
from mpt.records import LeafStore, PointStore, leaf_key
from mpt.search.cost.kinds import leaf_kind, step_kind
from mpt.search.cost.plan import CourseLoad, LeafLoad, Load
from mpt.storage import digest
from mpt.trial.fine_tuning import FineTuning, fine_tuning_packs, tuned_study
from mpt.trial.objective import Pack, PackRun, baseline_packs, missing_runs, packs_of
from mpt.trial.points import point_identity, point_is_whole
from mpt.trial.rungs import load_rung

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig
    from mpt.search.job import Course, SearchJob
    from mpt.study.study import Study, StudyPlan


def take_stock(job: SearchJob, studies: Callable[[StudyPlan], Study]) -> Load:
    """Compare a job with the records on disk; nothing is written.

    Leaves that several courses share are counted once, with the first of them.

    Args:
        job: the courses.
        studies: opens a study.
    """
    stock = _Stock(job)
    found: dict[int, CourseLoad] = {}
    for plan in job.plans:
        study = studies(plan)
        stock.take_baseline(study)
        for place, course in enumerate(job.courses):
            if course.plan == plan:
                found[place] = stock.take_course(study, course)
    return Load(
        courses=tuple(found[place] for place in range(len(job.courses))),
        points=len(job.points),
        points_there=stock.points_there,
        leaves=stock.leaves,
        leaves_there=stock.leaves_there,
        shared=len(stock.shared),
        shared_there=sum(stock.shared.values()),
        shared_left=tuple(stock.shared_left),
    )


class _Stock:
    """Counts, one study after the other."""

    def __init__(self, job: SearchJob) -> None:
        self._results = job.results
        self._store = LeafStore(job.results, read_only=True)
        self._points = PointStore(job.results, read_only=True)
        self._own: set[str] = set()
        self._reached: dict[str, int] = {}
        self.shared: dict[str, bool] = {}
        self.shared_left: list[LeafLoad] = []
        self.points_there = self.leaves = self.leaves_there = 0

    def take_baseline(self, study: Study) -> None:
        """Count the baseline leaves that no study before has."""
        packs = baseline_packs(study)
        new = [run for pack in packs for run in pack.runs if run.key not in self.shared]
        there = {run.key: self._store.get(run.key) is not None for run in new}
        self.shared |= there
        left = [run for run in new if not there[run.key]]
        if left:
            self.shared_left.append(_leaf_load(left, study))

    def take_course(self, study: Study, course: Course) -> CourseLoad:
        """Count a course's points, upstream steps and own leaves.

        Settings with the same sources share trajectories, and leaves too if they score the same
        tasks: what a course before has is not counted again.
        """
        if isinstance(course.trajectory, FineTuning):
            return self._take_fine_tuning(study, course.trajectory)
        key = study.trajectory_key(course.trajectory.config)
        per_point = [run for pack in baseline_packs(study) for run in pack.runs]
        alike = digest([run.key for run in per_point])
        reached, steps, there = self._reached.get(key, 0), 0, 0
        left: list[PackRun] = []
        rungs = course.trajectory.rungs
        self._reached[key] = max(reached, rungs[-1])
        for rung in rungs:
            missing: Sequence[PackRun] = []
            if self._there(study, key, rung):
                there += 1
            else:
                packs = self._rung_packs(study, key, rung)
                steps += 0 if packs else max(0, rung - reached)
                missing = missing_runs(packs, self._store) if packs else per_point
            reached = max(reached, rung)
            mark = digest([key, rung, alike])
            if mark in self._own:
                continue
            self._own.add(mark)
            self.leaves += len(per_point)
            self.leaves_there += len(per_point) - len(missing)
            left += missing
        return CourseLoad(
            kind=step_kind(course.plan.config, course.trajectory.config),
            steps=steps,
            leaves=_leaf_load(left, study),
            points=len(rungs) - there,
            begin=rungs[-1] - steps,
        )

    def _take_fine_tuning(self, study: Study, trajectory: FineTuning) -> CourseLoad:
        own = tuned_study(study, trajectory.config)
        runs = [run for pack in fine_tuning_packs(own) for run in pack.runs]
        new = [run for run in runs if run.key not in self._own]
        self._own |= {run.key for run in new}
        left = [run for run in new if self._store.get(run.key) is None]
        there = self._there(study, study.trajectory_key(trajectory.config), 0)
        self.leaves += len(new)
        self.leaves_there += len(new) - len(left)
        return CourseLoad(
            kind=step_kind(study.config, trajectory.config),
            steps=0,
            leaves=_leaf_load(left, own, tuned="weights"),
            points=1 - there,
        )

    def _there(self, study: Study, key: str, rung: int) -> bool:
        """Return whether a point is on disk, and count it."""
        point = self._points.get(leaf_key(point_identity(study, key, rung)))
        there = point_is_whole(point, self._store)
        self.points_there += there
        return there

    def _rung_packs(self, study: Study, key: str, steps: int) -> list[Pack]:
        """Return the packs of a rung whose prompt is on disk, else none."""
        try:
            rung = load_rung(self._results, key, steps)
        except DataError:
            return []
        return [] if rung is None else packs_of(study, lambda _: rung.prompt)


def _leaf_load(runs: Sequence[PackRun], study: Study, tuned: str = "prompt") -> LeafLoad:
    """Return the work of some runs."""
    down = study.config.downstream
    return LeafLoad(
        kind=leaf_kind(study.config, tuned),
        runs=len(runs),
        steps=sum(down.steps_on(len(run.task.train)) for run in runs),
        rows=sum(evaluated_rows(run, down) for run in runs),
    )


def evaluated_rows(run: PackRun, down: DownstreamConfig) -> int:
    """Return how many dev and test rows a run evaluates, dev rows once an evaluation."""
    steps = down.steps_on(len(run.task.train))
    dev = min(len(run.task.dev), down.max_dev or len(run.task.dev))
    test = min(len(run.task.test), down.max_test or len(run.task.test))
    return -(-steps // down.eval_every) * dev + test
