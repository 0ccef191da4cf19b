"""Storage that is littered, linked or gone: one line with a cure, nothing torn or lost."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stored_leaves import leaf, leaf_path, toy_run

from mpt import storage
from mpt.checkpoints import TrajectoryCheckpoints
from mpt.errors import DataError, StorageError, UsageError
from mpt.records import LeafStore, PointStore, append_line, leaf_key, read_lines
from mpt.search.lock import driver_lock
from mpt.storage import Disk, exclusive
from mpt.trial.rungs import load_rung, save_rung

HUGE = 10 * 2**30
KINDS = ("pipe", "folder", "link to nothing", "link to itself", "link to a foreign file", "huge")

# Waiting for a pipe is what must not happen.
pytestmark = pytest.mark.timeout(60)


def occupy(path: Path, kind: str) -> None:
    """Put something at `path` that is no file of ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
        (path / "inside").write_text("kept")
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(HUGE)  # sparse: it takes no room
    else:
        outside = path.parents[1] / "outside"
        if kind == "link to a foreign file":
            outside.write_text("foreign")
        path.symlink_to(path if kind == "link to itself" else outside)


# --- what stands in a file's place ---------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_a_leafs_place_is_named_and_set_aside_when_it_is_written(
    tmp_path: Path, kind: str
) -> None:
    store, one = LeafStore(tmp_path), leaf()
    path = leaf_path(tmp_path, one)
    occupy(path, kind)
    assert store.get(one["key"]) is None
    # behind a link to nothing there is no record, as in an empty place
    assert [str(path) in problem for problem in store.problems] == [True] * (
        kind != "link to nothing"
    )
    assert store.put_many([one]) == [one["key"]]
    assert store.get(one["key"]) == one
    assert os.path.lexists(path.with_name(path.name + ".bad"))
    assert str(path) in store.problems[0]


