"""Searches on storage that fails, on nodes unlike the driver's, under clocks that jump."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import search_toys
from drivers import run_rows
from ray.tune.trainable import trainable as tune_trainable
from search_toys import bits, toy_job
from small_disks import in_a_small_disk
from trial_toys import Bench, bench, through_a_folder

from mpt.errors import StorageError, UsageError
from mpt.search.dispatch import TrialGroup, flat_config
from mpt.search.job import SearchJob
from mpt.search.ray import trainable
from mpt.search.ray.trainable import SearchTrial, TrialContext, device_of
from mpt.store.records import Artifact
from mpt.study.record import study_record
from mpt.study.study import OpenStudy
from mpt.trial.trial import TrialOptions
from mpt.upstream import engine


@pytest.fixture(scope="module")
def undisturbed(
    study: OpenStudy, toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the toy search's first trial computes."""
    job = toy_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("undisturbed"))
    with bench(job, study) as found:
        found.run(0)
    return bits(job.results)


# --- storage -----------------------------------------------------------------------------------

_ON_A_FULL_DISK = """
head -c {ballast}k /dev/zero > '{disk}/ballast'
'{python}' '{script}' '{checkpoint}' '{gym}' '{disk}/results' > '{out}/output.txt' 2>&1 && exit 9
echo $? > '{out}/code'
rm '{disk}/ballast'
cp -r '{disk}/results' '{out}/results'
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("free", [300, 800])
def test_a_search_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    free: int, toy_checkpoint: Path, toy_gym: Path, tmp_path: Path, study: OpenStudy
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = _ON_A_FULL_DISK.format(
        ballast=4000 - free,  # KiB; the search writes about one MiB
        disk=disk,
        out=tmp_path,
        python=sys.executable,
        script=search_toys.__file__,
        checkpoint=toy_checkpoint,
        gym=toy_gym,
    )
    in_a_small_disk(disk, script, kib=4000)
    output = (tmp_path / "output.txt").read_text()
    assert (tmp_path / "code").read_text() == "4\n", output
    failed = [line for line in output.splitlines() if line.startswith("failed: ")]
    assert len(failed) >= 2
    assert all("No space left on device; free some there and run" in line for line in failed)
    assert "Traceback" not in output

    job = toy_job(toy_checkpoint, toy_gym, tmp_path / "results")
    before = run_rows(job.results)
    with bench(job, study) as found, bench(job, study, results=tmp_path / "roomy") as roomy:
        for one in (found, roomy):
            for index in range(2):
                list(one.resumed(index).units())
            one.run_baseline()
    assert bits(job.results) == bits(tmp_path / "roomy")
    assert before.items() <= run_rows(job.results).items()


def test_storage_that_comes_and_goes_costs_time_and_changes_no_bit(
    study: OpenStudy, job: SearchJob, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """The results directory is renamed away after each unit: what an unmount looks like."""
    away, ended, done = tmp_path / "away", 0, False
    state: dict[str, Any] = {}
    while not done:
        with bench(job, study) as found:
            work = found.trial(0)
            work.load_state(state)
            done = work.unit().done
            state = through_a_folder(work.state())
            if not done:
                job.results.rename(away)
                with pytest.raises(StorageError, match=r"\(is the storage mounted\?\) and run"):
                    list(work.units())
                assert not job.results.exists(), "something was written in the mount's place"
                away.rename(job.results)
                ended += 1
    assert ended > 8
    assert bits(job.results) == undisturbed


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A disk on which that many files can still be forced to the disk."""
    left = [10**9]
    real = os.fsync

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "injected")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    yield left
    left[0] = 10**9


def test_a_disk_that_fills_up_at_any_file_tears_nothing(
    study: OpenStudy, job: SearchJob, undisturbed: dict[str, Any], full: list[int]
) -> None:
    """Prompts of rungs, and checkpoints after every unit."""
    ended = count = 0
    while True:
        full[0] = 2 + ended // 2
        done = False
        with bench(job, study) as found, contextlib.suppress(StorageError):
            work = found.resumed()
            for _ in work.units():
                count += 1
                found.keep(work, f"checkpoints/{count}")
            done = True
        full[0] = 10**9
        if done:
            break
        ended += 1
    assert ended > 4, "the disk was never full"
    assert bits(job.results) == undisturbed


# --- clocks ------------------------------------------------------------------------------------


def test_clocks_that_jump_change_no_bit(
    study: OpenStudy, job: SearchJob, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(3)
    for name in ("time", "time_ns", "perf_counter", "monotonic"):
        real = getattr(time, name)

        def jumping(real: Any = real) -> Any:
            now = real()
            return now + type(now)(rng.uniform(-0.5, 0.5) * now)

        monkeypatch.setattr(time, name, jumping)
    with bench(job, study) as found:
        found.run(0)
    assert bits(job.results) == undisturbed


# --- nodes -------------------------------------------------------------------------------------


def test_a_gpu_that_torch_cannot_see_is_an_error_that_names_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [0])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("platform.node", lambda: "node-7")
    with pytest.raises(
        UsageError, match=r"node node-7 gave the trial a GPU, but its torch \S+ sees"
    ):
        device_of(None)
    assert device_of("cpu") == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device_of(None) == "cuda"
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [])
    assert device_of(None) == "cpu"  # the node's GPUs are visible, but are not this trial's


