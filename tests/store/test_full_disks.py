"""Storage that is full, gone or closed under an open database: one line, nothing torn or lost."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from small_disks import in_a_small_disk, run_script
from store_records import point, run, study

from mpt.errors import DataError, StorageError, UsageError
from mpt.store import connect
from mpt.store.database import Database, open_results
from mpt.store.doctor import check
from mpt.store.errors import database_errors, storage_errors

pytestmark = pytest.mark.timeout(300)


_SMALL_DISK = """
import json, os, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from store_records import run
from mpt.errors import StorageError
from mpt.store.database import open_results
from mpt.store.doctor import check

results, limited = Path(sys.argv[1]), sys.argv[2] == "limit"
small = [run(n) for n in range(10)]
large = [run(n, curve=tuple((s, 0.1, 1.5) for s in range(500))) for n in range(100, 140)]
said = []
with open_results(results) as database:
    database.add_runs(small)
    ballast = results / "ballast"
    if limited:  # no file may be larger: the part of one that fits is written
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    else:
        free = os.statvfs(results)
        ballast.write_bytes(b"x" * (free.f_bavail * free.f_frsize - 150_000))
    for _ in range(2):
        try:
            database.add_runs(large)
        except StorageError as error:
            said.append(str(error))
    present = len(database.present([one.key for one in small]))
    between = len(database.present([one.key for one in large]))
    ballast.unlink(missing_ok=True)
    if limited:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    after = len(database.add_runs(large))
with open_results(results) as database:
    problems = check(database, storage=False)
print(json.dumps({"said": said, "present": present, "between": between, "after": after,
                  "problems": problems, "names": sorted(os.listdir(results))}))
"""


@pytest.mark.parametrize("how", ["full", "limit"])
def test_a_disk_that_is_really_full_tears_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path, how: str
) -> None:
    (tmp_path / "script.py").write_text(_SMALL_DISK)
    disk, helpers = tmp_path / "disk", Path(__file__).parent
    disk.mkdir()
    words = f"'{sys.executable}' '{tmp_path / 'script.py'}' '{disk}' {how} '{helpers}'"
    if how == "full":
        out = in_a_small_disk(disk, words, kib=4000)
    else:
        out = run_script(["sh", "-ec", words]).stdout
    found: dict[str, Any] = json.loads(out)
    assert len(found["said"]) == 2
    for line in found["said"]:
        assert line.startswith(f"{disk}/mpt.db: ")
        assert line.endswith("run the same command again: what was finished is kept")
        assert "\n" not in line
        assert how == "limit" or "No space left on device; free some there" in line
    assert found["present"] == 10
    assert found["between"] == 0
    assert found["after"] == 40
    assert found["problems"] == []
    assert found["names"] == ["mpt.db"]


_NO_ROOM_AT_ALL = """
import os, sys
from pathlib import Path
from mpt.errors import MptError
from mpt.store.database import open_results
results = Path(sys.argv[1])
free = os.statvfs(results)
(results / "ballast").write_bytes(b"x" * (free.f_bavail * free.f_frsize))
try:
    open_results(results)
except MptError as error:
    print(type(error).__name__, error)
(results / "ballast").unlink()
with open_results(results) as database:
    print(len(database.studies()))
