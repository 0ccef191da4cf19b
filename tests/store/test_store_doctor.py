"""The doctor finds what was changed, lost or never fitted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from store_records import artifact, diverged, point, run, study

from mpt.cli.main import main
from mpt.store.artifacts import Artifacts
from mpt.store.database import Database, open_results
from mpt.store.doctor import check
from mpt.store.records import Run


@pytest.fixture
def full(database: Database) -> Database:
    """A database of three runs in one point."""
    runs = [run(0), run(1), diverged(2)]
    database.add_runs(runs)
    database.add_study(study())
    database.add_point(point(tuple(one.key for one in runs)))
    database.put_document("similarity", "toy", {"score": 0.25})
    return database


def _edit(database: Database, *statements: str) -> list[str]:
    """Change a database behind its back, and return what the doctor says."""
    engine = sa.create_engine(database.url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.dialect.name == "postgresql":  # what SQLite's shell does by default
            connection.exec_driver_sql("SET session_replication_role = replica")
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()
    return check(database, storage=False)


def test_a_healthy_database_has_nothing_to_say(full: Database) -> None:
    assert check(full, storage=True) == []


@pytest.mark.parametrize(
    "values",
    [
        {"dev": 0, "test": 1},  # whole numbers, which come back as floats
        {"dev": 0.1 + 0.2, "test": 1e-300},
        {"stopped": "ü"},
        {"curve": ()},
        {"curve": ((1, 0, 1), (2, None, 1e300))},
        {"recipe": {}},
        {"recipe": {"downstream": {"betas": (0.9, 0.98)}}},
        {"identity": {"tuned": "weights", "precision": "bfloat16"}},
        {"provenance": {"packed": ["a", 1.5, None]}},
    ],
)
def test_what_we_write_ourselves_always_fits(database: Database, values: dict[str, Any]) -> None:
    database.add_runs([run(3, **values)])
    assert check(database, storage=False) == []


@pytest.mark.parametrize(
    "change",
    [
        "test = 0.95",
        "dev = NULL",
        "status = 'diverged'",
        "best_step = 2",
        "stopped = 'never'",
        "curve = '[[2, 0.9, 1.25]]'",
        "checksum = 'x'",
    ],
)
def test_a_score_that_somebody_edited_is_found(full: Database, change: str) -> None:
    (line,) = _edit(full, f"UPDATE run SET {change} WHERE key = '{run(0).key}'")
    assert line.startswith(f"run {run(0).key[:8]} (toy, data seed 13, learning rate 0.14285714")
    assert ", train seed 42): " in line
    assert "its checksum does not fit; a score, the curve or the status was changed" in line


@pytest.mark.parametrize(
    "change",
    ["lr = 0.5", "task = 'other'", "data_seed = 99", "backbone = 'x'", "code = 7", "init = NULL"],
)
def test_a_run_that_is_said_to_be_another_is_found(full: Database, change: str) -> None:
    (line,) = _edit(full, f"UPDATE run SET {change} WHERE key = '{run(0).key}'")
    assert "its key is not the key of what it says it is" in line


def test_a_broken_cell_is_found(full: Database) -> None:
    lines = _edit(
        full,
        f"UPDATE run SET curve = '[[1' WHERE key = '{run(0).key}'",
        "UPDATE point SET settings = '{'",
        "UPDATE study SET lrs = 'x'",
    )
    assert [line.partition(": ")[2] for line in lines] == [
        "one of its values is no JSON",
        "one of its values is not what a run holds",
        "one of its values is not what a point holds",
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("UPDATE recipe SET body = '{}'", "recipe .*: its text was changed after it was written"),
        ("UPDATE provenance SET body = 'x'", "provenance .*: its text was changed"),
        ("UPDATE document SET body = '1'", "similarity 'toy': was changed after it was written"),
        ("UPDATE study SET role = 'target'", "study .*: was changed after it was written"),
        ("DELETE FROM recipe", r"run .*: its recipe or provenance is not there"),
        ("DELETE FROM study", r"point .*: its study or provenance is not there"),
        ("DELETE FROM point", r"point_run \(1, 1\): there is no point with this id"),
        ("DELETE FROM run", r"point_run \(1, 1\): there is no run with this id"),
        ("DELETE FROM point_run WHERE run_id = 1", r"point .*: its checksum does not fit"),
        ("UPDATE point SET settings = '{}'", r"point .*: its checksum does not fit; its settings"),
        ("UPDATE point SET steps = 7", r"point .*: its key is not the key of what it says it is"),
    ],
)
def test_every_other_change_is_found(full: Database, change: str, line: str) -> None:
    import re

    lines = _edit(full, change)
    assert any(re.search(line, said) for said in lines), lines


def test_a_study_without_points_is_named(full: Database) -> None:
    other = study(role="target")
    full.add_study(other)
    assert check(full, storage=False) == [
        f"study {other.id}: has no points (the search that began it finished none yet)"
    ]


def test_a_damaged_index_is_found(tmp_path: Path) -> None:
    with open_results(tmp_path) as database:
        database.add_runs([run(number) for number in range(3)])
        lines = _edit(
            database,
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE "
            "name = 'ix_stop_point') WHERE name = 'sqlite_autoindex_run_1'",
        )
    with open_results(tmp_path, read_only=True) as database:
        lines = check(database, storage=False)
    assert any(line.startswith("database: ") for line in lines), lines


def test_files_are_read_only_when_asked_for(tmp_path: Path) -> None:
    results = tmp_path / "results"
    files = Artifacts(str(results))
    with open_results(results) as database:
        stored: dict[str, Run] = {}
        for name in ("whole", "absent", "changed"):
            uri, digest = files.write(f"rungs/{name}", name.encode())
            database.add_artifact(artifact(owner=name, uri=uri, digest=digest))
            stored[name] = run()
        files.write("checkpoints/1/state.json", b"")
        for owner, uri in (("kept", "checkpoints/1"), ("lost", "checkpoints/2")):
            database.add_artifact(artifact(kind="checkpoint", owner=owner, uri=uri, digest=""))
        assert check(database, storage=True) == [
            "checkpoint of lost after 5 steps: checkpoints/2: is not there"
        ]
        (results / "rungs" / "absent").unlink()
        (results / "rungs" / "changed").write_bytes(b"x")
        lines = check(database, storage=True)
        assert check(database, storage=False) == []
    assert len(lines) == 3
    assert f"rung of absent after 5 steps: {results}/rungs/absent: is not there" in lines
    assert any("rung of changed" in line and "its digest does not fit" in line for line in lines)


def test_files_of_a_directory_that_moved_are_found(tmp_path: Path) -> None:
    with open_results(tmp_path / "old") as database:
        uri, digest = Artifacts(str(tmp_path / "old")).write("rungs/5", b"data")
        database.add_artifact(artifact(uri=uri, digest=digest))
    shutil.move(tmp_path / "old", tmp_path / "new")
    with open_results(tmp_path / "new", read_only=True) as database:
        assert check(database, storage=True) == []


def test_files_elsewhere_are_found_by_their_root(full: Database, tmp_path: Path) -> None:
    files = Artifacts(f"memory://{tmp_path.name}")
    files.write("rungs/5", b"data")
    full.add_artifact(artifact(uri="rungs/5", digest=""))
    assert check(full, storage=True, artifacts=files) == []
    assert len(check(full, storage=True)) == 1


def test_the_command_ends_with_3_where_a_file_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_results(tmp_path) as database:
        uri, digest = Artifacts(str(tmp_path)).write("rungs/5", b"data")
        database.add_artifact(artifact(uri=uri, digest=digest))
    assert main(["doctor", str(tmp_path)]) == 0
    (tmp_path / "rungs" / "5").write_bytes(b"torn")
    capsys.readouterr()
    assert main(["doctor", str(tmp_path)]) == 3
    assert "its digest does not fit" in capsys.readouterr().out
