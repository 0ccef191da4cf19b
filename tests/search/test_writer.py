"""The one writer of a database file, without Ray: its answers, and what a worker sees of them."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_records import artifact, point, run
from store_records import study as a_study
from stored import Stored

from mpt.config import UpstreamConfig
from mpt.errors import DataError
from mpt.keys import canonical, digest
from mpt.search.ray.writer import RemoteStore, ResultWriter, start_writer
from mpt.store.database import Database, database_url
from mpt.store.records import point_key


class _Calls:
    """Stands for an actor's handle: a call goes over as bytes, as to another process.

    Args:
        writer: the actor.
    """

    def __init__(self, writer: ResultWriter) -> None:
        self._writer = writer
        self.call = self  # `writer.call.remote(...)`
        self.names: list[str] = []
        self.seen: Callable[[str, tuple[Any, ...]], object] = lambda *_: None
        """Called with each method and its arguments."""

    def remote(self, name: str, arguments: tuple[Any, ...]) -> bytes:
        self.names.append(name)
        self.seen(name, arguments)
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


def test_a_worker_scores_a_point_that_beats_plain_prompt_tuning_by_a_tenth(
    calls: _Calls, tmp_path: Path
) -> None:
    """The writer gives what the score is computed from: of the study and its baseline once."""
    stored = Stored(tmp_path)
    study = stored.study()  # one task, two data seeds, each scored 0.5
    one, two = (stored.point(study, UpstreamConfig(method="maml"), at, 10.0) for at in (50, 100))
    store = RemoteStore(calls)
    scores = store.scores([one, "0" * 64])
    assert list(scores) == [one]
    score = scores[one]
    assert score.score == pytest.approx(10.0)
    assert score.mean_test == pytest.approx(0.55)
    assert score.runs == 2
    assert sorted(calls.names) == ["evidence", "evidence", "study"]
    assert store.scores([one, two]).keys() == {one, two}
    assert calls.names[3:] == ["evidence"]


def test_a_point_that_waits_for_the_baseline_is_read_once(calls: _Calls) -> None:
    store, runs = RemoteStore(calls), [run(0), run(1)]
    store.add_study(a_study())
    store.add_runs(runs)
    first = point(tuple(one.key for one in runs))
    assert store.add_point(first)
    asked: list[list[str]] = []
    calls.seen = lambda name, arguments: asked.append(arguments[0]) if name == "evidence" else None
    assert store.scores([first.key]) == {}
    assert store.scores([first.key]) == {}
    base = point_key(a_study().key, "", 0)
    assert asked == [[first.key], [base], [base]]


def test_a_point_waits_until_its_last_run_is_stored(calls: _Calls) -> None:
    store, one, two = RemoteStore(calls), run(1), run(2)
    store.add_study(a_study())
    whole = point((one.key, two.key))
    store.add_runs([one])
    assert not store.add_point(whole)
    assert store.points([whole.key]) == {}
    store.add_runs([two])
    assert store.add_point(whole)
    assert store.points([whole.key]) == {whole.key: whole}


def test_a_waiting_worker_sees_new_runs_and_new_checkpoints_in_one_call(calls: _Calls) -> None:
    store, kept = RemoteStore(calls), artifact(kind="checkpoint")
    asked = [run(1).key, run(2).key], ["nobody", kept.owner]
    assert store.signs(*asked) == (0, [None, None])
    store.add_runs([run(1)])
    assert store.signs(*asked) == (1, [None, None])
    store.add_artifact(kept)
    assert store.signs(*asked) == (1, [None, kept.uri])
    assert calls.names.count("signs") == 3
    assert set(calls.names) == {"signs", "add_parts", "add_artifact"}


def test_rows_of_runs_and_their_digests_are_formed_by_the_worker(calls: _Calls) -> None:
    """Runs of a pack name one recipe and one provenance: these are digested once."""
    runs, sent = [run(1), run(2)], []
    origin = {"commit": "one"}
    runs = [dataclasses.replace(one, provenance=origin) for one in runs]
    calls.seen = lambda name, arguments: sent.append((name, arguments[0]))
    assert RemoteStore(calls).add_runs(runs) == [one.key for one in runs]
    ((name, parts),) = sent
    assert name == "add_parts"
    first, second = (parts[one.key] for one in runs)
    assert (first.run["key"], first.run["checksum"]) == (runs[0].key, runs[0].checksum)
    assert first.provenance == {"digest": digest(origin), "body": canonical(origin)}
    assert first.provenance is second.provenance
    assert first.recipe is second.recipe


def test_an_error_with_a_cure_is_an_answer_and_a_bug_is_none(writer: ResultWriter) -> None:
    assert writer.call("add_study", (a_study(),)) == (True, a_study().key)
    fine, error = writer.call("add_point", (point(study="0" * 64),))
    assert not fine
    assert isinstance(error, DataError)
    assert writer.call("add_runs", ([run(1)],)) == (True, [run(1).key])
    twice = point((run(1).key, run(1).key))
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
    assert [store.add_point(first), store.add_point(first)] == [True, True]
    assert store.points([first.key]) == {first.key: first}
    store.add_artifact(artifact())
    assert store.rung(artifact().owner, artifact().steps).uri == artifact().uri
    assert store.checkpoint(artifact().owner) is None
    store.keep_pack_limits("a GPU", {"tokens": 5})
    assert store.pack_limits("a GPU") == {"tokens": 5}
    assert calls.names[:3] == ["add_study", "add_parts", "add_parts"]
    with Database(database_url(tmp_path), read_only=True) as database:  # it is on disk
        assert set(database.runs([one.key, two.key])) == {one.key, two.key}


def test_a_worker_meets_the_error_that_the_writer_answered_with(calls: _Calls) -> None:
    with pytest.raises(DataError) as caught:
        RemoteStore(calls).add_point(point())
    assert "its study is not in" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["baseline", "_database", "close", "anything"])
def test_what_is_not_for_workers_is_never_asked_of_the_writer(calls: _Calls, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(RemoteStore(calls), name)
    assert calls.names == []


def test_a_database_server_needs_no_writer() -> None:
    assert start_writer("postgresql+psycopg://host/results") is None
