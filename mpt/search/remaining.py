"""What of a job is left to do: points, upstream steps and runs, compared with the database."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mpt.errors import MptError
from mpt.search.cost.plan import RemainingWork, RunWork, TrialWork, run_cost, run_kind, step_kind
from mpt.store.records import point_key
from mpt.study.record import study_record
from mpt.study.specs import FineTuningConfig, TrialSpec
from mpt.trial.files import load_rung
from mpt.trial.runs import (
    PlannedRun,
    RunPack,
    baseline_packs,
    fine_tuning_packs,
    keys_of,
    learned_packs,
    marked_packs,
    member_keys,
    tuned_study,
    upstream_key,
    zero_shot_packs,
)
from mpt.trial.starts.cost import NOTHING, ChoiceWork, choice_of_all, learned_starts
from mpt.upstream.soup import soup_key

if TYPE_CHECKING:
    from mpt.store.artifacts import Artifacts
    from mpt.study.study import OpenStudy, StudyPlan
    from mpt.trial.files import Rung
    from mpt.trial.store import TrialStore


def remaining_work(
    trials: Sequence[TrialSpec],
    studies: Callable[[StudyPlan], OpenStudy],
    store: TrialStore,
    artifacts: Artifacts,
) -> RemainingWork:
    """Compare trials with what is stored; nothing is written.

    Runs that several trials share are counted once, with the first of them.
    """
    count = _Count(store, artifacts)
    by_trial: dict[int, TrialWork] = {}
    for plan in dict.fromkeys(trial.plan for trial in trials):
        study = studies(plan)
        count.take_baseline(study)
        for index, trial in enumerate(trials):
            if trial.plan == plan:
                by_trial[index] = count.take_trial(study, trial)
    return RemainingWork(
        trials=tuple(by_trial[index] for index in range(len(trials))),
        points=sum(len(trial.upstream.rungs) for trial in trials),
        points_there=count.points_there,
        runs=count.runs,
        runs_there=count.runs_there,
        shared=len(count.shared),
        shared_there=sum(count.shared.values()),
        shared_left=tuple(count.shared_left),
    )


class _Count:
    """Counts, one study after the other."""

    def __init__(self, store: TrialStore, artifacts: Artifacts) -> None:
        self._store, self._artifacts = store, artifacts
        self._own: set[tuple[str, int, tuple[str, ...]]] = set()
        self._tuned: set[str] = set()
        self._reached: dict[str, int] = {}
        self._baseline: list[RunPack] = []
        self.shared: dict[str, bool] = {}
        self.shared_left: list[RunWork] = []
        self.points_there = self.runs = self.runs_there = 0

    def take_baseline(self, study: OpenStudy) -> None:
        """Count the baseline's runs that no study before has."""
        packs = self._baseline = baseline_packs(study)
        new = [run for pack in packs for run in pack.runs if run.key not in self.shared]
        stored_keys = self._store.present([run.key for run in new])
        self.shared |= {run.key: run.key in stored_keys for run in new}
        missing = [run for run in new if run.key not in stored_keys]
        if missing:
            self.shared_left.append(_run_work(missing, study))

    def take_trial(self, study: OpenStudy, trial: TrialSpec) -> TrialWork:
        """Count points, upstream steps and own runs of a trial of the study last taken."""
        if trial.upstream.tuned != "prompt":
            return self._take_unlearned(study, trial)
        packs, rungs = self._baseline, trial.upstream.rungs
        members = [""] if trial.learned is None else member_keys(study, trial.learned)
        key = soup_key(members)
        record, stored = study_record(study).key, self._stored(study, key, rungs)
        alike = tuple(keys_of(packs))
        chosen = trial.learned is not None and study.config.downstream.start != "learned"
        # members that are chosen have runs of their own; how many is known only then
        how = study.config.downstream.start
        own_key = f"{key} {how}" if chosen and len(members) > 1 else key
        choosing = NOTHING
        steps, points = 0.0, 0
        reached = {member: self._reached.get(member, 0) for member in members}
        per_point = [run for pack in packs for run in pack.runs]
        unfinished: list[PlannedRun] = []
        self._reached |= {member: max(at, rungs[-1]) for member, at in reached.items()}
        for rung in rungs:
            missing: Sequence[PlannedRun] = ()
            if rung not in stored:
                points += 1
                own = self._rung_packs(study, key, rung, point_key(record, key, rung))
                steps += 0 if own else self._steps_to(study, rung, reached)
                stored_keys = self._store.present(keys_of(own))
                if not own and chosen:
                    choosing = choosing.plus(choice_of_all(study, learned_starts(len(members))))
                missing = [r for p in own for r in p.missing(stored_keys)] if own else per_point
            reached = {member: max(at, rung) for member, at in reached.items()}
            if (own_key, rung, alike) not in self._own:
                self._own.add((own_key, rung, alike))
                self.runs += len(per_point)
                self.runs_there += len(per_point) - len(missing)
                unfinished += missing
        self.points_there += len(rungs) - points
        return TrialWork(
            kind=step_kind(trial.plan.config, trial.upstream.config),
            steps=math.ceil(steps),
            runs=_run_work(unfinished, study, choosing=choosing),
            points=points,
            begin=rungs[-1] - math.ceil(steps),
        )

    def _take_unlearned(self, study: OpenStudy, trial: TrialSpec) -> TrialWork:
        """Count what fine-tuning or zero-shot has to do; studies share their runs."""
        config, own, tuned = trial.upstream.config, study, "nothing"
        if isinstance(config, FineTuningConfig):
            own, tuned = tuned_study(study, config), "weights"
        packs = fine_tuning_packs(own) if tuned == "weights" else zero_shot_packs(own)
        new = [run for pack in packs for run in pack.runs if run.key not in self._tuned]
        self._tuned |= {run.key for run in new}
        stored_keys = self._store.present([run.key for run in new])
        missing = [run for run in new if run.key not in stored_keys]
        stored = len(self._stored(study, upstream_key(study, config), (0,)))
        self.points_there += stored
        self.runs += len(new)
        self.runs_there += len(new) - len(missing)
        return TrialWork(
            kind=step_kind(study.config, config),
            steps=0,
            runs=_run_work(missing, own, tuned=tuned),
            points=1 - stored,
        )

    def _stored(self, study: OpenStudy, upstream: str, rungs: Sequence[int]) -> set[int]:
        """Return the rungs whose points are stored."""
        record = study_record(study).key
        keys = {point_key(record, upstream, rung): rung for rung in rungs}
        return {keys[key] for key in self._store.points(list(keys))}

    def _steps_to(self, study: OpenStudy, rung: int, reached: Mapping[str, int]) -> float:
        """Return the steps to a rung, the mean over members; those that are there have none."""
        steps = [
            0 if self._rung(study, member, rung) is not None else max(0, rung - at)
            for member, at in reached.items()
        ]
        return sum(steps) / len(steps)

    def _rung(self, study: OpenStudy, key: str, steps: int) -> Rung | None:
        """Return a rung whose prompt is stored and whole."""
        try:
            return load_rung(self._store, self._artifacts, key, steps, study.backbone.device)
        except MptError:
            return None

    def _rung_packs(self, study: OpenStudy, key: str, steps: int, point: str) -> list[RunPack]:
        """Return the packs of a rung whose prompt is stored, else none.

        Where targets choose their starts, they must have chosen.
        """
        rung = self._rung(study, key, steps)
        if rung is None:
            return []
        if study.config.downstream.start == "learned":
            return learned_packs(study, rung.prompt)
        choice = self._store.start_choice(point)
        return [] if choice is None else marked_packs(study, rung.prompt, choice)


def _run_work(
    runs: Sequence[PlannedRun],
    study: OpenStudy,
    tuned: str = "prompt",
    choosing: ChoiceWork = NOTHING,
) -> RunWork:
    """Return the work of some runs, and of a choice of starts."""
    down = study.config.downstream
    steps, rows = choosing
    scored: set[object] = set()
    for task in (run.task for run in runs):
        test = len(task.test)
        if tuned == "nothing":  # equal rows have one score
            test = 0 if (task.name, task.test) in scored else test
            scored.add((task.name, task.test))
        taken, read = run_cost(down, tuned, train=len(task.train), dev=len(task.dev), test=test)
        steps, rows = steps + taken, rows + read
    return RunWork(
        kind=run_kind(study.config, tuned),
        runs=len(runs),
        steps=steps,
        rows=rows,
        choosing=choosing,
    )
