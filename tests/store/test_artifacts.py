"""Files beside the database: in a directory, on an S3 server, in what fsspec opens."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, KEY, s3_server
from small_disks import in_a_small_disk

from mpt.errors import DataError, StorageError, UsageError
from mpt.store.artifacts import Artifacts
from mpt.store.remote import shown_uri

# Waiting for a pipe or a server is what must not happen.
pytestmark = pytest.mark.timeout(300)

DATA = bytes(range(256)) * 10
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as query:
        yield query


@pytest.fixture(params=["directory", "file URI", "s3", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = f"below/{uuid.uuid4().hex}"
    match request.param:
        case "directory":
            return str(tmp_path / "with space" / "files")
        case "file URI":
            return (tmp_path / "with space" / "files").as_uri()
        case "s3":
            query = request.getfixturevalue("s3")
            return f"s3://{KEY}:hidden%2Fsecret@{BUCKET}/{name}?{query}"
    return f"memory://{name}"


@pytest.fixture
def artifacts(root: str) -> Artifacts:
    return Artifacts(root)


# --- everywhere ----------------------------------------------------------------------------------


def test_a_file_comes_back_by_its_uri_and_by_its_name(artifacts: Artifacts) -> None:
    uri, digest = artifacts.write("rungs/key/5.safetensors", DATA)
    assert digest == DIGEST
    assert artifacts.read(uri, digest) == DATA
    assert artifacts.read("rungs/key/5.safetensors") == DATA
    assert artifacts.exists(uri)
    assert artifacts.exists("rungs/key")


def test_another_process_reads_it_by_the_same_root(artifacts: Artifacts) -> None:
    uri, digest = artifacts.write("file", DATA)
    other: Artifacts = pickle.loads(pickle.dumps(artifacts))
    assert other.read(uri, digest) == DATA


def test_an_older_file_is_replaced(artifacts: Artifacts) -> None:
    artifacts.write("file", b"old" * 1000)
    uri, digest = artifacts.write("file", b"new")
    assert artifacts.read(uri, digest) == b"new"


def test_an_empty_file_is_a_file(artifacts: Artifacts) -> None:
    uri, digest = artifacts.write("empty", b"")
    assert artifacts.read(uri, digest) == b""


def test_a_changed_file_is_not_believed(artifacts: Artifacts) -> None:
    uri, digest = artifacts.write("file", DATA)
    artifacts.write("file", DATA[:-1])
    with pytest.raises(DataError, match=r"file: its digest does not fit \(cut short or changed"):
        artifacts.read(uri, digest)


def test_an_absent_file_is_named(artifacts: Artifacts) -> None:
    uri, _ = artifacts.write("file", DATA)
    absent = uri.replace("/file", "/absent")
    for name in (absent, "absent"):
        assert not artifacts.exists(name)
        with pytest.raises(DataError, match="absent: is not there") as caught:
            artifacts.read(name)
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a\\..\\x", "a\0b"])
def test_a_name_cannot_leave_the_root(artifacts: Artifacts, name: str) -> None:
    with pytest.raises(ValueError, match="must be a relative path below the root"):
        artifacts.write(name, DATA)
    with pytest.raises(ValueError, match="must be a relative path below the root"):
        artifacts.remove_folder(name)


def test_a_folder_is_fetched_whole(artifacts: Artifacts, tmp_path: Path) -> None:
    for name in ("a.bin", "deep/er/b.bin"):
        artifacts.write(f"trial/checkpoint_1/{name}", name.encode())
    artifacts.write("trial/checkpoint_10/other", b"")
    uri, _ = artifacts.write("trial/checkpoint_1/c.bin", DATA)
    for number, place in enumerate(("trial/checkpoint_1", uri.replace("/c.bin", ""))):
        folder = tmp_path / "fetched" / str(number)
        artifacts.fetch_folder(place, folder)
        files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.bin")}
        assert files == {"a.bin": b"a.bin", "deep/er/b.bin": b"deep/er/b.bin", "c.bin": DATA}
    with pytest.raises(DataError, match="absent: there is no such folder"):
        artifacts.fetch_folder("trial/absent", tmp_path / "absent")


def test_a_folder_is_removed_and_nothing_else(artifacts: Artifacts) -> None:
    artifacts.write("kept/file", DATA)
    artifacts.write("gone/a/file", DATA)
    artifacts.remove_folder("gone")
    artifacts.remove_folder("gone")  # it is not there: nothing to do
    assert not artifacts.exists("gone/a/file")
    assert artifacts.exists("kept/file")


def test_a_place_that_can_be_written_passes_and_keeps_no_trace(artifacts: Artifacts) -> None:
    artifacts.write("file", DATA)
    artifacts.check_writable()
    assert artifacts.read("file", DIGEST) == DATA
    if artifacts.local is not None:
        assert [path.name for path in artifacts.local.iterdir()] == ["file"]
    else:
        info = artifacts._remote.fs.get_file_info(_selector(artifacts._remote.path("")))
        assert [entry.base_name for entry in info] == ["file"]


def _selector(path: str) -> Any:
    from pyarrow import fs

    return fs.FileSelector(path)


# --- in a directory ------------------------------------------------------------------------------


def test_files_are_found_when_the_directory_has_moved(tmp_path: Path) -> None:
    uri, digest = Artifacts(str(tmp_path / "old")).write("rungs/key/5", DATA)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = Artifacts(str(tmp_path / "new"))
    assert moved.read(uri, digest) == DATA
    assert moved.exists(uri)
    with pytest.raises(DataError, match="old/rungs/key/5: is not there"):
        Artifacts(str(tmp_path / "elsewhere")).read(uri, digest)


def test_a_file_is_read_by_its_path_from_any_root(tmp_path: Path) -> None:
    uri, digest = Artifacts(str(tmp_path / "one")).write("file", DATA)
    assert Artifacts("memory://other").read(uri, digest) == DATA
    assert Artifacts(str(tmp_path / "two")).read(Path(uri).as_uri(), digest) == DATA


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_older_file_and_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    artifacts = Artifacts(str(tmp_path))
    uri, digest = artifacts.write("file", DATA)

    def fail(*_: Any) -> None:
        raise OSError(28, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StorageError, match="No space left on device; free some there and"):
            artifacts.write("file", b"new")
    assert artifacts.read(uri, digest) == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_no_file_is_not_waited_for(
    tmp_path: Path, make_no_file: Callable[[Path], object]
) -> None:
    make_no_file(tmp_path / "file")
    with pytest.raises(DataError, match="file: is not a file"):
        Artifacts(str(tmp_path)).read("file")


def test_a_root_that_is_a_file_or_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/files")):
        with pytest.raises(UsageError, match=r"--storage .*: cannot be written \(.*; give anoth"):
            Artifacts(str(root)).check_writable()


_FULL = """
import os, sys
from mpt.errors import MptError
from mpt.store.artifacts import Artifacts
artifacts = Artifacts(sys.argv[1] + "/files")
artifacts.write("small", b"kept")
for work in (lambda: artifacts.write("small", b"x" * 10**6), lambda: None):
    try:
        work()
    except MptError as error:
        print(type(error).__name__, error)
