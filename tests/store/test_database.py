"""What goes into the database comes out of it, on SQLite and on PostgreSQL."""

from __future__ import annotations

import dataclasses

import pytest
import sqlalchemy as sa
from store_records import artifact, diverged, point, run, study

from mpt.errors import DataError, UsageError
from mpt.store.database import Database
from mpt.store.records import Point, Run, ScoreRow, Stop
from mpt.store.sql import queries

# --- runs ----------------------------------------------------------------------------------------


def test_runs_come_back_as_they_were_put_bit_for_bit(database: Database) -> None:
    runs = [run(0), run(1, task="täsk"), diverged(2), run(3, stopped="verdict at step 4")]
    assert database.add_runs(runs) == [one.key for one in runs]
    assert database.runs([one.key for one in runs]) == {one.key: one for one in runs}


def test_an_absent_run_is_left_out(database: Database) -> None:
    database.add_runs([run(0)])
    keys = [run(0).key, run(1).key]
    assert database.present(keys) == {run(0).key}
    assert set(database.runs(keys)) == {run(0).key}
    assert database.present([]) == set()
    assert database.add_runs([]) == []


def test_the_first_writer_of_a_run_wins(database: Database) -> None:
    database.add_runs([run(0, test=0.25)])
    assert database.add_runs([run(0, test=0.75), run(1)]) == [run(1).key]
    assert database.runs([run(0).key])[run(0).key].test == 0.25


def test_a_run_that_is_given_twice_in_one_call_is_written_once(database: Database) -> None:
    assert database.add_runs([run(0), run(0)]) == [run(0).key]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused_and_nothing_is_written(
    database: Database, bad: float
) -> None:
    for broken in (run(1, test=bad), run(1, curve=((1, 0.5, bad),))):
        with pytest.raises(ValueError, match="not JSON compliant"):
            database.add_runs([run(0), broken])
    assert database.present([run(0).key, run(1).key]) == set()


def test_recipes_and_provenances_are_stored_once(database: Database) -> None:
    database.add_runs([run(number) for number in range(10)])
    database.add_runs([run(11), run(12, recipe={"downstream": {"steps": 6}})])
    with database.reading() as connection:
        counts = [
            connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
            for table in ("run", "recipe", "provenance")
        ]
    assert counts == [12, 2, 1]


def test_more_keys_than_a_statement_can_name_are_asked_for_in_parts(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "CHUNK", 3)
    runs = [run(number) for number in range(10)]
    assert len(database.add_runs(runs)) == 10
    assert database.add_runs(runs) == []
    keys = [one.key for one in runs]
    assert database.present(keys) == set(keys)
    database.add_study(study())
    points = [point(tuple(keys[:size]), steps=size) for size in range(10)]
    for one in points:
        database.add_point(one)
    assert database.points() == points
    assert len(database.score_rows([one.key for one in points])) == sum(range(10))


# --- studies and points --------------------------------------------------------------------------


def test_a_study_comes_back_and_is_there_once(database: Database) -> None:
    other = study(role="target", source_shots=None, partial="3 of 9 tasks", smoke=True)
    for one in (study(), other, study()):
        assert database.add_study(one) == one.key
    assert database.studies() == [study(), other]
    assert database.study(other.key) == other
    assert database.study("0" * 64) is None


def test_the_first_writer_of_a_study_stays(database: Database) -> None:
    database.add_study(study(gym="here/my gym"))
    database.add_study(study(gym="elsewhere/my gym"))
    assert [one.gym for one in database.studies()] == ["here/my gym"]


@pytest.fixture
def runs(database: Database) -> list[Run]:
    stored = [run(number) for number in range(3)]
    database.add_runs(stored)
    database.add_study(study())
    return stored


def _point(runs: list[Run], **changes: object) -> Point:
    return point(tuple(one.key for one in runs), **changes)


def test_a_point_comes_back_with_the_keys_of_its_runs(database: Database, runs: list[Run]) -> None:
    whole, without = _point(runs), _point([], steps=0, status="diverged", prompt=None)
    assert database.add_point(whole)
    assert database.add_point(without)
    assert not database.add_point(_point(runs[:1]))  # the same point, made of less
    assert database.points() == [whole, without]
    assert database.points_of([without.key, "0" * 64]) == {without.key: without}


def test_points_are_asked_for_by_study(database: Database, runs: list[Run]) -> None:
    other = study(role="target")
    database.add_study(other)
    mine, theirs = _point(runs), _point(runs, study=other.key)
    database.add_point(mine)
    database.add_point(theirs)
    assert database.points(study().key) == [mine]
    assert database.points(other.key) == [theirs]
    assert database.points("0" * 64) == []


def test_a_point_of_unknown_runs_or_of_an_unknown_study_is_refused_whole(
    database: Database, runs: list[Run]
) -> None:
    unknown = run(99).key
    with pytest.raises(DataError, match=rf"1 of its runs \({unknown}, …\) are not in "):
        database.add_point(_point([*runs, run(99)]))
    with pytest.raises(DataError, match=r"its study is not in .*; write studies and runs before"):
        database.add_point(_point(runs, study="0" * 64))
    with pytest.raises(ValueError, match="names a run twice"):
        database.add_point(_point([runs[0], runs[0]]))
    assert database.points() == []


