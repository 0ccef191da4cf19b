"""Searches on storage that fails, on nodes unlike the driver's, under clocks that jump."""

from __future__ import annotations

import contextlib
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
from ray.tune.trainable import trainable as tune_trainable
from search_toys import bits, computed, toy_job
from small_disks import in_a_small_disk

from mpt.errors import DataError, StorageError, UsageError
from mpt.records import LeafStore
from mpt.search.job import Execution, SearchJob
from mpt.search.lock import check_shared, driver_lock, driver_mark
from mpt.search.ray import trainable
from mpt.search.ray.trainable import SearchTrial, device_of
from mpt.search.run import run_search
from mpt.study.study import Study
from mpt.trial.trajectory import TrajectoryWork
from mpt.upstream import engine


def work(study: Study, job: SearchJob, index: int = 0) -> TrajectoryWork:
    return TrajectoryWork(study, job.courses[index].trajectory, job.results, job.chunk_s)


@pytest.fixture(scope="module")
def undisturbed(
    study: Study, toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the toy search's first trajectory computes."""
    job = toy_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("undisturbed"))
    list(work(study, job).units())
    return bits(job.results)


# --- storage -------------------------------------------------------------------------------------

_ON_A_FULL_DISK = """
head -c {ballast}k /dev/zero > '{disk}/ballast'
'{python}' '{script}' '{checkpoint}' '{gym}' '{disk}/results' > '{out}/output.txt' 2>&1 && exit 9
echo $? > '{out}/code'
rm '{disk}/ballast'
cp -r '{disk}/results' '{out}/results'
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path, study: Study
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = _ON_A_FULL_DISK.format(
        ballast=1800,  # 200 KiB are left: about half of what the search writes
        disk=disk,
        out=tmp_path,
        python=sys.executable,
        script=search_toys.__file__,
        checkpoint=toy_checkpoint,
        gym=toy_gym,
    )
    in_a_small_disk(disk, script, kib=2000)
    output = (tmp_path / "output.txt").read_text()
    assert (tmp_path / "code").read_text() == "4\n", output
    failed = [line for line in output.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2
    assert all("No space left on device; free some there and run" in line for line in failed)
    assert "Traceback" not in output

    job = toy_job(toy_checkpoint, toy_gym, tmp_path / "results")
    roomy = toy_job(toy_checkpoint, toy_gym, tmp_path / "roomy")
    assert computed(job.results), "the disk was full from the start"
    for one in (job, roomy):
        for index in range(2):
            list(work(study, one, index).units())
    assert bits(job.results) == bits(roomy.results)
    assert len(computed(job.results)) == len(set(computed(job.results)))


def test_storage_that_comes_and_goes_costs_time_and_changes_no_bit(
    study: Study, job: SearchJob, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """The results directory is renamed away after each unit: what an unmount looks like."""
    away, ended = tmp_path / "away", 0
    units = work(study, job)
    while not units.progress.done:
        job.results.rename(away)
        with pytest.raises(StorageError, match=r"\(is it mounted\?\) and run the same command"):
            units.unit()
        assert not job.results.exists(), "something was written in the mount's place"
        away.rename(job.results)
        units = work(study, job)  # the next session
        units.unit()
        ended += 1
    assert ended > 10
    assert bits(job.results) == undisturbed
    assert len(computed(job.results)) == len(set(computed(job.results)))


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


def test_a_disk_that_fills_up_at_any_write_tears_nothing(
    study: Study, job: SearchJob, undisturbed: dict[str, Any], full: list[int]
) -> None:
    ended = 0
    while True:
        full[0] = 3 + ended  # what was finished is kept, so that a few writes more are enough
        done = False
        with contextlib.suppress(StorageError):
            list(work(study, job).units())
            done = True
        full[0] = 10**9
        if done:
            break
        ended += 1
    assert ended > 5, "the disk was never full"
    assert bits(job.results) == undisturbed
    assert len(computed(job.results)) == len(set(computed(job.results)))


def test_a_record_that_may_not_be_read_ends_the_search_instead_of_being_computed_again(
    study: Study, job: SearchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(2):
        list(work(study, job, index).units())
    closed = next(iter(LeafStore(job.results).keys()))
    real = os.open

    def opening(path: Any, *args: Any, **options: Any) -> int:
        if closed in str(path):
            raise PermissionError(errno.EACCES, "injected")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", opening)
    with pytest.raises(StorageError, match=r"\.json: Permission denied; let this user read"):
        run_search(job, Execution())
    assert not list(job.results.rglob("*.bad"))


# --- clocks --------------------------------------------------------------------------------------


def test_clocks_that_jump_change_no_bit(
    study: Study, job: SearchJob, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(3)
    for name in ("time", "time_ns", "perf_counter"):
        real = getattr(time, name)

        def jumping(real: Any = real) -> Any:
            now = real()
            return now + type(now)(rng.uniform(-0.5, 0.5) * now)

        monkeypatch.setattr(time, name, jumping)
    list(work(study, job).units())
    assert bits(job.results) == undisturbed


# --- nodes ---------------------------------------------------------------------------------------


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


def test_a_worker_that_sees_another_directory_of_the_same_name_refuses_to_work(
    tmp_path: Path,
) -> None:
    with driver_lock(tmp_path):
        mark = driver_mark(tmp_path)
        assert mark
        check_shared(tmp_path, mark)
        with pytest.raises(DataError, match=r"does not see the driver's .*; mount the shared"):
            check_shared(tmp_path / "elsewhere", mark)
    # left there by a driver of an earlier day: the place is another's
    with pytest.raises(DataError, match="does not see"):
        check_shared(tmp_path, mark)


@pytest.fixture
def trial(
    study: Study, job: SearchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The configuration of a trial of the toy search's first course."""
    monkeypatch.setattr(tune_trainable, "DEFAULT_STORAGE_PATH", str(tmp_path / "tune"))
    monkeypatch.setattr(trainable, "_open", lambda *_: study)
    course = job.courses[0]
    key = study.trajectory_key(course.trajectory.config)
    return {
        "trial": {"index": 0, "course": course, "key": key},
        "gpus": 0,
        "device": None,
        "results": job.results,
        "driver": driver_mark(job.results),
        "chunk_s": 0.0,
        "keep_prompts": False,
        "racing": False,
    }


def failure(config: dict[str, Any]) -> str:
    one = SearchTrial(config=config)
    report = one.train()
    one.stop()
    assert report["done"]
    return str(report["failure"])


def test_a_worker_of_another_version_refuses_to_work(trial: dict[str, Any]) -> None:
    trial["trial"]["key"] = "f" * 64
    assert "has another backbone, data or code than the driver; install" in failure(trial)


def test_a_worker_whose_node_lacks_the_mount_writes_nothing(
    trial: dict[str, Any], job: SearchJob
) -> None:
    trial["driver"] = '{"pid": 1}'
    assert "does not see the driver's results directory" in failure(trial)
    assert not job.results.exists()


def test_a_worker_whose_disk_is_full_ends_its_trial_with_the_cure(
    trial: dict[str, Any], full: list[int]
) -> None:
    full[0] = 0
    assert "No space left on device; free some there" in failure(trial)


def test_a_rung_of_another_version_of_the_code_belongs_to_another_trajectory(
    study: Study, job: SearchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(work(study, job).units())
    before = {path: path.read_bytes() for path in job.results.rglob("rung-*")}
    monkeypatch.setattr(engine, "SCHEMA", engine.SCHEMA + 1)
    newer = work(study, job)
    assert not newer.progress.rung_scores  # its points are others
    newer.unit()
    assert {path: path.read_bytes() for path in before} == before
