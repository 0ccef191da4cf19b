"""A trial goes on from the state of any unit, and its numbers do not show it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drivers import run_rows
from search_toys import bits, with_rungs
from trial_toys import Bench, bench, through_a_folder

from mpt.search.job import SearchJob
from mpt.store.database import Database
from mpt.store.records import Run
from mpt.study.study import OpenStudy
from mpt.upstream.engine import UpstreamRun


def test_a_trial_goes_on_from_the_state_of_every_unit_with_the_same_bits(
    job: SearchJob, study: OpenStudy, tmp_path: Path
) -> None:
    """Also where the process lived on for some units after its last checkpoint."""
    job = with_rungs(job, (2, 4))
    with bench(job, study) as undisturbed:
        count = sum(1 for _ in undisturbed.trial(0).units())
    assert count >= 8
    expected = bits(job.results)
    states, places = [], []
    with bench(job, study, results=tmp_path / "killed") as found:
        killed = found.trial(0)
        for number in range(count + 1):
            states.append(through_a_folder(killed.state()))
            places.append(shutil.copytree(tmp_path / "killed", tmp_path / f"after-{number}"))
            if number < count:
                killed.unit()
    for stop in range(count):
        lived_on = min(stop % 3, count - stop)
        place = shutil.copytree(places[stop + lived_on], tmp_path / str(stop))
        stored = run_rows(place)
        with bench(job, study, results=place) as found:
            after = found.trial(0)
            after.load_state(states[stop])
            assert sum(1 for _ in after.units()) <= count - stop + 1
        assert stored.items() <= run_rows(place).items()
        assert bits(place) == expected


def test_a_kill_in_the_first_unit_of_a_queue_of_runs_changes_no_bit(
    two_uneven: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units are long: runs are stored before one ends, and the next process counts them in."""
    one, other = two_uneven
    other.run(0, chunk_s=1e9)
    real, left = Database.add_runs, [0]

    def dying(database: Database, runs: list[Run]) -> list[str]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(database, runs)

    monkeypatch.setattr(Database, "add_runs", dying)
    kills, state = 0, one.trial(0).state()
    for commits in itertools.chain([1, 2, 1, 2, 1], itertools.repeat(10**9)):
        left[0] = commits
        work = one.trial(0, chunk_s=1e9)
        work.load_state(state)
        try:
            while not work.unit().done:
                state = through_a_folder(work.state())
        except KeyboardInterrupt:
            kills += 1
            continue
        break
    assert kills == 5
    assert bits(one.job.results) == bits(other.job.results)


def test_a_state_beyond_a_new_rung_is_of_no_use_and_the_trial_learns_anew(
    one: Bench, job: SearchJob, study: OpenStudy, whole: dict[str, Any]
) -> None:
    with bench(with_rungs(job, (6,)), study) as late:
        trial_ = late.trial(0)
        list(trial_.units())
        state = through_a_folder(trial_.state())
    again = one.trial(0)
    again.load_state(state)
    list(again.units())
    assert again.progress.problems == []
    found = bits(job.results)
    assert {point.steps for point in one.database.points()} == {2, 4, 6}
    assert found.items() <= whole.items()


def test_a_longer_search_goes_on_from_the_last_state(
    one: Bench, job: SearchJob, study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(with_rungs(job, (2, 4)), study) as short:
        trial_ = short.trial(0)
        list(trial_.units())
        state = through_a_folder(trial_.state())
    advanced: list[int] = []
    step = UpstreamRun.advance

    def counted(run: UpstreamRun, steps: int) -> None:
        advanced.append(steps)
        step(run, steps)

    monkeypatch.setattr(UpstreamRun, "advance", counted)
    longer = one.trial(0)
    longer.load_state(state)
    list(longer.units())
    assert sum(advanced) == 2
    assert [point.steps for point in one.database.points()] == [2, 4, 6]


def _torn(state: dict[str, Any]) -> dict[str, Any]:
    upstream = dict(state["upstream"])
    del upstream["tensors"]["prompt"]
    return {**state, "upstream": upstream}


def _of_another_trial(state: dict[str, Any]) -> dict[str, Any]:
    meta = {**state["upstream"]["meta"], "key": "f" * 64}
    return {**state, "upstream": {**state["upstream"], "meta": meta}}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(_torn, "checkpoint is incomplete"), (_of_another_trial, "checkpoint is of trajectory ffff")],
)
def test_a_state_that_cannot_be_used_is_named_and_the_result_is_the_same(
    one: Bench,
    whole: dict[str, Any],
    spoil: Callable[[dict[str, Any]], dict[str, Any]],
    says: str,
) -> None:
    killed = one.trial(0)
    while killed.unit().steps < 1:
        continue
    again = one.trial(0)
    again.load_state(spoil(through_a_folder(killed.state())))
    list(again.units())
    (problem,) = again.progress.problems
    assert says in problem
    one.run(1)
    one.run_baseline()
    assert bits(one.job.results) == whole


def test_a_queue_state_with_a_gap_is_named_and_its_runs_start_anew(
    one: Bench, whole: dict[str, Any]
) -> None:
    killed = one.trial(0)
    while killed.unit().queue is None:
        continue
    state = through_a_folder(killed.state())
    del state["queue"]["queue"]["records"]
    again = one.trial(0)
    again.load_state(state)
    list(again.units())
    (problem,) = again.progress.problems
    assert "records" in problem
    assert problem.endswith("its runs start anew")
    assert bits(one.job.results).items() <= whole.items()
