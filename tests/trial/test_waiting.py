"""A trial that somebody decides about waits for the baseline, which gives its scores."""

from __future__ import annotations

from typing import Any

import pytest
from search_toys import bits
from trial_toys import Bench

from mpt.downstream.limits import PackLimits
from mpt.store.records import Artifact
from mpt.store.state import write_folder_state
from mpt.study.specs import baseline_trials
from mpt.trial import pack_limits, trial
from mpt.trial.trial import Trial

WIDE = PackLimits(runs=8, tokens=256, pass_cost=16, source="a test")
"""All runs of a task go on side by side."""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting takes no time."""
    monkeypatch.setattr(trial, "WAIT_S", 0.0)


def _until_waiting(work: Trial) -> None:
    while not work.unit().waiting:
        assert not work.progress.done


@pytest.mark.usefixtures("hasty")
def test_a_trial_that_others_decide_about_waits_for_the_baseline_at_each_rung(
    one: Bench, whole: dict[str, Any]
) -> None:
    waiting = one.trial(0, wait=True)
    _until_waiting(waiting)
    assert waiting.progress.steps == 2
    assert waiting.progress.scores == {}
    for _ in range(3):
        assert waiting.unit().waiting
    assert [point.steps for point in one.database.points()] == [2]
    one.run_baseline()
    report = waiting.unit()
    assert set(report.scores) == {2}
    assert not report.done
    list(waiting.units())
    assert set(waiting.progress.scores) == {2, 4, 6}
    one.run(1, wait=True)
    assert bits(one.job.results) == whole


@pytest.mark.usefixtures("hasty")
def test_a_trial_that_nobody_decides_about_does_not_wait(one: Bench) -> None:
    work = one.trial(0)
    assert not [progress for progress in work.units() if progress.waiting]
    assert work.progress.scores == {}


@pytest.mark.usefixtures("hasty")
def test_a_waiting_trial_stands_in_for_a_lost_one_with_the_same_bits(
    two_uneven: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lost trial has left a checkpoint, and runs that it stored afterwards."""
    one, quiet = two_uneven
    monkeypatch.setattr(pack_limits, "pack_limits", lambda *_: WIDE)
    lost = one.trial_of(baseline_trials(one.job.plans[0])[1])
    lost.unit()
    _keep_checkpoint(one, lost)
    while not one.store.brought:
        lost.unit()
    assert len(one.store.brought) < 4, "all of its runs ended at once"
    monkeypatch.setattr(trial, "PATIENCE_S", 0.0)
    work = one.trial(0, wait=True)
    list(work.units())
    assert work.progress.problems == []
    assert set(work.progress.scores) == {2, 4}
    quiet.run_baseline()
    quiet.run(0)
    assert bits(one.job.results) == bits(quiet.job.results)


@pytest.mark.usefixtures("hasty")
def test_a_broken_checkpoint_of_a_lost_trial_is_named_and_its_runs_are_done_anew(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = one.trial_of(baseline_trials(one.job.plans[0])[0])
    lost.unit()
    _keep_checkpoint(one, lost)
    name = "checkpoints/lost/checkpoint_000000/state.safetensors"
    (one.job.results / name).write_bytes(b"")
    monkeypatch.setattr(trial, "PATIENCE_S", 0.0)
    work = one.trial(0, wait=True)
    list(work.units())
    (problem,) = work.progress.problems
    assert problem.startswith(f"{name}: its checksum does not fit")
    assert problem.endswith("its runs start anew")
    assert set(work.progress.scores) == {2, 4, 6}


def _keep_checkpoint(found: Bench, work: Trial) -> None:
    """Do what Tune and the driver do after a unit."""
    name = "checkpoints/lost/checkpoint_000000"
    write_folder_state(found.job.results / name, work.state())
    found.store.add_artifact(Artifact(kind="checkpoint", owner=work.owner, steps=0, uri=name))


@pytest.mark.usefixtures("hasty")
def test_a_waiting_trial_is_patient_as_long_as_the_baseline_gives_signs(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(trial, "PATIENCE_S", 10.0)
    work = one.trial(0, wait=True)
    _until_waiting(work)
    brought = len(one.store.brought)
    slow = one.trial_of(baseline_trials(one.job.plans[0])[0])
    for _ in range(3):  # a checkpoint of the other trial, or a run, every nine seconds
        slow.unit()
        _keep_checkpoint(one, slow)
        one.store.add_artifact(
            Artifact(kind="checkpoint", owner=slow.owner, steps=0, uri=f"checkpoint-{now[0]}")
        )
        now[0] += 9.0
        assert work.unit().waiting
    assert len(one.store.brought) == brought + 4  # those of the slow trial
    now[0] += 9.0
    assert work.unit().waiting
    assert len(one.store.brought) == brought + 4
    now[0] += 9.0
    work.unit()
    assert len(one.store.brought) == brought + 8