print(artifacts.read("small"), os.listdir(sys.argv[1] + "/files"))
"""


def test_a_full_disk_keeps_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_FULL)
    (tmp_path / "disk").mkdir()
    out = in_a_small_disk(
        tmp_path / "disk", f"'{sys.executable}' '{tmp_path / 'script.py'}' '{tmp_path / 'disk'}'"
    )
    said, kept = out.splitlines()
    assert said.startswith("StorageError ")
    assert "No space left on device; free some there and run the same command again" in said
    assert kept == "b'kept' ['small']"


def test_a_folder_that_cannot_be_copied_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = Artifacts(str(tmp_path / "files"))
    artifacts.write("folder/file", DATA)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "injected")

    monkeypatch.setattr(shutil, "copytree", fail)
    with pytest.raises(StorageError, match="injected; bring the storage back"):
        artifacts.fetch_folder("folder", tmp_path / "to")


# --- by a URI ------------------------------------------------------------------------------------


def test_a_stored_uri_holds_no_user_and_no_secret(s3: str) -> None:
    artifacts = Artifacts(f"s3://{KEY}:hidden%2Fsecret@{BUCKET}/private?{s3}")
    uri, digest = artifacts.write("file", DATA)
    assert uri == f"s3://{BUCKET}/private/file?{s3}"
    # the root's own user opens it
    assert artifacts.read(uri, digest) == DATA


def test_a_uri_of_another_root_is_opened_by_itself(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri, digest = Artifacts(f"s3://{KEY}:hidden%2Fsecret@{BUCKET}/one?{s3}").write("file", DATA)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden/secret")
    assert Artifacts(str(tmp_path)).read(uri, digest) == DATA
    assert Artifacts("memory://other").read(uri, digest) == DATA


def test_a_bucket_that_is_absent_is_refused(s3: str) -> None:
    artifacts = Artifacts(f"s3://{KEY}:hidden%2Fsecret@absent/x?{s3}")
    with pytest.raises(UsageError, match=r"s3://absent/x: cannot be written .*bucket that exists"):
        artifacts.check_writable()


def test_a_server_that_does_not_answer_is_a_storage_error() -> None:
    query = "endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    artifacts = Artifacts(f"s3://{KEY}:hidden%2Fsecret@{BUCKET}/x?{query}")
    with pytest.raises(
        StorageError, match=r"s3://results/x/file: .*; bring the storage back"
    ) as e:
        artifacts.read("file")
    assert "hidden" not in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("nonsense://bucket/x", "Protocol not known: nonsense"),
        ("s3://bucket/x?nonsense=1", "nonsense"),
        ("github://a/b", "missing"),
    ],
)
def test_a_uri_that_nobody_opens_is_refused(uri: str, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"--storage .*cannot be opened \(.*{reason}"):
        Artifacts(uri).check_writable()


def test_a_write_that_fails_midway_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = Artifacts(f"memory://{uuid.uuid4().hex}")
    uri, digest = artifacts.write("file", DATA)
    remote = artifacts._remote

    class Failing:
        """The file system, which cannot rename."""

        def __getattr__(self, name: str) -> Any:
            if name == "move":
                raise OSError("injected")
            return getattr(real, name)

    real, remote.fs = remote.fs, Failing()
    with pytest.raises(StorageError, match="injected; bring the storage back"):
        artifacts.write("file", b"new")
    remote.fs = real
    assert artifacts.read(uri, digest) == DATA
    assert [one.base_name for one in real.get_file_info(_selector(remote.path("")))] == ["file"]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("/plain/path@x", "/plain/path@x"),
        ("s3://bucket/a/?x=y", "s3://bucket/a"),
        ("s3://key:se@cret@bucket/a@b", "s3://bucket/a@b"),
        ("abfs://container@account.host/a", "abfs://container@account.host/a"),
        ("memory://", "memory://"),
    ],
)
def test_messages_show_a_uri_without_secrets(uri: str, shown: str) -> None:
    assert shown_uri(uri) == shown
