from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpt import records, storage
from mpt.errors import UsageError
from mpt.records import LeafStore, PointStore, Record, append_line, leaf_key, make_leaf, read_lines


def _leaf(lr: float = 0.5, test: float = 0.25, task: str = "toy") -> Record:
    identity = {"schema": 1, "task": task, "data_seed": 13, "lr": lr}
    result = {"dev": 0.5, "test": test, "best_step": 2, "curve": [[2, 0.5, 1.5]], "status": "ok"}
    return make_leaf(identity, result, {"steps": 2}, {"time": "now"})


def _path(store: LeafStore, leaf: Record) -> Path:
    return store.folder / leaf["key"][:2] / f"{leaf['key']}.json"


def test_a_leaf_comes_back_as_it_was_put(tmp_path: Path) -> None:
    leaf = _leaf(lr=0.1 + 0.2, test=1 / 3)  # floats without a short decimal form
    assert LeafStore(tmp_path).put_many([leaf]) == [leaf["key"]]
    again = LeafStore(tmp_path)
    assert again.get(leaf["key"]) == leaf
    assert list(again.keys()) == [leaf["key"]]
    assert again.problems == []


def test_a_key_depends_on_every_part_of_the_identity_and_not_on_its_order() -> None:
    identity = _leaf()["identity"]
    assert leaf_key(identity) == leaf_key(dict(reversed(identity.items())))
    for name in identity:
        assert leaf_key({**identity, name: 99}) != leaf_key(identity)


def test_an_absent_leaf_is_none_and_no_problem(tmp_path: Path) -> None:
    store = LeafStore(tmp_path)
    assert store.get(leaf_key({"a": 1})) is None
    assert store.problems == []


def test_the_first_complete_writer_wins(tmp_path: Path) -> None:
    store = LeafStore(tmp_path)
    store.put_many([_leaf(test=0.25)])
    assert store.put_many([_leaf(test=0.75)]) == []
    kept = store.get(_leaf()["key"])
    assert kept is not None
    assert kept["result"]["test"] == 0.25


def test_nan_and_foreign_keys_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = LeafStore(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.put_many([_leaf(test=float("nan"))])
    with pytest.raises(ValueError, match="not the hash of its identity"):
        store.put_many([{**_leaf(), "key": "0" * 64}])
    assert not list(tmp_path.rglob("*.json"))


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _other_value(data: bytes) -> bytes:
    return data.replace(b'"test":0.25', b'"test":0.95')


def _other_schema(data: bytes) -> bytes:
    body = json.loads(data)
    del body["checksum"]
    return storage.seal({**body, "schema": 2})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_half, "not a JSON record"),
        (lambda _: b"", "not a JSON record"),
        (lambda _: b"\x00\xff garbage", "not a JSON record"),
        (lambda _: b'{"a": 1}', "no checksum"),
        (lambda _: b'{"a": NaN, "checksum": "x"}', "checksum does not fit"),
        (lambda _: b"[" * 100_000, "not a JSON record"),
        (_other_value, "checksum does not fit"),
        (_other_schema, "schema 2"),
    ],
    ids=["half", "empty", "bytes", "foreign", "nan", "deep", "value", "schema"],
)
def test_a_damaged_leaf_is_named_ignored_and_set_aside_when_written_anew(
    tmp_path: Path, damage: object, reason: str
) -> None:
    store = LeafStore(tmp_path)
    leaf = _leaf()
    store.put_many([leaf])
    path = _path(store, leaf)
    broken = damage(path.read_bytes())  # type: ignore[operator]
    path.write_bytes(broken)

    store = LeafStore(tmp_path)
    assert store.get(leaf["key"]) is None
    assert len(store.problems) == 1
    assert str(path) in store.problems[0]
    assert reason in store.problems[0]
    assert path.read_bytes() == broken  # reading changes nothing

    assert store.put_many([leaf]) == [leaf["key"]]
    assert store.get(leaf["key"]) == leaf
    assert path.with_name(path.name + ".bad").read_bytes() == broken  # nothing is lost
    assert list(store.keys()) == [leaf["key"]]