def test_a_link_to_a_whole_leaf_is_read_like_the_leaf(tmp_path: Path) -> None:
    one, path = leaf(), leaf_path(tmp_path / "here", leaf())
    LeafStore(tmp_path / "there").put_many([one])
    path.parent.mkdir(parents=True)
    path.symlink_to(leaf_path(tmp_path / "there", one))
    store = LeafStore(tmp_path / "here")
    assert store.get(one["key"]) == one
    assert store.put_many([one]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_a_points_place_is_named_and_replaced(tmp_path: Path, kind: str) -> None:
    store, key = PointStore(tmp_path), leaf_key({"steps": 5})
    occupy(store.folder / f"{key}.json", kind)
    assert store.all() == []
    assert store.put({"steps": 5}, {"status": "ok"}) == key
    assert [point["status"] for point in store.all()] == ["ok"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_a_journals_place_is_named_and_left_alone(
    tmp_path: Path, kind: str
) -> None:
    journal = tmp_path / "pending" / "x.json"
    occupy(journal, kind)
    store = LeafStore(tmp_path)
    assert str(journal) in store.problems[0]
    assert os.path.lexists(journal)


def test_a_journal_whose_keys_are_no_hashes_writes_nothing(tmp_path: Path) -> None:
    journal = tmp_path / "results" / "pending" / "x.json"
    journal.parent.mkdir(parents=True)
    foreign = {**leaf(), "key": "../../../escaped"}
    journal.write_bytes(storage.seal({"schema": 1, "leaves": [foreign]}))
    assert "not a journal" in LeafStore(tmp_path / "results").problems[0]
    assert [path.name for path in tmp_path.rglob("*escaped*")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_a_checkpoints_place_is_passed_over_and_replaced(
    tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "trajectories" / "key"
    checkpoints = TrajectoryCheckpoints(folder, Disk(tmp_path))
    checkpoints.save(2, {"step": 2})
    occupy(folder / "checkpoint-b.bin", kind)
    assert checkpoints.load(at_most=9) == (2, {"step": 2})
    if kind != "link to nothing":
        (problem,) = checkpoints.problems
        assert f"{folder / 'checkpoint-b.bin'}: " in problem
        assert problem.endswith("going on from step 2")
    checkpoints.save(4, {"step": 4})
    assert TrajectoryCheckpoints(folder, Disk(tmp_path)).load(at_most=9) == (4, {"step": 4})


def test_a_checkpoint_with_a_huge_tail_is_not_read_into_memory(tmp_path: Path) -> None:
    folder = tmp_path / "trajectories" / "key"
    checkpoints = TrajectoryCheckpoints(folder, Disk(tmp_path))
    checkpoints.save(2, {"step": 2})
    with (folder / "checkpoint-a.bin").open("r+b") as file:
        file.truncate(HUGE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert checkpoints.load(at_most=9) is None
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * 1024, f"{grown} KiB were taken"  # of 10 GiB
    assert "its checksum does not fit" in checkpoints.problems[0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_a_rungs_place_is_refused_by_name_and_replaced(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "trajectories" / "key" / "rung-2.safetensors"
    occupy(path, kind)
    if kind == "link to nothing":
        assert load_rung(tmp_path, "key", 2) is None
    else:
        with pytest.raises(DataError, match=r"rung-2\.safetensors: "):
            load_rung(tmp_path, "key", 2)
    save_rung(tmp_path, toy_run())
    rung = load_rung(tmp_path, "key", 2)
    assert rung is not None
    assert torch.equal(rung.prompt, torch.ones(2, 3))


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to itself"])
def test_a_log_that_is_no_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    log = tmp_path / "logs" / "log.jsonl"
    occupy(log, kind)
    with pytest.raises(StorageError, match=r"log\.jsonl: .*; move away what stands there"):
        append_line(log, {"a": 1})
    with pytest.raises(DataError, match=r"log\.jsonl: is not a file"):
        read_lines(log)


def test_a_huge_log_is_refused_and_not_read(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log.jsonl"
    occupy(log, "huge")
    with pytest.raises(DataError, match=f"{HUGE} bytes, but a log has at most .*; move it away"):
        read_lines(log)


def test_an_entry_behind_a_torn_line_stands_on_a_line_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    append_line(log, {"a": 1})
    with log.open("a") as file:
        file.write('{"torn": ')
    append_line(log, {"b": "\u2028"})  # a line end to `str.splitlines`, not to us
    assert read_lines(log) == [{"a": 1}, {"b": "\u2028"}]


@pytest.mark.parametrize("hold", [driver_lock, lambda path: exclusive(path / "driver.lock")])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link to itself"])
def test_a_lock_that_is_no_file_is_refused_by_name(
    tmp_path: Path, kind: str, hold: Callable[[Path], Any]
) -> None:
    occupy(tmp_path / "x" / "driver.lock", kind)
    with pytest.raises(StorageError, match=r"driver\.lock: .*; move away"), hold(tmp_path / "x"):
        pytest.fail("held")


def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with (
        pytest.raises(StorageError, match="No locks available; give a directory on a file system"),
        driver_lock(tmp_path),
    ):
        pytest.fail("held")


# --- the results directory and its folders -------------------------------------------------------


def test_a_results_path_that_is_a_link_is_followed_or_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "good").symlink_to(tmp_path / "outside")
    LeafStore(tmp_path / "good").put_many([leaf()])
    assert leaf_path(tmp_path / "outside", leaf()).is_file()
    (tmp_path / "nothing").symlink_to(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"must be a directory.*a link to nothing.*--results"):
        LeafStore(tmp_path / "nothing")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match=r"symbolic links\); give another with --results"):
        LeafStore(tmp_path / "loop")


@pytest.mark.parametrize("name", ["leaves", "points", "pending", "trajectories"])
@pytest.mark.parametrize("kind", ["pipe", "link to nothing", "link to itself"])
def test_a_folder_that_is_none_is_refused_at_the_start(
    tmp_path: Path, name: str, kind: str
) -> None:
    occupy(tmp_path / name, kind)
    with pytest.raises(UsageError, match=f"{name} must be a directory, but is a file or a link"):
        LeafStore(tmp_path)


def test_a_folder_may_be_a_link_within_its_file_system_and_not_beyond(tmp_path: Path) -> None:
    results, outside = tmp_path / "results", tmp_path / "outside"
    results.mkdir()
    outside.mkdir()
    (results / "leaves").symlink_to(outside)
    LeafStore(results).put_many([leaf()])
    assert list(outside.rglob("*.json"))
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has no second file system at /dev/shm")
    (results / "points").symlink_to(other)
    with pytest.raises(UsageError, match="link the whole results directory instead"):
        LeafStore(results)


@pytest.mark.parametrize("under", ["nothing", "an empty folder"])
def test_storage_that_goes_away_ends_the_work_and_nothing_is_written_in_its_place(
    tmp_path: Path, under: str
) -> None:
    results, hidden = tmp_path / "results", tmp_path / "hidden"
    store, points = LeafStore(results), PointStore(results)
    store.put_many([leaf(1)])
    results.rename(hidden)  # what an unmount looks like to a process
    if under != "nothing":
        results.mkdir()
    line = r"results: .*\(is it mounted\?\) and run the same command again"
    for work in (
        lambda: store.put_many([leaf(2)]),
        lambda: store.get(leaf(1)["key"]),  # not: "it is missing, compute it again"
        lambda: points.put({"steps": 5}, {}),
        lambda: TrajectoryCheckpoints(results / "trajectories" / "x", store.disk).save(1, {}),
    ):
        with pytest.raises(StorageError, match=line):
            work()
    assert not results.exists() or not list(results.iterdir())
    shutil.rmtree(results, ignore_errors=True)
    hidden.rename(results)
    assert store.put_many([leaf(1), leaf(2)]) == [leaf(2)["key"]]
