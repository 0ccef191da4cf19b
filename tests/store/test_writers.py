"""Several writers at once, and writers that are killed: all or nothing, and nothing twice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from store_records import point, run, study

import mpt
from mpt.store.database import Database, open_results
from mpt.store.doctor import check

_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        [str(Path(mpt.__file__).resolve().parents[1]), str(Path(__file__).parent)]
    ),
}


def _start(script: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_ENVIRONMENT,
    )


_WRITE_ALL = """
import random, sys
from store_records import point, run, study
from mpt.store.database import Database
numbers = list(range(60))
random.Random(int(sys.argv[2])).shuffle(numbers)
new = 0
with Database(sys.argv[1]) as database:
    database.add_study(study())
    for begin in range(0, 60, 3):
        new += len(database.add_runs([run(n) for n in numbers[begin:begin + 3]]))
    database.add_point(point(tuple(run(n).key for n in range(60))))
print(new)
"""


def test_processes_that_write_the_same_at_once_do_not_disturb_each_other(url: str) -> None:
    # the tables are made by whoever comes first, too
    writers = [_start(_WRITE_ALL, url, str(number)) for number in range(3)]
    said = [writer.communicate() for writer in writers]
    assert [error for _, error in said] == [""] * 3
    assert sum(int(out) for out, _ in said) == 60  # every run was new to exactly one of them
    with Database(url, read_only=True) as database:
        assert len(database.present([run(n).key for n in range(60)])) == 60
        assert len(database.points()) == 1
        assert check(database, storage=False) == []


def test_threads_share_one_database(database: Database) -> None:
    database.add_study(study())
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 10):
                database.add_runs([run(number)])
                assert database.present([run(number).key])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(5 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(database.present([run(n).key for n in range(25)])) == 25


def test_a_writer_waits_while_another_holds_the_database(tmp_path: Path) -> None:
    database = open_results(tmp_path)
    other = open_results(tmp_path)
    engine, added = other.engine, list[str]()
    writer = threading.Thread(target=lambda: added.extend(database.add_runs([run()])))
    with engine.connect().execution_options(mpt_write=True) as connection, connection.begin():
        writer.start()
        writer.join(0.3)  # one that does not wait has ended by then
        assert writer.is_alive()
        assert added == []
    writer.join()
    assert added == [run().key]
    database.close()
    other.close()


_WRITE_PACKS = """
import sys
from pathlib import Path
from store_records import run
from mpt.store.database import Database
database = Database(sys.argv[1])
for pack in range(1000):
    database.add_runs([run(100 * pack + n) for n in range(100)])
    print(pack, flush=True)
"""


def test_a_pack_is_wholly_there_or_wholly_absent_after_a_kill_at_any_moment(url: str) -> None:
    for attempt in range(6):
        writer = _start(_WRITE_PACKS, url)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.013 * attempt)
        writer.kill()
        out, _ = writer.communicate()
        finished = 1 + len(out.split())
        with Database(url) as database:  # a lost connection's work is undone by the server
            counts = [
                len(database.present([run(100 * pack + n).key for n in range(100)]))
                for pack in range(finished + 2)
            ]
        assert set(counts[:finished]) == {100}, "what was acknowledged is lost"
        assert set(counts) <= {0, 100}
    with Database(url, read_only=True) as database:
        assert check(database, storage=False) == []


_KILLED_INSIDE = """
import os, sys
from store_records import point, run, study
from mpt.store.database import Database
from mpt.store.sql import inserting
database = Database(sys.argv[1])
database.add_runs([run(n) for n in range(3)])
database.add_study(study())
real = inserting.insert
def insert(connection, table, entries):
    real(connection, table, entries)
    if table.name == sys.argv[2]:
        os.kill(os.getpid(), 9)
inserting.insert = insert
if sys.argv[2] != "run":
    database.add_point(point(tuple(run(n).key for n in range(3))))
database.add_runs([run(n) for n in range(6)])
"""


@pytest.mark.parametrize("table", ["run", "point", "point_run"])
def test_a_kill_inside_a_transaction_undoes_it(url: str, table: str) -> None:
    writer = _start(_KILLED_INSIDE, url, table)
    _, error = writer.communicate()
    assert writer.returncode == -9, error
    with Database(url) as database:
        assert database.present([run(n).key for n in range(6)]) == {run(n).key for n in range(3)}
        assert database.points() == []
        # the same again goes on
        assert len(database.add_runs([run(n) for n in range(6)])) == 3
        assert database.add_point(point(tuple(run(n).key for n in range(3))))
        assert check(database, storage=False) == []