def test_a_leaf_under_another_leafs_name_is_not_believed(tmp_path: Path) -> None:
    store = LeafStore(tmp_path)
    one, two = _leaf(lr=0.5), _leaf(lr=0.4)
    store.put_many([one])
    _path(store, two).parent.mkdir(exist_ok=True)
    _path(store, two).write_bytes(_path(store, one).read_bytes())
    assert store.get(two["key"]) is None
    assert "belongs elsewhere" in store.problems[0]


def test_a_folder_in_a_leafs_place_is_named_and_set_aside(tmp_path: Path) -> None:
    store = LeafStore(tmp_path)
    leaf = _leaf()
    _path(store, leaf).mkdir(parents=True)
    assert store.get(leaf["key"]) is None
    assert "is not a file" in store.problems[0]
    store.put_many([leaf])
    assert store.get(leaf["key"]) == leaf


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LeafStore(tmp_path)
    leaf = _leaf()
    store.put_many([leaf])
    monkeypatch.setattr(storage, "MAX_JSON_BYTES", 10)
    assert store.get(leaf["key"]) is None
    assert "at most 10" in store.problems[0]


# --- packs are committed as a whole ------------------------------------------------------------

_WRITER = """
import os, sys
from pathlib import Path
from mpt import records
from mpt import storage
calls = 0
def count(real):
    def wrapped(*args, **options):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
        return real(*args, **options)
    return wrapped
for name in ("link", "replace", "fsync", "unlink", "open"):
    setattr(os, name, count(getattr(os, name)))
leaves = [records.make_leaf({"schema": 1, "lr": n / 10}, {"test": n}, {}, {}) for n in range(3)]
records.LeafStore(Path(sys.argv[1])).put_many(leaves)
print("finished")
"""


