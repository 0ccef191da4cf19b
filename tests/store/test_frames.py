"""The frames that people read."""

from __future__ import annotations

import pytest
from store_records import diverged, point, run, study

from mpt.store.database import Database


@pytest.fixture
def full(database: Database) -> Database:
    runs = [run(0), run(1, recipe={"prompt": {"length": 3}}), diverged(2)]
    database.add_runs(runs)
    database.add_study(study())
    database.add_point(point(tuple(one.key for one in runs)))
    database.add_point(point((runs[0].key,), steps=100, settings={"method": "x", "outer_lr": 3}))
    return database


def test_runs_are_a_frame_with_their_recipes_and_commits(full: Database) -> None:
    frame = full.table("runs").set_index("key").loc[[run(0).key, diverged(2).key]]
    assert list(frame["task"]) == ["toy", "toy"]
    assert frame["test"].iloc[0] == 1 / 3
    assert frame["test"].isna().to_list() == [False, True]
    assert frame["downstream.steps"].iloc[0] == 5
    assert frame["prompt.length"].iloc[0] == 2
    assert frame["commit"].iloc[0] == "c0ffee"
    assert frame["tokens"].iloc[0] == 400
    assert frame["curve"].iloc[0] == [[2, 0.25, 1.25], [4, 0.1 + 0.2, None]]


def test_points_are_a_frame_with_their_settings_and_the_number_of_runs(full: Database) -> None:
    frame = full.table("points")
    assert list(frame["study"]) == [study().id] * 2
    assert list(frame["runs"]) == [3, 1]
    assert list(frame["steps"]) == [50, 100]
    assert frame["inner_lr"].iloc[0] == 0.1
    assert frame["nested.list"].iloc[0] == [1, 2.5]
    assert list(frame["method"]) == ["maml", "maml"]
    assert frame["setting.method"].iloc[1] == "x"  # a setting that is called like a column


def test_studies_are_a_frame(full: Database) -> None:
    (row,) = full.table("studies").to_dict("records")
    assert row["id"] == study().id
    assert row["key"] == study().key
    assert row["data_seeds"] == (13, 21)
    assert row["settings"] == {"downstream": {"steps": 5}}
    assert row["source_shots"] == "all"


@pytest.mark.parametrize("name", ["runs", "points", "studies"])
def test_an_empty_frame_has_columns(database: Database, name: str) -> None:
    frame = database.table(name)
    assert len(frame) == 0
    assert "key" in frame.columns


def test_no_frame_shows_what_means_nothing_outside(full: Database) -> None:
    for name in ("runs", "points", "studies"):
        columns = set(full.table(name).columns)
        assert not columns & {"recipe_id", "provenance_id", "study_id", "checksum"}


def test_an_unknown_frame_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="must be one of studies, runs, points"):
        database.table("leaves")
