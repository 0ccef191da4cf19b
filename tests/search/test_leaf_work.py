from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from search_toys import bits, computed, toy_job, toy_study

from mpt.config import DownstreamConfig
from mpt.downstream.limits import PackLimits
from mpt.prompts import load_prompt
from mpt.records import LeafStore
from mpt.search.job import SearchJob
from mpt.storage import unseal
from mpt.study.study import Study, open_study
from mpt.trial import leaf_work as leaf_work_module
from mpt.trial.leaf_work import LeafWork, prompt_path
from mpt.trial.objective import Pack, leaf_identity, packs_of

INTERVALS = 3


@pytest.fixture(scope="module")
def long_study(toy_checkpoint: Path, toy_gym: Path) -> Study:
    """The toy study with three evaluation intervals a run."""
    downstream = DownstreamConfig(
        lrs=(0.5, 0.2), batch_size=2, steps=6, eval_every=2, max_generated=3
    )
    job = toy_job(toy_checkpoint, toy_gym, Path("unused"), downstream=downstream)
    return open_study(job.plans[0])


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let three runs go on side by side, so that others wait and enter."""
    limits = PackLimits(runs=3, tokens=256, pass_cost=16, source="a test")
    monkeypatch.setattr(leaf_work_module, "pack_limits", lambda *_: limits)


def _packs(study: Study) -> list[Pack]:
    prompt = torch.linspace(-1, 1, 3 * study.backbone.d_model).reshape(3, -1)
    return packs_of(study, lambda _: prompt)


def _finish(work: LeafWork) -> int:
    """Work to the end one interval at a time; return how many intervals that took."""
    count = 0
    while not work.done:
        work.advance(0)
        count += 1
    return count


@pytest.mark.usefixtures("narrow")
def test_a_queue_taken_over_at_any_interval_gives_the_same_bits_and_computes_nothing_twice(
    long_study: Study, tmp_path: Path
) -> None:
    whole = LeafWork(long_study, _packs(long_study), LeafStore(tmp_path / "whole"))
    intervals = _finish(whole)
    assert intervals == math.ceil(8 / 3) * INTERVALS  # 8 runs, three at a time
    for stop in range(1, intervals):
        store = LeafStore(tmp_path / str(stop))
        killed = LeafWork(long_study, _packs(long_study), store)
        for _ in range(stop):
            killed.advance(0)
        after = LeafWork(long_study, _packs(long_study), LeafStore(tmp_path / str(stop)))
        assert _finish(after) == intervals - stop  # no interval is done again
        assert bits(tmp_path / str(stop)) == bits(tmp_path / "whole")
        assert len(computed(tmp_path / str(stop))) == len(set(computed(tmp_path / str(stop)))) == 8
        assert not list((tmp_path / str(stop) / "packs").iterdir())


@pytest.mark.usefixtures("narrow")
def test_a_kill_between_the_state_and_the_commit_loses_no_leaf(
    long_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = LeafWork(long_study, _packs(long_study), LeafStore(tmp_path / "killed"))
    for _ in range(INTERVALS - 1):
        work.advance(0)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LeafStore, "put_many", killed)
        with pytest.raises(KeyboardInterrupt):
            work.advance(0)  # three runs finish, their state is saved, nothing is committed
    assert computed(tmp_path / "killed") == []
    after = LeafWork(long_study, _packs(long_study), LeafStore(tmp_path / "killed"))
    after.advance(0)
    assert len(computed(tmp_path / "killed")) == 3
    assert _finish(after) == 2 * INTERVALS - 1  # the interval of the kill was not done again
    _finish(LeafWork(long_study, _packs(long_study), LeafStore(tmp_path / "whole")))
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


@pytest.mark.usefixtures("narrow")
def test_a_damaged_state_is_named_and_the_one_before_it_serves(
    long_study: Study, tmp_path: Path
) -> None:
    work = LeafWork(long_study, _packs(long_study), LeafStore(tmp_path / "torn"))
    work.advance(0)
    work.advance(0)
    (newest,) = sorted((tmp_path / "torn" / "packs").glob("*/checkpoint-b.bin"))
    newest.write_bytes(newest.read_bytes()[:-7])
    after = LeafWork(long_study, _packs(long_study), LeafStore(tmp_path / "torn"))
    _finish(after)
    assert str(newest) in after.problems[0]
    _finish(LeafWork(long_study, _packs(long_study), LeafStore(tmp_path / "whole")))
    assert bits(tmp_path / "torn") == bits(tmp_path / "whole")


def test_progress_counts_runs_steps_and_shares_of_leaves(
    long_study: Study, tmp_path: Path, narrow: None
) -> None:
    work = LeafWork(long_study, _packs(long_study), LeafStore(tmp_path))
    assert work.progress is None
    work.advance(0)
    now = work.progress
    assert now is not None
    assert (now.finished, now.running, now.waiting) == (0, 3, 5)
    assert work.share == pytest.approx(8 * 6 / 48)  # 3 runs × 2 of 6 steps; 48 steps in all
    assert now.examples_s == pytest.approx(2 * now.steps_s)  # batches of two
    assert now.tokens_s > 3 * now.examples_s  # at least the prompt's three tokens each
    assert 0 < now.useful <= 1
    _finish(work)
    assert work.share == work.computed == 8


def test_tuned_prompts_are_kept_on_demand(study: Study, tmp_path: Path) -> None:
    packs = _packs(study)
    LeafWork(study, packs, LeafStore(tmp_path), keep_prompts=True).advance()
    start = packs[0].runs[0].prompt
    for run in (run for pack in packs for run in pack.runs):
        prompt, _ = load_prompt(prompt_path(tmp_path, run.key))
        assert prompt.shape == start.shape
        assert not torch.equal(prompt, start)


def test_learning_rates_that_race_are_tuned_together_and_named_together(
    toy_checkpoint: Path, toy_gym: Path, job: SearchJob, tmp_path: Path
) -> None:
    config = toy_study(toy_checkpoint, toy_gym).downstream
    racing = dataclasses.replace(config, catch_up=0.5, catch_up_after=1)
    study = open_study(toy_job(toy_checkpoint, toy_gym, tmp_path, downstream=racing).plans[0])
    task = study.scored["v-one"][13]
    assert leaf_identity(study, task, "p", 0.5)["recipe"]["downstream"]["lrs"] == (0.5, 0.2)
    packs = _packs(study)
    LeafWork(study, packs, LeafStore(tmp_path)).advance()
    torn = packs[0].runs[0].key
    path = tmp_path / "leaves" / torn[:2] / f"{torn}.json"
    before = unseal(path)["result"]
    path.unlink()
    again = LeafWork(study, packs, LeafStore(tmp_path))
    again.advance()
    assert again.computed == 2  # the torn leaf and the rate it raced with
    assert unseal(path)["result"]["dev"] == before["dev"]


def test_a_stopped_run_says_so_in_its_leaf(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    downstream = DownstreamConfig(
        lrs=(0.5,), batch_size=2, steps=40, eval_every=1, patience=2, max_generated=3
    )
    job = toy_job(toy_checkpoint, toy_gym, tmp_path, downstream=downstream)
    study = open_study(job.plans[0])
    packs = _packs(study)
    LeafWork(study, packs, LeafStore(tmp_path)).advance()
    store = LeafStore(tmp_path)
    leaves = [store.get(run.key) for pack in packs for run in pack.runs]
    stopped = [leaf for leaf in leaves if leaf is not None and leaf["result"]["stopped"]]
    assert stopped
    for leaf in stopped:
        last = leaf["result"]["curve"][-1][0]
        assert leaf["result"]["stopped"] == f"patience at step {last}"
        assert leaf["cost"]["steps"] == last < 40
