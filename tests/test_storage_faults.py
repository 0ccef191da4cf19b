"""Storage that is full, gone, closed or littered: one line with a cure, nothing torn or lost."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_disks import in_a_small_disk, run_script

from mpt import records, storage
from mpt.checkpoints import TrajectoryCheckpoints, pack_state
from mpt.errors import DataError, StorageError, UsageError
from mpt.records import LeafStore, PointStore, Record, append_line, leaf_key, make_leaf, read_lines
from mpt.search.lock import driver_lock
from mpt.search.rungs import load_rung, save_rung
from mpt.storage import Disk, exclusive
from mpt.upstream.engine import Cost

HUGE = 10 * 2**30
KINDS = ("pipe", "folder", "link to nothing", "link to itself", "link to a foreign file", "huge")

# Waiting for a pipe is what must not happen.
pytestmark = pytest.mark.timeout(60)


def leaf(number: int = 0) -> Record:
    identity = {"schema": 1, "task": "toy", "data_seed": 13, "lr": number / 10}
    return make_leaf(identity, {"dev": 0.5, "test": 0.25}, {"steps": 2}, {"time": "now"})


def leaf_path(results: Path, record: Record) -> Path:
    return results / "leaves" / record["key"][:2] / f"{record['key']}.json"


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


def toy_run() -> Any:
    cost = Cost(steps=2, examples=4, tokens=8, seconds=0.5)
    return SimpleNamespace(key="key", step_count=2, prompt=torch.ones(2, 3), cost=cost)


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


# --- errors of the operating system --------------------------------------------------------------


class Failing:
    """Makes one call of the operating system fail, and all after it: a disk stays full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.allowed, self._number = 0, number
        for name in ("mkdir", "fsync", "link", "replace"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, real: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            self.allowed -= 1
            if self.allowed < 0:
                raise OSError(self._number, "injected")
            return real(*args, **options)

        return wrapped


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_an_error_at_any_call_tears_nothing_and_the_same_again_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pack = [leaf(1), leaf(2), leaf(3)]
    failing = Failing(monkeypatch, number)
    met = set()
    for allowed in range(99):
        results = tmp_path / str(allowed)
        failing.allowed = 99
        store = LeafStore(results)
        failing.allowed = allowed
        said = None
        try:
            store.put_many(pack)
        except StorageError as error:
            said = error
        if said is None:
            break
        assert said.exit_code == 75
        assert str(said).startswith(f"{results}")
        assert "run the same command again: what was finished is kept" in str(said)
        failing.allowed = 99
        assert not list((results / "tmp").iterdir()), "room is taken by what nobody reads"
        again = LeafStore(results)  # finishes what was begun
        there = sum(again.get(one["key"]) is not None for one in pack)
        assert there in (0, 3)
        met.add(there)
        again.put_many(pack)
        assert [again.get(one["key"]) for one in pack] == pack
        assert again.problems == []
    assert met == {0, 3}
    assert allowed > 8, "the errors were not injected"


def test_a_failed_checkpoint_leaves_both_files_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = TrajectoryCheckpoints(tmp_path / "trajectories" / "key", Disk(tmp_path))
    failing = Failing(monkeypatch, errno.ENOSPC)
    failing.allowed = 99
    checkpoints.save(1, {"step": 1})
    checkpoints.save(2, {"step": 2})
    for allowed in range(3):
        failing.allowed = allowed
        with pytest.raises(StorageError, match="No space left on device; free some there and"):
            checkpoints.save(3, {"step": 3})
        failing.allowed = 99
        fresh = TrajectoryCheckpoints(checkpoints.folder, checkpoints.disk)
        assert fresh.load(at_most=9) == (2, {"step": 2})
        assert fresh.load(at_most=1) == (1, {"step": 1})
    checkpoints.save(3, {"step": 3})
    assert checkpoints.load(at_most=9) == (3, {"step": 3})


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of files that cannot be opened; root, who runs tests in containers, could."""
    names: set[str] = set()
    real = os.open

    def closed(path: Any, *args: Any, **options: Any) -> int:
        if Path(path).name in names:
            raise PermissionError(errno.EACCES, "injected")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", closed)
    yield names
    names.clear()


def test_a_leaf_that_may_not_be_read_ends_the_work_and_stays_where_it_is(
    tmp_path: Path, unreadable: set[str]
) -> None:
    store, one = LeafStore(tmp_path), leaf()
    store.put_many([one])
    unreadable.add(f"{one['key']}.json")
    line = r"\.json: Permission denied; let this user read and write there and run"
    with pytest.raises(StorageError, match=line):
        store.get(one["key"])
    with pytest.raises(StorageError, match=line):
        store.put_many([one])  # it is not replaced: it may be a good one, of another user
    reader = LeafStore(tmp_path, read_only=True)
    assert reader.get(one["key"]) is None
    assert "cannot be read (Permission denied)" in reader.problems[0]
    unreadable.clear()
    assert store.get(one["key"]) == one
    assert not list(tmp_path.rglob("*.bad"))


def test_a_checkpoint_or_rung_that_may_not_be_read_is_not_begun_anew(
    tmp_path: Path, unreadable: set[str]
) -> None:
    checkpoints = TrajectoryCheckpoints(tmp_path / "trajectories" / "key", Disk(tmp_path))
    checkpoints.save(9000, {"step": 9000})
    save_rung(tmp_path, toy_run())
    unreadable |= {"checkpoint-a.bin", "rung-2.safetensors"}
    with pytest.raises(StorageError, match=r"checkpoint-a\.bin: Permission denied"):
        checkpoints.load(at_most=9999)
    with pytest.raises(StorageError, match=r"rung-2\.safetensors: Permission denied"):
        load_rung(tmp_path, "key", 2)


_SMALL_DISK = """
import json, resource, sys
from pathlib import Path
from mpt import records
from mpt.errors import StorageError

results, limited = Path(sys.argv[1]), sys.argv[2] == "limit"
def leaf(number, size=10):
    return records.make_leaf({"schema": 1, "lr": number}, {"curve": "x" * size}, {}, {})
store = records.LeafStore(results)
ballast = results / "ballast"
if limited:  # no file may be larger: the part of one that fits is written
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    first = leaf(1, 100_000)
else:
    ballast.write_bytes(b"x" * 400_000)
    first = leaf(1, 200_000)
said = []
for _ in range(2):
    try:
        store.put_many([leaf(0), first])
    except StorageError as error:
        said.append(str(error))
left = [str(path) for path in (results / "tmp").iterdir()]
ballast.unlink(missing_ok=True)
if limited:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
again = records.LeafStore(results)
between = [again.get(one["key"]) == one for one in (leaf(0), first)]
again.put_many([leaf(0), first])
whole = again.get(leaf(0)["key"]) == leaf(0) and again.get(first["key"]) == first
print(json.dumps({"said": said, "left": left, "between": between, "whole": whole,
                  "problems": again.problems}))
"""


@pytest.mark.parametrize("how", ["full", "limit"])
def test_a_disk_that_is_really_full_tears_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path, how: str
) -> None:
    (tmp_path / "script.py").write_text(_SMALL_DISK)
    words = f"'{sys.executable}' '{tmp_path / 'script.py'}' '{tmp_path / 'disk'}' {how}"
    (tmp_path / "disk").mkdir()
    if how == "full":
        out = in_a_small_disk(tmp_path / "disk", words)
    else:
        out = run_script(["sh", "-ec", words]).stdout
    found = json.loads(out)
    reason = "No space left on device" if how == "full" else "File too large"
    assert len(found["said"]) == 2
    assert all(f": {reason}; free some there and run the same" in text for text in found["said"])
    assert found["left"] == []
    # where the journal of the commit had still fitted, the commit is finished when there is room
    assert found["between"] == [how == "full"] * 2
    assert found["whole"]
    assert found["problems"] == []


_UNMOUNTED = """
import os, subprocess, sys
from pathlib import Path
from mpt import records
from mpt.errors import StorageError

results = Path(sys.argv[1])
leaves = [records.make_leaf({"schema": 1, "lr": n}, {}, {}, {}) for n in range(2)]
store = records.LeafStore(results)
store.put_many(leaves[:1])
os.chdir("/")
subprocess.run(["umount", str(results)], check=True)
for work in (lambda: store.put_many(leaves), lambda: store.get(leaves[0]["key"])):
    try:
        work()
    except StorageError as error:
        print(error)
print(os.listdir(results))
"""


def test_a_mount_that_really_goes_away_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_UNMOUNTED)
    disk = tmp_path / "disk"
    disk.mkdir()
    words = f"'{sys.executable}' '{tmp_path / 'script.py'}' '{disk}'"
    *said, left = in_a_small_disk(disk, words).splitlines()
    assert len(said) == 2
    assert all(line.startswith(f"{disk}: is another directory than at the start") for line in said)
    assert left == "[]"  # nothing was written under the mount point


# --- clocks, other versions ----------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_a_clock_that_jumps_removes_no_file_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    disk = Disk(tmp_path)
    disk.prepare()
    fresh, abandoned = tmp_path / "tmp" / "other-1-0-5", tmp_path / "tmp" / "other-2-0-5"
    mine = disk._temporary()
    for path in (fresh, abandoned, mine):
        path.write_text("")
    for path in (abandoned, mine):  # a slow disk: this process has been writing for two hours
        os.utime(path, (time.time() - 7200,) * 2)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump_s)
    disk.sweep()
    assert fresh.exists()
    assert mine.exists()
    assert not abandoned.exists()


def test_a_clock_that_stands_still_or_runs_back_mixes_up_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6, 0, -1))
    for now in (lambda: 5, lambda: next(clock)):
        monkeypatch.setattr(time, "time_ns", now)
        for number in range(20):
            LeafStore(tmp_path).put_many([leaf(number)])
    assert all(LeafStore(tmp_path).get(leaf(number)["key"]) for number in range(20))
    checkpoints = TrajectoryCheckpoints(tmp_path / "trajectories" / "key", Disk(tmp_path))
    for step in (1, 2, 3):
        checkpoints.save(step, {"step": step})
        os.utime(checkpoints.folder / "checkpoint-a.bin", (step % 2, step % 2))
    # which state is newest is read from the states, not from the clock
    assert TrajectoryCheckpoints(checkpoints.folder, Disk(tmp_path)).load(9) == (3, {"step": 3})


def test_records_of_another_version_are_named_ignored_and_kept(tmp_path: Path) -> None:
    points, key = PointStore(tmp_path), leaf_key({"schema": 2, "steps": 5})
    other = {"schema": 2, "key": key, "identity": {"schema": 2, "steps": 5}}
    for folder in (points.folder, tmp_path / "leaves" / key[:2]):
        folder.mkdir(parents=True)
        (folder / f"{key}.json").write_bytes(storage.seal(other))
    journal = tmp_path / "pending" / "x.json"
    journal.parent.mkdir()
    journal.write_bytes(storage.seal({"schema": 2, "leaves": []}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}

    leaves = LeafStore(tmp_path)
    assert leaves.get(key) is None
    assert points.all() == []
    for problem in (*leaves.problems, *points.problems):
        assert "schema 2, but this program reads 1" in problem
    assert len(leaves.problems) == 2
    # a key holds the version: this version's records never stand in another's place
    assert leaf()["key"] != leaf_key({**leaf()["identity"], "schema": 2})
    leaves.put_many([leaf()])
    points.put({"schema": 1, "steps": 5}, {})
    assert {path: path.read_bytes() for path in before} == before


def test_a_checkpoint_of_another_version_is_named_and_passed_over(tmp_path: Path) -> None:
    import hashlib

    checkpoints = TrajectoryCheckpoints(tmp_path / "trajectories" / "key", Disk(tmp_path))
    checkpoints.save(2, {"step": 2})
    payload = pack_state({"step": 4})
    head = f"mpt-checkpoint 2 4 {hashlib.sha256(payload).hexdigest()}\n".encode()
    (checkpoints.folder / "checkpoint-b.bin").write_bytes(head + payload)
    assert checkpoints.load(at_most=9) == (2, {"step": 2})
    (problem,) = checkpoints.problems
    assert "not a checkpoint of this program (or of another version); going on from" in problem


def test_the_limits_of_what_is_read_leave_room_for_real_records() -> None:
    # a pack of 1020 leaves, the most of one backbone, with curves of 100 evaluations
    curve = [[step, 0.123456789, 1.23456789] for step in range(100)]
    one = storage.seal(make_leaf({"lr": 0.1}, {"curve": curve}, {}, {}))
    assert 1020 * len(one) < storage.MAX_JSON_BYTES
    assert 100_000 * len(storage.seal({"leaves": [leaf()["key"]]})) < records.MAX_LOG_BYTES