def test_a_pack_is_wholly_there_or_wholly_absent_after_a_kill_at_any_system_call(
    tmp_path: Path,
) -> None:
    keys = [leaf_key({"schema": 1, "lr": n / 10}) for n in range(3)]
    seen = set()
    # A fork server would be faster, but a real process dies like a real worker.
    for call in range(1, 60, 2):
        results = tmp_path / str(call)
        root = Path(records.__file__).resolve().parents[1]
        done = subprocess.run(
            [sys.executable, "-c", _WRITER, str(results), str(call)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
            check=False,
        )
        store = LeafStore(results)  # replays the journal
        there = sum(store.get(key) is not None for key in keys)
        assert there in (0, 3), f"killed at call {call}"
        assert store.problems == []
        assert not list((results / "pending").glob("*.json"))
        if "finished" in done.stdout:
            assert there == 3
            break
        assert done.returncode == -9
        seen.add(there)
    else:
        pytest.fail("the writer made more calls than this test counts")
    assert seen == {0, 3}  # kills before and after the commit point were both met


def test_replaying_a_journal_twice_changes_nothing(tmp_path: Path) -> None:
    store = LeafStore(tmp_path)
    leaves = [_leaf(lr=0.5), _leaf(lr=0.4)]
    store.put_many(leaves[:1])
    inode = _path(store, leaves[0]).stat().st_ino
    journal = tmp_path / "pending" / "x.json"
    for _ in range(2):
        storage.Disk(tmp_path).write(journal, storage.seal({"schema": 1, "leaves": leaves}))
        assert LeafStore(tmp_path).get(leaves[1]["key"]) == leaves[1]
        assert not journal.exists()
    assert _path(store, leaves[0]).stat().st_ino == inode


@pytest.mark.parametrize("content", [b"garbage", storage.seal({"schema": 1, "leaves": [{}]})])
def test_a_foreign_journal_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    LeafStore(tmp_path)
    journal = tmp_path / "pending" / "foreign.json"
    journal.parent.mkdir()
    journal.write_bytes(content)
    store = LeafStore(tmp_path)
    assert str(journal) in store.problems[0]
    assert journal.read_bytes() == content


def _put_all(results: Path, reverse: bool) -> None:
    leaves = [_leaf(lr=n / 100) for n in range(30)]
    store = LeafStore(results)
    for leaf in reversed(leaves) if reverse else leaves:
        store.put_many([leaf])


def test_two_processes_that_write_the_same_leaves_do_not_disturb_each_other(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_put_all, args=(tmp_path, n == 1)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = LeafStore(tmp_path)
    assert all(store.get(_leaf(lr=n / 100)["key"]) for n in range(30))
    assert store.problems == []
    assert len(list(store.keys())) == 30
    assert not list(tmp_path.rglob("*.bad"))


# --- the results directory ---------------------------------------------------------------------


def test_a_results_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"must be a directory.*--results"):
            LeafStore(path)


def test_an_unwritable_results_directory_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        path = tmp_path / "results"
    else:  # root may write everywhere but in the kernel's own tree
        path = Path("/proc/results")
    with pytest.raises(UsageError, match=r"cannot be written.*--results"):
        LeafStore(path)


def test_a_read_only_store_creates_nothing(tmp_path: Path) -> None:
    store = LeafStore(tmp_path / "absent", read_only=True)
    assert store.get("0" * 64) is None
    assert not (tmp_path / "absent").exists()


def test_temporary_files_of_killed_writers_are_swept_when_they_are_old(tmp_path: Path) -> None:
    disk = storage.Disk(tmp_path)
    disk.prepare()
    old, new = tmp_path / "tmp" / "old", tmp_path / "tmp" / "new"
    for path in (old, new):
        path.write_text("")
    os.utime(old, (1, 1))
    disk.sweep()
    assert not old.exists()
    assert new.exists()


# --- points and logs ---------------------------------------------------------------------------


def test_a_point_comes_back_and_can_be_replaced(tmp_path: Path) -> None:
    store = PointStore(tmp_path)
    key = store.put({"steps": 5}, {"status": "diverged"})
    assert store.put({"steps": 5}, {"status": "ok"}) == key
    point = store.get(key)
    assert point is not None
    assert point["status"] == "ok"
    assert [record["key"] for record in store.all()] == [key]


def test_a_damaged_point_is_left_out_and_named(tmp_path: Path) -> None:
    store = PointStore(tmp_path)
    store.put({"steps": 5}, {})
    (store.folder / ("f" * 64 + ".json")).write_text("{")
    assert len(store.all()) == 1
    assert "f" * 64 in store.problems[0]


def test_a_log_keeps_whole_lines_and_drops_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_lines(path) == []
    append_line(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"torn": \n')
    append_line(path, {"b": "é"})
    assert read_lines(path) == [{"a": 1}, {"b": "é"}]


def test_an_exclusive_lock_waits_for_its_holder_and_times_out(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "x"
    with storage.exclusive(path), pytest.raises(TimeoutError, match=f"process {os.getpid()} on "):
        storage.exclusive(path, timeout_s=0).__enter__()
    with storage.exclusive(path, timeout_s=0):
        pass


def test_a_leaf_that_is_kept_in_memory_is_read_again_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, leaf = LeafStore(tmp_path), _leaf()
    store.put_many([leaf])
    assert store.get(leaf["key"]) == leaf
    with monkeypatch.context() as patch:
        patch.setattr(records, "_read", lambda _: pytest.fail("read again"))
        assert store.get(leaf["key"]) == leaf
    path = _path(store, leaf)
    path.write_bytes(_other_value(path.read_bytes()))  # as long as before
    assert store.get(leaf["key"]) is None
    path.unlink()
    assert store.get(leaf["key"]) is None
    assert store.put_many([leaf]) == [leaf["key"]]
    assert store.get(leaf["key"]) == leaf


def test_no_more_leaves_than_stated_are_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "KEPT_LEAVES", 2)
    store, leaves = LeafStore(tmp_path), [_leaf(lr=n / 10) for n in range(4)]
    store.put_many(leaves)
    for _ in range(2):
        assert [store.get(leaf["key"]) for leaf in leaves] == leaves
    assert len(store._known) == 2
