"""Where a search stands, and the result as a document for other programs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mpt.records import LeafStore
from mpt.search.display.document import document_of, plan_document
from mpt.search.job import SearchJob
from mpt.search.standing import Standings
from mpt.study.study import Study
from mpt.trial.trajectory import TrajectoryWork


@pytest.fixture(scope="session")
def computed(
    study: Study, toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A results directory with the first course whole and the first rung of the second."""
    from search_toys import toy_job

    job = toy_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("computed"))
    for course, rungs in zip(job.courses, ((2, 4, 6), (2,)), strict=True):
        few = dataclasses.replace(course.trajectory, rungs=rungs)
        list(TrajectoryWork(study, few, job.results, 1e9).units())
    return job.results


@pytest.fixture
def half(job: SearchJob, computed: Path) -> SearchJob:
    """The toy search with these records in a directory of its own."""
    shutil.copytree(computed, job.results)
    return job


def _standings(job: SearchJob, study: Study) -> Standings:
    return Standings(job, lambda plan: study)


def _document(job: SearchJob, standings: Standings, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"exit_code": 4, "failures": {}, "command": "again", **changes}
    found = document_of(job, standings, **settings)
    text = json.dumps(found, allow_nan=False)  # it can be written, and holds no NaN
    assert json.loads(text)["version"] == 1
    return found


def test_what_is_recorded_is_known_by_rung(half: SearchJob, study: Study) -> None:
    standings = _standings(half, study)
    assert list(standings.rung_scores(0)) == [2, 4, 6]
    assert list(standings.rung_scores(1)) == [2]
    assert [standings.over(0), standings.over(1)] == [True, False]
    assert standings.index_of(half.courses[1]) == 1
    assert standings.complete(0)
    assert not standings.complete(1)


def test_a_point_that_is_whole_is_read_once(
    half: SearchJob, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    standings = _standings(half, study)
    first = standings.entries()
    monkeypatch.setattr(LeafStore, "get", lambda *_: pytest.fail("a leaf is read again"))
    there = [entry for entry in first if entry.score is not None]
    assert [standings.entry(entry.index, entry.steps) for entry in there] == there


def test_a_stop_counts_for_its_rung_and_all_later_ones(half: SearchJob, study: Study) -> None:
    job = dataclasses.replace(half, racing=True)
    standings = _standings(job, study)
    stop = standings.stop(1, 4, "racing", "it cannot reach the leader")
    for there in (standings, _standings(job, study)):  # at once, and read from disk
        assert [entry.stopped for entry in there.entries()] == 4 * [None] + 2 * [stop]
        assert there.over(1)
        assert there.stops == [stop]


def test_the_document_holds_every_point_best_first(half: SearchJob, study: Study) -> None:
    standings = _standings(half, study)
    found = _document(half, standings, failures={1: "no room"})
    points = found["points"]
    assert [point["rank"] for point in points] == [1, 2, 3, 4, None, None]
    scores = [point["score"] for point in points[:4]]
    assert scores == sorted(scores, reverse=True)
    assert found["best"] == 0
    assert found["exit_code"] == 4
    assert found["next"] == "again"
    assert found["failures"] == [{"course": half.courses[1].name, "reason": "no room"}]
    assert found["cost"]["leaves"] == 4 * 8 + 8  # the shared baseline is counted once
    missing = points[-1]
    assert (missing["status"], missing["arg"], missing["cost"]) == ("missing", None, None)
    assert missing["settings"]["inner_lr"] == 1.0


def test_a_point_of_the_document_agrees_with_its_record(half: SearchJob, study: Study) -> None:
    standings = _standings(half, study)
    entry = standings.entry(0, 6)
    assert entry.record is not None
    assert entry.score is not None
    assert entry.score.gain is not None
    (point,) = (
        one
        for one in _document(half, standings)["points"]
        if (one["course"], one["steps"]) == (half.courses[0].name, 6)
    )
    assert point["keys"] == {
        "point": entry.record["key"],
        "trajectory": entry.record["trajectory"],
        "prompt": entry.record["prompt"],
    }
    assert point["arg"] == entry.score.gain.arg_of_defined
    assert point["interval"] == [entry.score.gain.low, entry.score.gain.high]
    assert point["leaves"] == {"there": 8, "of": 8}
    assert point["cost"]["upstream"]["steps"] == 6
    assert point["cost"]["downstream"]["leaves"] == 8
    assert point["cost"]["downstream"]["steps"] == 8 * 4
    assert (point["method"], point["partition"]) == ("maml", "random_to_random")


def test_what_was_stopped_is_told_with_its_reason(half: SearchJob, study: Study) -> None:
    job = dataclasses.replace(half, racing=True)
    standings = _standings(job, study)
    standings.stop(1, 4, "racing", "it cannot reach the leader")
    found = _document(job, standings, exit_code=0)
    stopped = [point for point in found["points"] if point["status"] == "stopped"]
    assert [point["steps"] for point in stopped] == [4, 6]
    assert {point["note"] for point in stopped} == {
        "stopped by racing at rung 4: it cannot reach the leader"
    }
    assert found["stoppers"] == ["racing"]


def test_a_search_without_any_point_has_no_best_one(job: SearchJob, study: Study) -> None:
    found = _document(job, _standings(job, study))
    assert found["best"] is None
    assert {point["status"] for point in found["points"]} == {"missing"}


def test_a_plan_says_which_points_are_there(half: SearchJob, study: Study) -> None:
    entries = _standings(half, study).entries()
    found = plan_document(half, entries, ["time 1 h"])
    assert [point["status"] for point in found["points"]] == 4 * ["ok"] + 2 * ["missing"]
    assert found["plan"] == ["time 1 h"]
    assert found["courses"] == 2
