"""Trials of the toy search on a database and files of their own, without Ray."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpt.search.job import SearchJob
from mpt.store.artifacts import Artifacts
from mpt.store.database import Database, open_results
from mpt.store.records import Artifact, Run
from mpt.store.state import read_folder_state, write_folder_state
from mpt.study.record import study_record
from mpt.study.specs import TrialSpec, baseline_trials
from mpt.study.study import OpenStudy
from mpt.trial.files import newest_state
from mpt.trial.opening import open_trial
from mpt.trial.store import TrialStore
from mpt.trial.trial import Trial, TrialOptions


class RecordingStore(TrialStore):
    """Remembers which runs were brought, also those that were stored already."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.brought: list[str] = []

    def add_runs(self, runs: Sequence[Run]) -> list[str]:
        new = super().add_runs(runs)
        self.brought += [run.key for run in runs]
        return new


class Bench:
    """A results directory, and trials that put their results there.

    Args:
        job: whose trials; its results directory is used.
        studies: the open studies.
    """

    def __init__(self, job: SearchJob, *studies: OpenStudy) -> None:
        self.job, self.studies = job, studies
        self.database = open_results(job.results)
        self.store = RecordingStore(self.database)
        self.files = Artifacts(job.files)
        for study in studies:
            self.database.add_study(study_record(study))

    def trial(self, index: int = 0, **options: Any) -> Trial:
        """Return one of the job's trials, in small units unless `options` say otherwise."""
        return self.trial_of(self.job.trials[index], **options)

    def trial_of(self, *specs: TrialSpec, **options: Any) -> Trial:
        """Return a trial; its studies are found by their plans."""
        studies = [next(one for one in self.studies if one.plan == spec.plan) for spec in specs]
        chosen = TrialOptions(**{"chunk_s": 0.0, **options})
        return open_trial(studies, specs, self.store, self.files, chosen)

    def resumed(self, index: int = 0) -> Trial:
        """Return one of the job's trials at its newest checkpoint, as a worker begins it."""
        work = self.trial(index)
        state = newest_state(self.store, self.files, work.owner)
        if state is not None:
            work.load_state(state)
        return work

    def keep(self, work: Trial, name: str) -> None:
        """Store a trial's state in this folder of the results, as its newest checkpoint."""
        folder = self.job.results / name
        write_folder_state(folder, work.state())
        self.store.add_artifact(
            Artifact(kind="checkpoint", owner=work.owner, steps=0, uri=str(folder))
        )

    def run(self, *indices: int, **options: Any) -> None:
        """Run trials of the job to their ends, one after the other."""
        for index in indices:
            list(self.trial(index, **options).units())

    def run_baseline(self, study: OpenStudy | None = None) -> None:
        """Run plain prompt tuning of a study, the last task first."""
        for spec in reversed(baseline_trials((study or self.studies[0]).plan)):
            list(self.trial_of(spec).units())

    @property
    def stored(self) -> int:
        """Runs that are stored."""
        return len(self.database.table("runs"))


@contextmanager
def bench(job: SearchJob, *studies: OpenStudy, results: Path | None = None) -> Iterator[Bench]:
    """Open a bench, in another directory of results if one is given."""
    found = Bench(dataclasses.replace(job, results=results or job.results), *studies)
    with found.database:
        yield found


def through_a_folder(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as it is after it was written and read as a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder_state(Path(folder), state)
        return read_folder_state(Path(folder))