"""


def test_a_database_that_finds_no_room_when_it_is_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_NO_ROOM_AT_ALL)
    disk = tmp_path / "disk"
    disk.mkdir()
    out = in_a_small_disk(disk, f"'{sys.executable}' '{tmp_path / 'script.py'}' '{disk}'", 1000)
    said, studies = out.splitlines()
    assert said.startswith("StorageError ")
    assert "No space left on device; free some there and run the same" in said
    assert studies == "0"


@pytest.mark.parametrize("under", ["nothing", "an empty folder", "another database"])
def test_storage_that_goes_away_ends_the_work_and_nothing_is_written_in_its_place(
    tmp_path: Path, under: str
) -> None:
    results, hidden = tmp_path / "results", tmp_path / "hidden"
    database = open_results(results)
    database.add_runs([run(0)])
    results.rename(hidden)  # what an unmount looks like to a process
    if under == "an empty folder":
        results.mkdir()
    elif under == "another database":
        with open_results(results) as other:
            other.add_study(study())
    before = sorted(path.name for path in results.iterdir()) if results.exists() else []
    for work in (
        lambda: database.add_runs([run(1)]),
        lambda: database.present([run(0).key]),  # not: "it is missing, compute it again"
        lambda: database.add_point(point()),
    ):
        with pytest.raises(StorageError, match=r"mpt\.db: is another file than at the start"):
            work()
    after = sorted(path.name for path in results.iterdir()) if results.exists() else []
    assert after == before
    if results.exists():
        results.rename(tmp_path / "away")
    hidden.rename(results)
    assert database.add_runs([run(0), run(1)]) == [run(1).key]
    database.close()


def test_a_writer_that_waits_too_long_names_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "BUSY_S", 0.1)
    with open_results(tmp_path) as database:
        holder = sqlite3.connect(tmp_path / "mpt.db")
        holder.execute("BEGIN IMMEDIATE")
        line = r"another process holds it \(database is locked\); end it and run the same"
        with pytest.raises(StorageError, match=line):
            database.add_runs([run()])
        holder.rollback()
        holder.close()
        assert database.add_runs([run()]) == [run().key]


def test_a_database_that_became_read_only_says_so(tmp_path: Path) -> None:
    with open_results(tmp_path) as database:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA query_only=ON")
        with pytest.raises(StorageError, match="readonly database; let this user write there and"):
            database.add_runs([run()])


def test_a_server_that_goes_away_is_one_line_and_its_return_is_noticed(
    postgres_database: str, admin: sa.Connection
) -> None:
    name = sa.make_url(postgres_database).database
    with Database(postgres_database) as database:
        database.add_runs([run(0)])
        stop = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"

        def cut(*_: object) -> None:
            admin.exec_driver_sql(stop)

        # in the middle of a transaction …
        target = database.engine
        sa.event.listen(target, "before_cursor_execute", cut)
        with pytest.raises(StorageError, match="bring the server back and run the same command"):
            database.add_runs([run(1)])
        sa.event.remove(target, "before_cursor_execute", cut)
        assert database.add_runs([run(0), run(1)]) == [run(1).key]
        # … and between two
        cut()
        assert database.add_runs([run(2)]) == [run(2).key]


def test_what_another_writer_brings_meanwhile_is_found_at_the_next_attempt(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpt.store.sql import inserting

    real, calls = inserting.insert, 0
    other = Database(url)

    def interfere(connection: sa.Connection, table: sa.Table, entries: Any) -> None:
        nonlocal calls
        calls += 1
        if table.name == "recipe" and calls == 1 and connection.dialect.name == "postgresql":
            monkeypatch.setattr(inserting, "insert", real)
            thread = threading.Thread(target=other.add_runs, args=([run(0)],))
            thread.start()
            thread.join()
        real(connection, table, entries)

    monkeypatch.setattr(inserting, "insert", interfere)
    new = database.add_runs([run(0), run(1)])
    other.close()
    # one SQLite writer at a time: nobody can come between
    assert new == ([run(0).key, run(1).key] if database.path else [run(1).key])
    assert check(database, storage=False) == []


class _Failed(Exception):
    """An error as a driver raises it."""

    def __init__(self, text: str, **attributes: Any) -> None:
        super().__init__(text)
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("state", "opening", "kind", "line"),
    [
        ("53100", False, StorageError, "the server's disk is full; free some there and run"),
        ("42501", False, UsageError, "let this user make and write tables there"),
        ("08006", False, StorageError, "two lines; bring the server back and run"),
        ("08006", True, UsageError, "cannot be opened (two lines); check the URL"),
    ],
)
def test_errors_of_a_server_are_one_line_with_a_cure(
    state: str, opening: bool, kind: type[Exception], line: str
) -> None:
    with pytest.raises(kind) as caught, database_errors("db", opening=opening):
        raise sa.exc.OperationalError("SELECT 1", {}, _Failed("two\nlines", sqlstate=state))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (28, "No space left on device; free some there and run the same command again"),
        (17, "File exists; move away what stands there"),
        (13, "Permission denied; let this user read and write there"),
        (37, "No locks available; give a directory on a file system with file locks"),
        (5, "Input/output error; bring the storage back (is it mounted?)"),
    ],
)
def test_errors_of_the_operating_system_are_one_line_with_a_cure(number: int, cure: str) -> None:
    with pytest.raises(StorageError) as caught, storage_errors(Path("/some/place")):
        raise OSError(number, "injected")
    assert str(caught.value).startswith(f"/some/place: {cure}")
    assert caught.value.exit_code == 75


def test_a_torn_page_is_a_data_error(tmp_path: Path) -> None:
    with open_results(tmp_path) as database:
        database.add_runs([run(number) for number in range(100)])
    path = tmp_path / "mpt.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    with (
        pytest.raises(DataError, match="is no whole SQLite database"),
        open_results(tmp_path) as database,
    ):
        database.runs([run(number).key for number in range(100)])