def test_score_rows_join_points_and_runs(database: Database, runs: list[Run]) -> None:
    first, second = _point(runs), _point(runs[1:], steps=100)
    for one in (first, second):
        database.add_point(one)
    rows = database.score_rows([first.key, second.key])
    assert [row.point for row in rows] == [first.key] * 3 + [second.key] * 2
    assert {row.run for row in rows[3:]} == {one.key for one in runs[1:]}
    expected = ScoreRow(
        point=first.key,
        task="toy",
        data_seed=13,
        lr=1 / 7,
        dev=0.1 + 0.2,
        test=1 / 3,
        status="ok",
        run=runs[0].key,
        steps=5.0,
        tokens=400.0,
        seconds=1.5,
        train_seed=42,
    )
    assert expected in rows
    assert database.score_rows([]) == []
    assert database.score_rows(["0" * 64]) == []


# --- stops, artifacts, documents -----------------------------------------------------------------


def test_a_stop_comes_back_and_is_there_once(database: Database) -> None:
    stop = Stop(point="p" * 64, trial="maml 3", steps=50, by="asha", reason="0.1 < 0.2")
    for one in (stop, dataclasses.replace(stop, steps=100), dataclasses.replace(stop, reason="x")):
        database.add_stop(one)
    assert database.stops() == [stop, dataclasses.replace(stop, steps=100)]


def test_the_artifact_after_the_most_steps_is_given_or_that_of_one_step(
    database: Database,
) -> None:
    early, late = artifact(), artifact(steps=10, uri="rungs/10")
    for one in (late, early, artifact(owner="x")):
        database.add_artifact(one)
    assert database.artifact("rung", early.owner) == late
    assert database.artifact("rung", early.owner, steps=5) == early
    assert database.artifact("rung", early.owner, steps=7) is None
    assert database.artifact("prompt", early.owner) is None
    assert len(database.artifacts()) == 3
    assert database.artifacts(owner="x") == [artifact(owner="x")]
    assert database.artifacts("prompt") == []


def test_of_two_artifacts_for_one_step_the_newer_counts(database: Database) -> None:
    database.add_artifact(artifact())
    newer = artifact(digest="c" * 64)
    database.add_artifact(newer)
    assert database.artifact("rung", newer.owner, steps=5) == newer
    assert database.artifact("rung", newer.owner) == newer


def test_only_the_newest_checkpoint_of_a_trial_is_kept(database: Database) -> None:
    kept = [artifact(), artifact(kind="checkpoint", owner="other")]
    newest = artifact(kind="checkpoint", steps=9, uri="checkpoints/9")
    for one in (*kept, artifact(kind="checkpoint", steps=8), newest):
        database.add_artifact(one)
    assert database.artifacts() == [*kept, newest]
    assert database.artifact("checkpoint", newest.owner) == newest


def test_a_document_is_kept_whole_and_replaced_by_a_newer_one(database: Database) -> None:
    body = {"ranking": [["one", 0.1 + 0.2], ["zwö", None]]}
    database.put_document("similarity", "b", {"old": 1})
    database.put_document("similarity", "a", [1])
    database.put_document("other", "a", 2)
    database.put_document("similarity", "b", body)
    assert database.documents("similarity") == {"a": [1], "b": body}
    assert list(database.documents("similarity")) == ["a", "b"]
    assert database.documents("nothing") == {}


def test_a_changed_document_is_not_believed(database: Database) -> None:
    database.put_document("similarity", "b", {"score": 0.25})
    _execute(database.url, "UPDATE document SET body = '{\"score\": 0.95}'")
    with pytest.raises(DataError, match="similarity 'b' was changed after it was written"):
        database.documents("similarity")


def _execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


# --- opened again --------------------------------------------------------------------------------


def test_everything_is_there_when_it_is_opened_again_for_reading_or_writing(
    url: str, database: Database, runs: list[Run]
) -> None:
    database.add_point(_point(runs))
    database.close()
    for read_only in (True, False):
        with Database(url, read_only=read_only) as again:
            assert again.points() == [_point(runs)]
            assert again.studies() == [study()]


def test_a_database_that_is_open_for_reading_refuses_every_change(
    url: str, database: Database
) -> None:
    with Database(url, read_only=True) as reader:
        for work in (
            lambda: reader.add_runs([run()]),
            lambda: reader.add_study(study()),
            lambda: reader.add_artifact(artifact()),
            lambda: reader.put_document("a", "b", 1),
        ):
            with pytest.raises(UsageError, match="was opened for reading only"):
                work()
    assert database.present([run().key]) == set()


def test_a_reader_sees_what_is_written_while_it_is_open(url: str, database: Database) -> None:
    with Database(url, read_only=True) as reader:
        assert reader.studies() == []
        database.add_study(study())
        assert reader.studies() == [study()]


def test_it_says_which_tables_are_there(database: Database) -> None:
    assert database.has_table("run")
    assert not database.has_table("studies")
