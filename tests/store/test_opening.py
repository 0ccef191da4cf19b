"""Opening a database: which one, what may be in its place, who may read and write it."""

from __future__ import annotations

import builtins
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from small_disks import in_a_small_disk
from store_records import run, study

from mpt.errors import DataError, UsageError
from mpt.store import connect, filesystems
from mpt.store.database import Database, database_url, old_format_note, open_results

# Waiting for a pipe is what must not happen.
pytestmark = pytest.mark.timeout(300)


# --- which database ------------------------------------------------------------------------------


def test_the_database_is_a_file_in_the_results_unless_a_store_is_given(tmp_path: Path) -> None:
    assert sa.make_url(database_url(tmp_path)).database == f"{tmp_path}/mpt.db"
    other = database_url(tmp_path, str(tmp_path / "shared.db"))
    assert sa.make_url(other).database == f"{tmp_path}/shared.db"
    server = "postgresql://user@host/name"
    assert database_url(tmp_path, server) == server
    with pytest.raises(UsageError, match=r"--store shared: must be a path that ends in \.db or"):
        database_url(tmp_path, "shared")


def test_a_url_is_made_one_that_every_process_understands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_url(tmp_path, "sqlite:///here/x.db") == f"sqlite:///{tmp_path}/here/x.db"
    assert database_url(tmp_path, "x.db") == f"sqlite:///{tmp_path}/x.db"
    assert database_url(tmp_path, "postgres://u:p@h/n") == "postgresql://u:p@h/n"
    with pytest.raises(UsageError, match="is no URL; give a path that ends in"):
        database_url(tmp_path, "post gres://")


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    results = tmp_path / "a?b=c%20 d#e;ü"
    with open_results(results) as database:
        database.add_study(study())
        assert database.path == results / "mpt.db"
    assert [path.name for path in results.iterdir()] == ["mpt.db"]
    with open_results(results, read_only=True) as database:
        assert database.studies() == [study()]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///x.db?mode=ro"])
def test_sqlite_must_be_a_plain_file(url: str) -> None:
    with pytest.raises(UsageError, match="SQLite must be a file, without options"):
        Database(url)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("nonsense://host/name", "there is no such kind of database .*; give a path that ends in"),
        ("postgresql+nonsense://host/name", "there is no such kind of database"),
        ("post gres://", "is no URL; give a path that ends in"),
        ("postgresql://h:port/x", "is no URL; give a path that ends in"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        Database(url)


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "psycopg":
            raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"No module named 'psycopg'.*pip install 'mpt\[postgres"):
        Database("postgresql://user:secret@host/name")


def test_a_server_that_does_not_answer_is_refused_without_the_password() -> None:
    with pytest.raises(UsageError, match=r"cannot be opened .*refused.*--store") as caught:
        Database("postgresql://user:secret@127.0.0.1:9/name?application_name=secret")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"database": "absent"}, 'database "absent" does not exist'),
    ],
)
def test_a_server_that_does_not_let_us_in_is_refused(
    server: str, changes: dict[str, str], line: str
) -> None:
    url = sa.make_url(server).set(**changes).render_as_string(hide_password=False)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=rf"cannot be opened .*{line}.*check the URL given with"):
        Database(url)


def test_a_user_who_may_not_make_tables_is_told_so(
    postgres_database: str, admin: sa.Connection
) -> None:
    admin.exec_driver_sql("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    url = sa.make_url(postgres_database).set(username="reader", password="reader")
    with pytest.raises(UsageError, match=r"permission denied .*; let this user make and write"):
        Database(url.render_as_string(hide_password=False))
    admin.exec_driver_sql("DROP ROLE reader")


# --- what stands in its place --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"hello, I am a text file of somebody else" * 100, "file is not a database"),
        (b"SQLite format 3\0" + b"\xff" * 4096, "file is not a database"),
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(
    tmp_path: Path, content: bytes, line: str
) -> None:
    (tmp_path / "mpt.db").write_bytes(content)
    for read_only in (True, False):
        with pytest.raises(
            DataError,
            match=rf"mpt\.db: is no whole SQLite database \({line}\); move it away, or give ano",
        ):
            open_results(tmp_path, read_only=read_only)
    assert (tmp_path / "mpt.db").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["mpt.db"]


def test_a_torn_database_is_refused_when_the_missing_part_is_needed(tmp_path: Path) -> None:
    with open_results(tmp_path) as database:
        database.add_runs([run(number) for number in range(200)])
    path = tmp_path / "mpt.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with (
        pytest.raises(DataError, match=r"is no whole SQLite database \(.*malformed"),
        open_results(tmp_path, read_only=True) as database,
    ):
        database.runs([run(number).key for number in range(200)])


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to itself"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mpt.db"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path)
    error = UsageError if kind == "link to itself" else DataError
    for read_only in (True, False):
        with pytest.raises(error, match=r"mpt\.db: .*; (move it away, or )?give another with"):
            open_results(tmp_path, read_only=read_only)


def test_tables_of_another_program_under_our_names_are_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mpt.db") as foreign:
        foreign.execute("CREATE TABLE run (name TEXT)")
    foreign.close()
    with pytest.raises(DataError, match=r"holds tables of another program \(run\); move it away"):
        open_results(tmp_path)


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "mpt.db").write_bytes(b"")
    with pytest.raises(UsageError, match="holds no results; run a search first"):
        open_results(tmp_path, read_only=True)
    with open_results(tmp_path) as database:
        assert database.studies() == []


def test_results_that_are_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"must be a directory.*--results"):
            open_results(place)


