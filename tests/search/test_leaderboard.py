"""Where a search stands, as the database has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from search_toys import SEEDS, VALIDATION, with_rungs
from trial_toys import Bench, bench

from mpt.search.job import SearchJob
from mpt.search.leaderboard import Leaderboard, ranked
from mpt.store.database import Database
from mpt.store.records import Stop
from mpt.study.specs import TrialSpec, baseline_trials
from mpt.study.study import OpenStudy
from mpt.trial.store import TrialStore

POINT = len(VALIDATION) * len(SEEDS) * 2
"""Runs of a point: two learning rates."""


@pytest.fixture
def half(job: SearchJob, study: OpenStudy) -> Iterator[Bench]:
    """The first trial whole, the first rung of the second, and the baseline."""
    with bench(job, study) as found:
        found.run(0, chunk_s=1e9)
        short = with_rungs(job, (2,)).trials[1]
        list(found.trial_of(short, chunk_s=1e9).units())
        found.run_baseline()
        yield found


def board_of(found: Bench, **changes: object) -> Leaderboard:
    job = dataclasses.replace(found.job, **changes)
    return Leaderboard(job, lambda _: found.studies[0], found.database)


def scored_rungs(board: Leaderboard, index: int) -> list[int]:
    return [entry.steps for entry in board.of_trial(index) if entry.score is not None]


def test_what_is_stored_is_known_by_rung(half: Bench) -> None:
    board = board_of(half)
    assert [scored_rungs(board, index) for index in (0, 1)] == [[2, 4, 6], [2]]
    assert [board.over(0), board.over(1)] == [True, False]
    assert board.index_of(half.job.trials[1]) == 1
    assert board.baseline_there(half.job.plans[0])
    entry = board.entry(0, 4)
    assert entry.record is not None
    assert (entry.steps, entry.record.steps, entry.trial) == (4, 4, half.job.trials[0])
    assert board.by_key(board.point_key(entry)) == entry
    assert board.by_key("another") is None
    assert [one.record is None for one in board.entries()] == 4 * [False] + 2 * [True]


def test_an_empty_database_has_no_points(job: SearchJob, study: OpenStudy) -> None:
    with bench(job, study) as found:
        board = board_of(found)
        entries = board.entries()
        assert len(entries) == 6
        assert {(one.record, one.score, one.stopped) for one in entries} == {(None, None, None)}
        assert ranked(entries) == []
        assert not board.baseline_there(job.plans[0])
        assert board.run_costs(entries)["runs"] == 0


def test_a_point_without_its_baseline_has_no_score_until_it_lands(
    job: SearchJob, study: OpenStudy
) -> None:
    with bench(with_rungs(job, (2,)), study) as found:
        found.run(0)
        board = board_of(found)
        key = board.point_key(board.entry(0, 2))
        assert board.entry(0, 2).record is not None
        assert board.entry(0, 2).score is None
        found.run_baseline()
        assert board.entry(0, 2).score is None  # what was read stays until it is asked again
        board.refresh([key])
        assert board.entry(0, 2).score is not None


def test_a_point_that_is_whole_is_read_once(half: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    board = board_of(half)
    first = board.entries()
    asked: list[set[str]] = []
    real = Database.points_of

    def reading(database: Database, keys: set[str]) -> object:
        asked.append(set(keys))
        return real(database, keys)

    monkeypatch.setattr(Database, "points_of", reading)
    monkeypatch.setattr(Database, "evidence", lambda _, keys: [] if not keys else 1 / 0)
    assert board.entries() == first
    missing = {board.point_key(one) for one in first if one.record is None}
    assert set().union(*asked) == missing


def test_a_stop_counts_for_its_rung_and_all_later_ones(half: Bench) -> None:
    board = board_of(half, racing=True)
    stop = board.stop(1, 4, "racing", "it cannot reach the leader")
    for seen in (board, board_of(half, racing=True)):  # at once, and read from the database
        entries = seen.entries()
        assert [one.stopped for one in entries[:4]] == 4 * [None]
        assert [_without_time(one.stopped) for one in entries[4:]] == 2 * [_without_time(stop)]
        assert seen.over(1)
    # without racing, nobody is stopped by it
    assert not board_of(half).over(1)
    assert [one.stopped for one in board_of(half).entries()] == 6 * [None]


def _without_time(stop: Stop | None) -> Stop | None:
    return None if stop is None else dataclasses.replace(stop, created="")


def test_a_stop_also_counts_where_there_are_more_rungs_now(half: Bench) -> None:
    board_of(half, racing=True).stop(1, 4, "racing", "because")
    longer = with_rungs(half.job, (2, 4, 6, 8), racing=True)
    board = Leaderboard(longer, lambda _: half.studies[0], half.database)
    assert [one.stopped is not None for one in board.entries()] == [
        *[False, False, False, False],
        *[False, True, True, True],
    ]
    assert not board.over(0)


def test_a_stopped_point_that_is_stored_after_all_counts_as_stored(half: Bench) -> None:
    board_of(half, racing=True).stop(1, 4, "racing", "because")
    half.run(1)
    board = board_of(half, racing=True)
    assert [one.stopped for one in board.entries()] == 6 * [None]
    assert len(ranked(board.entries())) == 6


def test_the_highest_score_stands_first_and_equal_ones_keep_their_order(half: Bench) -> None:
    entries = board_of(half).entries()
    order = ranked(entries)
    scores = [one.score.score for one in order if one.score is not None]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    alike = [dataclasses.replace(one, score=order[0].score) for one in entries]
    assert ranked(alike) == alike


def test_the_baseline_has_no_rank(half: Bench) -> None:
    spec = baseline_trials(half.job.plans[0])[0]
    whole = TrialSpec(plan=spec.plan, upstream=spec.upstream)
    board = board_of(half, trials=(whole, half.job.trials[0]))
    assert board.over(0)
    assert [one.index for one in ranked(board.entries())] == [1, 1, 1]
    assert ranked(board.entries()) != board.entries()


def test_the_baseline_is_counted_once_in_the_costs(half: Bench) -> None:
    board = board_of(half)
    entries = board.entries()
    costs = board.run_costs(entries)
    assert costs["runs"] == 4 * POINT + POINT
    assert costs["steps"] == 4 * 5 * POINT
    assert costs["tokens"] > 0
    assert board.run_costs(entries[:1], baselines=False)["runs"] == POINT


def test_a_trial_that_was_not_listed_can_be_added_once(half: Bench, study: OpenStudy) -> None:
    first = half.job.trials[0]
    board = board_of(half, trials=(first,))
    second = half.job.trials[1]
    assert board.index_of(second) is None
    assert board.add(second, study) == 1
    assert board.add(second, study) == 1
    assert board.add(first, study) == 0
    assert scored_rungs(board, 1) == [2]
    assert [one.index for one in board.entries()] == [0, 0, 0, 1, 1, 1]


def test_points_of_another_study_are_not_seen(half: Bench, study: OpenStudy) -> None:
    """The same trajectory with another downstream recipe is another study."""
    config = dataclasses.replace(
        study.config, downstream=dataclasses.replace(study.config.downstream, steps=6)
    )
    other = dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))
    trials = tuple(dataclasses.replace(one, plan=other.plan) for one in half.job.trials)
    job = dataclasses.replace(half.job, trials=trials)
    board = Leaderboard(job, lambda _: other, half.database)
    assert {one.record for one in board.entries()} == {None}
    assert not board.baseline_there(other.plan)


def test_scores_are_those_of_a_store_that_reads_everything_anew(half: Bench) -> None:
    entries = [one for one in board_of(half).entries() if one.score is not None]
    fresh = TrialStore(half.database)
    for one in entries:
        assert one.record is not None
        assert fresh.scores([one.record.key]) == {one.record.key: one.score}
