"""The queue of runs of a trial: stored as they finish, resumed bit by bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from search_toys import toy_job, toy_study
from trial_toys import RecordingStore, through_a_folder

from mpt.config import DownstreamConfig
from mpt.downstream.limits import PackLimits, default_limits
from mpt.errors import DataError
from mpt.store.database import Database, open_results
from mpt.store.records import Run
from mpt.study.study import OpenStudy, open_study
from mpt.trial.run_queue import RunQueue
from mpt.trial.runs import RunPack, baseline_packs, keys_of, learned_packs

INTERVALS = 3
NARROW = PackLimits(runs=3, tokens=256, pass_cost=16, source="a test")
"""Three runs go on side by side, so that others wait and enter."""


@pytest.fixture(scope="module")
def long_study(toy_checkpoint: Path, toy_gym: Path) -> OpenStudy:
    """The toy study with three evaluation intervals a run."""
    downstream = DownstreamConfig(
        lrs=(0.5, 0.2), batch_size=2, steps=6, eval_every=2, max_generated=3
    )
    job = toy_job(toy_checkpoint, toy_gym, Path("unused"), downstream=downstream)
    return open_study(job.plans[0])


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_results(tmp_path / "results") as found:
        yield found


@pytest.fixture
def store(database: Database) -> RecordingStore:
    return RecordingStore(database)


def _packs(study: OpenStudy) -> list[RunPack]:
    prompt = torch.linspace(-1, 1, 3 * study.backbone.d_model).reshape(3, -1)
    return learned_packs(study, prompt)


def _queue(
    study: OpenStudy, store: RecordingStore, packs: list[RunPack] | None = None
) -> RunQueue:
    return RunQueue(study, packs or _packs(study), store, lambda _: NARROW)


def _finish(queue: RunQueue) -> int:
    """Work to the end one interval at a time; return how many intervals that took."""
    count = 0
    while not queue.done:
        queue.advance(0)
        count += 1
    return count


def _bits(
    study: OpenStudy, store: RecordingStore, packs: list[RunPack] | None = None
) -> list[Run]:
    """Return what is stored, without clocks."""
    runs = store._database.runs(keys_of(packs or _packs(study)))
    return [
        dataclasses.replace(
            runs[key],
            cost=dataclasses.replace(runs[key].cost, seconds=0),
            provenance={},
            created="",
        )
        for key in sorted(runs)
    ]


@pytest.fixture(scope="module")
def whole(long_study: OpenStudy, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The bits of the long study's runs from a queue that nothing disturbed."""
    with open_results(tmp_path_factory.mktemp("whole")) as database:
        store = RecordingStore(database)
        assert _finish(_queue(long_study, store)) == math.ceil(8 / 3) * INTERVALS
        return _bits(long_study, store)


@pytest.mark.parametrize("stop", range(math.ceil(8 / 3) * INTERVALS))
def test_a_queue_taken_over_at_any_interval_gives_the_same_bits_and_does_nothing_twice(
    stop: int, long_study: OpenStudy, store: RecordingStore, whole: list[Run]
) -> None:
    killed = _queue(long_study, store)
    for _ in range(stop):
        killed.advance(0)
    state = killed.state()
    assert state is not None
    after = _queue(long_study, store)
    assert after.load_state(through_a_folder(state))
    assert _finish(after) == len(whole) // 3 * INTERVALS + INTERVALS - stop
    assert _bits(long_study, store) == whole
    assert set(store.brought) == {run.key for run in whole}


@pytest.mark.parametrize("behind", [1, 2, 3])
def test_a_state_from_before_the_last_stored_runs_gives_the_same_bits_and_loses_none(
    behind: int, long_study: OpenStudy, store: RecordingStore, whole: list[Run]
) -> None:
    """A kill falls between the storing of runs and the checkpoint that would know of it."""
    killed = _queue(long_study, store)
    for _ in range(INTERVALS - behind):
        killed.advance(0)
    state = through_a_folder(killed.state() or {})
    for _ in range(behind):
        killed.advance(0)
    there = store._database.runs(keys_of(_packs(long_study)))
    assert len(there) == 3
    after = _queue(long_study, store)
    assert after.load_state(state)
    _finish(after)
    assert _bits(long_study, store) == whole
    again = store._database.runs(list(there))
    assert again == there  # the rows are those that were written first