def test_results_of_an_older_version_are_named(tmp_path: Path) -> None:
    assert old_format_note(tmp_path) is None
    assert old_format_note(tmp_path / "absent") is None
    (tmp_path / "leaves").mkdir()
    note = old_format_note(tmp_path)
    assert note is not None
    assert "holds results of an older version" in note
    assert "\n" not in note
    with pytest.raises(UsageError, match="of an older version"):
        open_results(tmp_path, read_only=True)
    with open_results(tmp_path):
        assert old_format_note(tmp_path) is None


# --- reading only --------------------------------------------------------------------------------


def test_reading_where_nothing_is_creates_nothing(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match=r"there are no results; run a search first"):
            open_results(place, read_only=True)
    assert not list(tmp_path.iterdir())


def test_a_reader_cannot_change_the_file_by_any_statement(tmp_path: Path) -> None:
    open_results(tmp_path).close()
    with (
        open_results(tmp_path, read_only=True) as database,
        database.reading() as connection,
        pytest.raises(sa.exc.OperationalError, match="readonly"),
    ):
        connection.exec_driver_sql("DELETE FROM mpt_schema")


def test_rows_cannot_name_what_is_not_there(database: Database) -> None:
    with (
        pytest.raises(sa.exc.IntegrityError, match=r"(?i)foreign key"),
        database.engine.begin() as connection,
    ):
        connection.exec_driver_sql("INSERT INTO point_run (point_id, run_id) VALUES (1, 1)")


def test_reading_an_empty_server_creates_nothing(postgres_url: str) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match="holds no results; run a search first"):
            Database(postgres_url, read_only=True)


def test_nothing_but_the_database_stays_when_the_last_one_closes(tmp_path: Path) -> None:
    writer = open_results(tmp_path)
    writer.add_runs([run()])
    reader = open_results(tmp_path, read_only=True)
    assert reader.present([run().key])
    assert (tmp_path / "mpt.db-wal").exists()
    writer.close()
    reader.close()
    with open_results(tmp_path, read_only=True) as again:
        assert again.present([run().key])
    assert [path.name for path in tmp_path.iterdir()] == ["mpt.db"]


_READ = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from store_records import run
from mpt.errors import MptError
from mpt.store.database import open_results
try:
    with open_results(Path(sys.argv[1]), read_only=True) as database:
        said = len(database.present([run().key]))
except MptError as error:
    said = f"{type(error).__name__}: {error}"
try:
    open_results(Path(sys.argv[1]))
except MptError as error:
    refused = f"{type(error).__name__}: {error}"
print(json.dumps([said, refused, sorted(os.listdir(sys.argv[1]))]))
"""


def _read_where_nothing_can_be_written(tmp_path: Path) -> list[Any]:
    """Copy a database to a disk that is then mounted read-only, and open it there."""
    script, disk = tmp_path / "read.py", tmp_path / "disk"
    script.write_text(_READ)
    disk.mkdir()
    out = in_a_small_disk(
        disk,
        f"cp '{tmp_path}'/results/* '{disk}'; mount -o remount,ro '{disk}'; "
        f"'{sys.executable}' '{script}' '{disk}' '{Path(__file__).parent}'",
        kib=2000,
    )
    return list(json.loads(out))


def test_a_database_is_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    with open_results(tmp_path / "results") as database:
        database.add_runs([run()])
    said, refused, names = _read_where_nothing_can_be_written(tmp_path)
    assert said == 1
    assert refused.startswith("UsageError: results path ")
    assert "cannot be written" in refused
    assert names == ["mpt.db"]


def test_a_copy_with_entries_that_cannot_be_read_there_is_not_read_without_them(
    tmp_path: Path,
) -> None:
    database = open_results(tmp_path / "results")
    database.add_runs([run()])
    (tmp_path / "results" / "mpt.db-shm").rename(tmp_path / "shm")  # as some tools copy it
    said, _, _ = _read_where_nothing_can_be_written(tmp_path)
    (tmp_path / "shm").rename(tmp_path / "results" / "mpt.db-shm")
    database.close()
    # newer versions of SQLite read the entries all the same
    assert said == 1 or "DataError: " in str(said)
    assert said == 1 or "its newest entries are in mpt.db-wal" in said


# --- journals and file systems -------------------------------------------------------------------


def _journal(results: Path) -> tuple[str, int]:
    with open_results(results) as database, database.reading() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    return str(mode), int(str(synchronous))


def test_the_journal_is_a_log_that_a_loss_of_power_cannot_tear(tmp_path: Path) -> None:
    assert _journal(tmp_path) == ("wal", 2)  # 2: FULL


def test_on_a_file_system_of_several_machines_the_journal_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _journal(tmp_path)
    monkeypatch.setattr(connect, "over_network", lambda folder: folder == tmp_path)
    assert _journal(tmp_path) == ("delete", 2)


_MOUNTS = r"""21 1 0:19 / / rw - ext4 /dev/sda rw
30 21 0:26 / /home rw - nfs4 server:/home rw
31 30 0:27 / /home/fast\040disk rw,relatime shared:1 - xfs /dev/sdb rw
32 21 0:28 / /mnt rw - ext4 /dev/sdc rw
33 21 0:29 / /mnt rw - lustre mds:/ rw
"""


@pytest.mark.parametrize(
    ("folder", "network"),
    [
        ("/results", False),
        ("/home/me/results", True),
        ("/homes", False),
        ("/home/fast disk/results", False),
        ("/mnt/results", True),  # what is mounted later hides what is below
    ],
)
def test_a_file_system_of_several_machines_is_known_by_its_mount(
    folder: str, network: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: _MOUNTS)
    assert filesystems.over_network(Path(folder)) is network


def test_where_the_system_names_no_mounts_there_is_no_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert filesystems.over_network(Path("/home")) is False
