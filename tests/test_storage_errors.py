"""Errors of the operating system, full disks, clocks and other versions under the records."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_disks import in_a_small_disk, run_script
from stored_leaves import leaf, toy_run

from mpt import records, storage
from mpt.checkpoints import TrajectoryCheckpoints, pack_state
from mpt.errors import StorageError
from mpt.records import LeafStore, PointStore, leaf_key, make_leaf
from mpt.storage import Disk
from mpt.trial.rungs import load_rung, save_rung

# Waiting for a pipe is what must not happen.
pytestmark = pytest.mark.timeout(60)


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