@pytest.fixture
def one(job: SearchJob, study: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(trainable, "_open", lambda *_: study)
    monkeypatch.setattr(tune_trainable, "DEFAULT_STORAGE_PATH", str(job.results / "tune"))
    with bench(job, study) as found:
        yield found


def worker(found: Bench, **changes: Any) -> SearchTrial:
    """Return a trial of Tune's on the job's trials, as a worker has it, in this process."""
    groups = tuple(TrialGroup(specs=(t,), indices=(n,)) for n, t in enumerate(found.job.trials))
    settings: dict[str, Any] = {
        "groups": groups,
        "suggestions": None,
        "url": found.job.url,
        "writer": None,
        "files": found.job.files,
        "options": TrialOptions(chunk_s=0.0),
        "device": "cpu",  # else Ray, which is not started, is asked for GPUs
        **changes,
    }

    class Worker(SearchTrial):
        def setup(self, config: dict[str, Any], context: Any = None) -> None:
            super().setup(config, TrialContext(**settings))

    return Worker(config=flat_config(groups[0], 0))


def test_a_report_is_flat_but_for_what_the_driver_reads(one: Bench) -> None:
    one.run_baseline()
    report = worker(one).train()
    assert (report["steps"], report["rung_steps"], report["failure"]) == (1, 0, None)
    assert report["arg"] != report["arg"]  # nothing is scored yet
    whole = worker(one)
    reports = [whole.train()]
    while not reports[-1]["done"]:
        reports.append(whole.train())
    last = reports[-1]
    assert (last["rung_steps"], last["rung"], last["steps"]) == (6, 4.0, 6)
    for name in ("arg", "arg_low", "arg_high", "score", "best"):
        assert isinstance(last[name], float)
    assert last["arg_low"] <= last["arg"] <= last["arg_high"]
    landed = [key for entry in reports for key in entry["landed"]]
    assert landed == [point.key for point in one.database.points() if point.method == "maml"]


def test_a_worker_goes_on_with_another_trial_without_loading_anything_anew(
    one: Bench,
) -> None:
    work = worker(one)
    assert repr(work) == one.job.trials[0].name
    while not work.train()["done"]:
        continue
    group = TrialGroup(specs=(one.job.trials[1],), indices=(1,))
    assert work.reset(flat_config(group, 1))
    assert repr(work) == one.job.trials[1].name
    while not (report := work.train())["done"]:
        continue
    assert report["failure"] is None
    assert len(one.database.points()) == 6


def test_a_worker_of_another_version_refuses_to_work(one: Bench) -> None:
    report = worker(one, keys={0: "f" * 64}).train()
    assert report["done"]
    assert "has another backbone, data or code than the driver; install" in report["failure"]
    assert one.stored == 0


def test_a_worker_whose_disk_is_full_ends_its_trial_with_the_cure(
    one: Bench, full: list[int]
) -> None:
    work = worker(one)
    assert not work.train()["done"]
    full[0] = 0
    report = work.train()  # the rung at 2 cannot be written
    assert report["done"]
    assert "No space left on device; free some there and run" in report["failure"]
    assert work.train()["done"]  # it stays so, and does nothing more


def test_a_worker_that_cannot_save_ends_its_trial_with_the_cure(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage of checkpoints is full, or gone: starting the trial again would not help."""
    work = worker(one)
    work.train()

    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "injected")

    monkeypatch.setattr(tune_trainable.Trainable, "_report_class_trainable_checkpoint", full_disk)
    saved = work.save()
    assert saved.checkpoint is None
    report = work.train()
    assert report["done"]
    assert report["failure"].startswith(f"{one.job.results}: No space left on device; free some")

    bucket = worker(one, files="s3://user:secret@bucket/folder?scheme=http")
    bucket._failure = None
    assert bucket.save().checkpoint is None
    failure = bucket.train()["failure"]
    assert failure.startswith("s3://bucket/folder: ")
    assert "secret" not in failure
    assert "bring the storage back" in failure


def test_a_checkpoint_that_is_broken_is_passed_over_by_a_restarted_worker(
    one: Bench, tmp_path: Path
) -> None:
    work = worker(one)
    work.train()
    work.load_checkpoint(str(tmp_path / "nothing"))  # Tune's own restart; no error
    while not (report := work.train())["done"]:
        continue
    assert report["failure"] is None


@pytest.mark.parametrize(
    ("gpus", "bundle"),
    [(0.0, {"CPU": 1.0}), (0.5, {"CPU": 1.0, "GPU": 0.5}), (2, {"CPU": 1.0, "GPU": 2.0})],
)
def test_a_trial_asks_ray_for_its_share_of_a_gpu(gpus: float, bundle: dict[str, float]) -> None:
    assert SearchTrial.default_resource_request({"gpus": gpus}).bundles == [bundle]


def test_a_rung_of_another_version_of_the_code_belongs_to_another_trajectory(
    one: Bench, study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.run(0)
    before = {artifact.uri: Path(artifact.uri).read_bytes() for artifact in _rungs(one)}
    monkeypatch.setattr(engine, "SCHEMA", engine.SCHEMA + 1)
    newer = one.trial(0)
    newer.unit()
    assert newer.progress.steps == 1  # nothing of it is there
    list(newer.units())
    assert len(one.database.points()) == 6
    after = {artifact.uri: Path(artifact.uri).read_bytes() for artifact in _rungs(one)}
    assert before.items() < after.items()


def _rungs(found: Bench) -> list[Artifact]:
    return found.database.artifacts("rung")


def test_another_version_of_the_code_that_scores_is_another_study_with_runs_of_its_own(
    one: Bench, study: OpenStudy
) -> None:
    one.run(0)
    record = study_record(study)
    newer = dataclasses.replace(record, code=record.code + 1)
    assert newer.key != record.key
    run = next(iter(one.database.runs(one.store.brought).values()))
    identity = dataclasses.replace(run.identity, code=run.identity.code + 1)
    assert identity.key not in one.database.present([identity.key, run.key])