def test_a_kill_while_runs_are_stored_loses_none(
    long_study: OpenStudy, store: RecordingStore, whole: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = _queue(long_study, store)
    for _ in range(INTERVALS - 1):
        queue.advance(0)
    state = through_a_folder(queue.state() or {})

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Database, "add_runs", killed)
        with pytest.raises(KeyboardInterrupt):
            queue.advance(0)
    assert not store.present([run.key for run in whole])
    after = _queue(long_study, store)
    assert after.load_state(state)
    after.advance(0)
    assert len(store.brought) == 3
    _finish(after)
    assert _bits(long_study, store) == whole


def test_a_state_of_other_runs_is_left_alone_and_one_with_gaps_is_refused(
    long_study: OpenStudy, store: RecordingStore, whole: list[Run]
) -> None:
    queue = _queue(long_study, store)
    queue.advance(0)
    state = queue.state()
    assert state is not None
    other = _queue(long_study, store, baseline_packs(long_study))
    assert not other.load_state(state)
    assert not other.load_state({})
    assert other.share == 0
    fresh = _queue(long_study, store)
    for broken in ({"keys": state["keys"]}, {**state, "queue": {"identity": "?"}}):
        with pytest.raises(DataError):
            fresh.load_state(broken)
    with pytest.raises(DataError, match="differ"):
        fresh.load_state({**state, "keys": state["keys"][::-1]})
    _finish(fresh)  # it is as it was
    assert _bits(long_study, store) == whole


def test_a_state_before_any_work_names_the_runs_that_ride_together(
    long_study: OpenStudy, store: RecordingStore, whole: list[Run]
) -> None:
    state = _queue(long_study, store).state()
    assert state is not None
    state = through_a_folder(state)
    killed = _queue(long_study, store)
    for _ in range(INTERVALS):
        killed.advance(0)
    assert len(store.brought) == 3
    after = _queue(long_study, store)
    assert after.load_state(state)
    _finish(after)
    assert _bits(long_study, store) == whole


def test_only_missing_runs_are_computed_and_a_finished_queue_has_no_state(
    study: OpenStudy, store: RecordingStore
) -> None:
    packs = _packs(study)
    half = RunPack(packs[0].task, packs[0].runs[:2])
    RunQueue(study, [half], store, lambda _: NARROW).advance()
    assert store.brought == keys_of([half])
    queue = RunQueue(study, packs[:1], store, lambda _: NARROW)
    queue.advance()
    assert store.brought == keys_of(packs[:1])
    assert queue.done
    assert queue.state() is None
    third = RunQueue(study, packs[:1], store, lambda _: pytest.fail("limits of nothing"))
    assert third.done
    third.advance()
    assert len(store.brought) == 4


def test_a_stored_run_says_where_and_how_it_was_made(
    study: OpenStudy, store: RecordingStore, database: Database
) -> None:
    packs = _packs(study)[:1]
    RunQueue(study, packs, store, lambda _: NARROW).advance()
    runs = database.runs(keys_of(packs))
    assert set(runs) == set(keys_of(packs))
    for run in runs.values():
        assert run.test is not None
        assert 0 <= run.test <= 1
        assert set(run.provenance) == {"commit", "versions", "machine", "pack"}
        assert run.provenance["pack"] == NARROW.to_dict()
        assert run.created
        assert (run.cost.steps, run.cost.examples) == (4, 8)
        assert [entry[0] for entry in run.curve] == [2, 4]


