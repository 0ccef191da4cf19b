"""The one writer of a database file, without Ray: its answers, and what a worker sees of them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_records import artifact, point, run
from store_records import study as a_study
from stored import Stored

from mpt.config import UpstreamConfig
from mpt.errors import DataError
from mpt.search.ray.writer import RemoteStore, ResultWriter, start_writer
from mpt.store.database import Database, database_url


class _Calls:
    """Stands for an actor's handle: a call goes over as bytes, as to another process.

    Args:
        writer: the actor.
    """

    def __init__(self, writer: ResultWriter) -> None:
        self._writer = writer
        self.call = self  # `writer.call.remote(...)`
        self.names: list[str] = []

    def remote(self, name: str, arguments: tuple[Any, ...]) -> bytes:
        self.names.append(name)
        sent = pickle.loads(pickle.dumps(arguments))
        return pickle.dumps(self._writer.call(name, sent))


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ResultWriter]:
    monkeypatch.delenv("RAY_RAYLET_PID", raising=False)  # no worker: nothing ends this process
    writer = ResultWriter(database_url(tmp_path))
    yield writer
    writer.close()


@pytest.fixture
def calls(writer: ResultWriter, monkeypatch: pytest.MonkeyPatch) -> _Calls:
    monkeypatch.setattr("ray.get", pickle.loads)
    return _Calls(writer)


def test_the_writer_scores_a_point_that_beats_plain_prompt_tuning_by_a_tenth(
    writer: ResultWriter, tmp_path: Path
) -> None:
    stored = Stored(tmp_path)
    study = stored.study()  # one task, two data seeds, each scored 0.5
    key = stored.point(study, UpstreamConfig(method="maml"), 50, 10.0)
    fine, scores = writer.call("scores", ([key, "0" * 64],))
    assert fine
    assert list(scores) == [key]
    score = scores[key]
    assert score.score == pytest.approx(10.0)
    assert score.mean_test == pytest.approx(0.55)
    assert score.runs == 2


def test_an_error_with_a_cure_is_an_answer_and_a_bug_is_none(writer: ResultWriter) -> None:
    assert writer.call("add_study", (a_study(),)) == (True, a_study().key)
    fine, error = writer.call("add_point", (point(("absent",)),))
    assert not fine
    assert isinstance(error, DataError)
    twice = point(("a", "a"))
    with pytest.raises(ValueError, match="names a run twice") as caught:
        writer.call("add_point", (twice,))
    assert not isinstance(caught.value, DataError)


def test_a_worker_reads_and_writes_through_the_writer_as_if_the_database_were_here(
    calls: _Calls, tmp_path: Path
) -> None:
    store, one, two = RemoteStore(calls), run(1), run(2)
    assert store.add_study(a_study()) == a_study().key
    assert store.add_runs([one]) == [one.key]
    assert store.add_runs([one, two]) == [two.key]  # the first writer wins
    assert store.present([one.key, "absent"]) == {one.key}
    first = point((one.key, two.key))
    assert [store.add_point(first), store.add_point(first)] == [True, False]
    assert store.points([first.key]) == {first.key: first}
    store.add_artifact(artifact())
    assert store.rung(artifact().owner, artifact().steps).uri == artifact().uri
    assert store.checkpoint(artifact().owner) is None
    store.keep_pack_limits("a GPU", {"tokens": 5})
    assert store.pack_limits("a GPU") == {"tokens": 5}
    assert calls.names[:3] == ["add_study", "add_runs", "add_runs"]
    with Database(database_url(tmp_path), read_only=True) as database:  # it is on disk
        assert set(database.runs([one.key, two.key])) == {one.key, two.key}


def test_a_worker_meets_the_error_that_the_writer_answered_with(calls: _Calls) -> None:
    store = RemoteStore(calls)
    store.add_study(a_study())
    with pytest.raises(DataError) as caught:
        store.add_point(point(("absent",)))
    assert "absent" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["baseline", "_database", "close", "anything"])
def test_what_is_not_for_workers_is_never_asked_of_the_writer(calls: _Calls, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(RemoteStore(calls), name)
    assert calls.names == []


def test_a_database_server_needs_no_writer() -> None:
    assert start_writer("postgresql+psycopg://host/results") is None