def test_progress_counts_runs_steps_and_shares_of_runs(
    long_study: OpenStudy, store: RecordingStore
) -> None:
    queue = _queue(long_study, store)
    assert queue.status is None
    assert queue.share == 0
    queue.advance(0)
    now = queue.status
    assert now is not None
    assert (now.finished, now.running, now.waiting) == (0, 3, 5)
    assert queue.share == pytest.approx(8 * 6 / 48)  # 3 runs × 2 of 6 steps; 48 steps in all
    assert now.examples_s == pytest.approx(2 * now.steps_s)  # batches of two
    assert now.tokens_s > 3 * now.examples_s  # at least the prompt's three tokens each
    assert 0 < now.useful <= 1
    _finish(queue)
    assert queue.share == len(store.brought) == 8


def test_every_finished_run_is_handed_out_before_it_is_stored(
    study: OpenStudy, store: RecordingStore
) -> None:
    packs, kept = _packs(study)[:1], []

    def keep(run: Any, result: Any) -> None:
        assert run.key not in store.present([run.key])
        assert not torch.equal(result.prompt, run.prompt)
        kept.append(run.key)

    RunQueue(study, packs, store, lambda _: NARROW, keep).advance()
    assert kept == keys_of(packs)


def test_runs_that_diverge_are_results_with_nothing_for_nan(
    toy_checkpoint: Path, toy_gym: Path, study: OpenStudy, store: RecordingStore
) -> None:
    wild = dataclasses.replace(study.config.downstream, lrs=(1e38,))
    plan = toy_job(toy_checkpoint, toy_gym, Path("unused"), downstream=wild).plans[0]
    (pack, _) = baseline_packs(dataclasses.replace(study, plan=plan))
    own = dataclasses.replace(study, plan=plan)
    kept: list[str] = []

    def queue() -> RunQueue:
        return RunQueue(own, [pack], store, lambda _: NARROW, lambda run, _: kept.append(run.key))

    queue().advance()
    run = store._database.runs([pack.runs[0].key])[pack.runs[0].key]
    assert (run.status, run.dev, run.test, run.best_step) == ("diverged", None, None, 0)
    assert kept == []  # there is no prompt worth keeping
    assert queue().done  # it is a result, not a gap


def test_learning_rates_that_race_are_tuned_together(
    toy_checkpoint: Path, toy_gym: Path, store: RecordingStore
) -> None:
    config = toy_study(toy_checkpoint, toy_gym).downstream
    racing = dataclasses.replace(config, catch_up=0.5, catch_up_after=1)
    job = toy_job(toy_checkpoint, toy_gym, Path("unused"), downstream=racing)
    study = open_study(job.plans[0])
    pack = _packs(study)[0]
    RunQueue(study, [RunPack(pack.task, pack.runs[1:])], store, lambda _: NARROW).advance()
    assert len(store.brought) == 3
    RunQueue(study, [pack], store, lambda _: NARROW).advance()
    # the missing run, and beside it the rate that it races with
    assert store.brought[3:] == keys_of([pack])[:2]


def test_a_stopped_run_says_so(
    toy_checkpoint: Path, toy_gym: Path, store: RecordingStore, database: Database
) -> None:
    downstream = DownstreamConfig(
        lrs=(0.5,), batch_size=2, steps=40, eval_every=1, patience=2, max_generated=3
    )
    job = toy_job(toy_checkpoint, toy_gym, Path("unused"), downstream=downstream)
    study = open_study(job.plans[0])
    RunQueue(study, _packs(study), store, lambda _: NARROW).advance()
    stopped = [run for run in database.runs(store.brought).values() if run.stopped]
    assert stopped
    for run in stopped:
        last = run.curve[-1][0]
        assert run.stopped == f"patience at step {last}"
        assert run.cost.steps == last < 40


def test_limits_on_a_cpu_do_not_depend_on_the_machine(
    study: OpenStudy, store: RecordingStore
) -> None:
    from mpt.trial.pack_limits import pack_limits, remember_limits

    runs = list(_packs(study)[0].runs)
    assert pack_limits(study, runs, store) == default_limits(study.backbone.device)
    remember_limits(study, NARROW, store)
    assert store._database.documents("pack limits") == {}
